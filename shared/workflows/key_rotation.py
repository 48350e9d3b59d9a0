"""Encrypts every stored refresh token with the newest key, and checks which keys the stored tokens need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from shared.db.lifecycle.key_rotation import EncryptedToken, KeyRotationStore, ReencryptedToken, TokenPlace
from shared.db.reports.connections import ConnectionReports
from shared.domain.connection import Status
from shared.token_cipher import DecryptionError, TokenCipher

Page = Sequence[EncryptedToken]
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
    on_older_key: int = 0  #: tokens that an older key than the newest decrypts
    #: of tokens that no key of TOKEN_KEYS decrypts, or that were encrypted for another hub
    undecryptable_hubs: list[int] = field(default_factory=list)


def rotate_keys(store: KeyRotationStore, cipher: TokenCipher, watch: Watch) -> tuple[int, KeyAudit]:
    """How many tokens were encrypted again, and an audit after that. May be stopped anywhere and run again."""
    replaced = 0
    for _ in range(MAX_ROUNDS):
        # 1. Encrypt with the newest key whatever needs it. Tokens that no key decrypts are left to the audit.
        for place in TokenPlace:
            for page in watch(read_pages(store, place), "re-encrypting"):
                replaced += store.replace_tokens(place, list(_reencrypt(page, cipher)))
        # 2. Decrypt every token. Another process may have written some with an older key since.
        audit = audit_tokens(store, cipher, watch)
        if not audit.on_older_key:
            break
    return replaced, audit


def audit_tokens(store: KeyRotationStore, cipher: TokenCipher, watch: Watch) -> KeyAudit:
    """Decrypt every token."""
    audit = KeyAudit()
    for place in TokenPlace:
        for page in watch(read_pages(store, place), "decrypting every token"):
            audit.rows += len(page)
            for token in page:
                if _is_decryptable(token, cipher):
                    audit.on_older_key += cipher.needs_reencryption(token.ciphertext)
                else:
                    audit.undecryptable_hubs.append(token.hub_id)
    return audit


def read_undecryptable(
    store: KeyRotationStore, cipher: TokenCipher, watch: Watch
) -> dict[TokenPlace, list[EncryptedToken]]:
    """The tokens that no key decrypts, or that were encrypted for another hub."""
    return {
        place: [
            token
            for page in watch(read_pages(store, place), "decrypting every token")
            for token in page
            if not _is_decryptable(token, cipher)
        ]
        for place in TokenPlace
    }


def read_pages(store: KeyRotationStore, place: TokenPlace) -> Iterator[Page]:
    after = 0
    while page := store.read_tokens(place, after=after, limit=PAGE_ROWS):
        yield page
        after = page[-1].connection_id


def count_tokens(reports: ConnectionReports) -> int:
    """How many there are, without those of unfinished disconnects and those that wait for their connection."""
    counts = reports.read_overview().counts
    return sum(count for status, count in counts.items() if status is not Status.DISCONNECTED)


def _reencrypt(page: Page, cipher: TokenCipher) -> Iterator[ReencryptedToken]:
    for token in page:
        with suppress(DecryptionError):
            if cipher.needs_reencryption(token.ciphertext):
                yield ReencryptedToken(token.connection_id, token.ciphertext, cipher.reencrypt(token.ciphertext))


def _is_decryptable(token: EncryptedToken, cipher: TokenCipher) -> bool:
    try:
        cipher.decrypt_refresh_token(token.hub_id, token.ciphertext)
    except DecryptionError:
        return False
    return True
