"""Encrypts every stored refresh token with the newest key, and checks which keys the stored tokens need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from shared.db.lifecycle.key_rotation import KeyRotationStore, ReencryptedToken
from shared.db.reports.connections import ConnectionReports
from shared.domain.connection import Status
from shared.token_cipher import DecryptionError, TokenCipher

Page = Sequence[tuple[int, str]]  #: hubs and their encrypted refresh tokens
#: Passes pages on, and shows the progress under a title.
Watch = Callable[[Iterable[Page], str], Iterable[Page]]

#: Rows in one statement.
PAGE_ROWS = 1000
#: A web or worker that still runs with the old keys encrypts with them in the meantime: so the rotation runs again.
MAX_ROUNDS = 3


@dataclass(slots=True)
class KeyAudit:
    """Which keys the stored refresh tokens need."""

    rows: int = 0
    on_older_key: int = 0  #: rows that an older key than the newest decrypts
    #: rows that no key of TOKEN_KEYS decrypts, or that were encrypted for another hub
    undecryptable_hubs: list[int] = field(default_factory=list)


def rotate_keys(
    reports: ConnectionReports, store: KeyRotationStore, cipher: TokenCipher, watch: Watch
) -> tuple[int, KeyAudit]:
    """How many rows were encrypted again, and an audit after that. May be stopped anywhere and run again."""
    replaced = 0
    for _ in range(MAX_ROUNDS):
        # 1. Encrypt with the newest key whatever needs it. Rows that no key decrypts are left to the audit.
        for page in watch(read_encrypted_pages(reports), "re-encrypting"):
            reencrypted = []
            for hub_id, ciphertext in page:
                with suppress(DecryptionError):
                    if cipher.needs_reencryption(ciphertext):
                        reencrypted.append(ReencryptedToken(hub_id, ciphertext, cipher.reencrypt(ciphertext)))
            replaced += store.replace_tokens(reencrypted)
        # 2. Decrypt every row. Another process may have written rows with an older key since.
        audit = audit_tokens(reports, cipher, watch)
        if not audit.on_older_key:
            break
    return replaced, audit


def audit_tokens(reports: ConnectionReports, cipher: TokenCipher, watch: Watch) -> KeyAudit:
    """Decrypt every row."""
    audit = KeyAudit()
    for page in watch(read_encrypted_pages(reports), "decrypting every row"):
        audit.rows += len(page)
        for hub_id, ciphertext in page:
            try:
                cipher.decrypt_refresh_token(hub_id, ciphertext)
                audit.on_older_key += cipher.needs_reencryption(ciphertext)
            except DecryptionError:
                audit.undecryptable_hubs.append(hub_id)
    return audit


def read_undecryptable(reports: ConnectionReports, cipher: TokenCipher, watch: Watch) -> Iterator[Page]:
    """The rows that no key decrypts, or that were encrypted for another hub."""
    for page in watch(read_encrypted_pages(reports), "decrypting every row"):
        undecryptable = []
        for hub_id, ciphertext in page:
            try:
                cipher.decrypt_refresh_token(hub_id, ciphertext)
            except DecryptionError:
                undecryptable.append((hub_id, ciphertext))
        yield undecryptable


def read_encrypted_pages(reports: ConnectionReports) -> Iterator[Page]:
    after = -1
    while page := reports.read_encrypted_tokens(after=after, limit=PAGE_ROWS):
        yield page
        after = page[-1][0]


def count_tokens(reports: ConnectionReports) -> int:
    """How many rows `read_encrypted_pages` brings, except for disconnects that are not finished."""
    counts = reports.read_overview().counts
    return sum(count for status, count in counts.items() if status is not Status.DISCONNECTED)
