"""Moves every stored refresh token to the newest key, and proves it; also how all of them are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from shared.db.lifecycle.key_rotation import KeyRotationStore, ReencryptedToken
from shared.db.reports.connections import ConnectionReports
from shared.domain.connection import Status
from shared.token_cipher import DecryptionError, TokenCipher

Page = Sequence[tuple[int, str]]  #: hubs and their sealed refresh tokens
Watch = Callable[[Iterable[Page], str], Iterable[Page]]

#: Rows in one statement.
PAGE_ROWS = 1000
#: A web or worker that still runs with the old keys seals with them while we work: look again, but not for ever.
ROUNDS = 3


@dataclass(slots=True)
class KeyAudit:
    """What the stored refresh tokens need to be opened."""

    rows: int = 0
    on_older_key: int = 0  #: an older key than the newest
    undecryptable_hubs: list[int] = field(
        default_factory=list
    )  #: hubs: none of TOKEN_KEYS, or it was sealed for another hub


def read_encrypted_pages(reports: ConnectionReports) -> Iterator[Page]:
    after = -1
    while page := reports.read_encrypted_tokens(after=after, limit=PAGE_ROWS):
        yield page
        after = page[-1][0]


def count_tokens(reports: ConnectionReports) -> int:
    """How many rows there are to look at, but for a disconnect that was never finished."""
    counts = reports.read_overview().counts
    return sum(count for status, count in counts.items() if status is not Status.DISCONNECTED)


def rotate_keys(
    reports: ConnectionReports, resealing: KeyRotationStore, cipher: TokenCipher, watch: Watch
) -> tuple[int, KeyAudit]:
    """How many rows were sealed anew, and what all of them need now. May be stopped anywhere and begun again."""
    resealed = 0
    for _ in range(ROUNDS):
        for page in watch(read_encrypted_pages(reports), "re-sealing"):
            resealed += resealing.replace_tokens(
                [row for hub_id, sealed in page if (row := _resealed(cipher, hub_id, sealed))]
            )
        proof = audit_tokens(reports, cipher, watch)
        if not proof.on_older_key:
            break
    return resealed, proof


def audit_tokens(reports: ConnectionReports, cipher: TokenCipher, watch: Watch) -> KeyAudit:
    """Open every row."""
    proof = KeyAudit()
    for page in watch(read_encrypted_pages(reports), "opening every row"):
        proof.rows += len(page)
        for hub_id, sealed in page:
            try:
                cipher.decrypt_refresh_token(hub_id, sealed)
                proof.on_older_key += cipher.needs_reencryption(sealed)
            except DecryptionError:
                proof.undecryptable_hubs.append(hub_id)
    return proof


def read_undecryptable(reports: ConnectionReports, cipher: TokenCipher, watch: Watch) -> Iterator[Page]:
    """Those that none of the keys opens, or that were sealed for another hub."""
    for page in watch(read_encrypted_pages(reports), "opening every row"):
        yield [(hub_id, sealed) for hub_id, sealed in page if not _opens(cipher, hub_id, sealed)]


def _opens(cipher: TokenCipher, hub_id: int, sealed: str) -> bool:
    try:
        cipher.decrypt_refresh_token(hub_id, sealed)
    except DecryptionError:
        return False
    return True


def _resealed(cipher: TokenCipher, hub_id: int, sealed: str) -> ReencryptedToken | None:
    """None where there is nothing to do, or nothing that can be done: the proof counts those."""
    try:
        return ReencryptedToken(hub_id, sealed, cipher.reencrypt(sealed)) if cipher.needs_reencryption(sealed) else None
    except DecryptionError:
        return None
