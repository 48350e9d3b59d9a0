"""Replaces refresh tokens under an older key by the same ones under the newest, while everything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from sqlalchemy import Engine

from shared.db.core.statements import Database, next_number, single_statement


class _Column(NamedTuple):
    table: str
    key: str  #: the column with the connection's id
    ciphertext: str


class TokenPlace(Enum):
    """Every column with encrypted refresh tokens: an old key may be removed when none of them needs it."""

    CONNECTIONS = _Column("connections", "id", "encrypted_refresh_token")
    #: Of refreshes whose row was locked.
    ROTATED = _Column("rotated_tokens", "connection_id", "encrypted_refresh_token")
    #: Of installs that may be newer than the stored one.
    UNCERTAIN = _Column("uncertain_installs", "connection_id", "other_encrypted_refresh_token")


@dataclass(frozen=True, slots=True)
class EncryptedToken:
    connection_id: int
    hub_id: int  #: for which it is encrypted
    ciphertext: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReencryptedToken:
    connection_id: int
    old_ciphertext: str = field(repr=False)  #: as it was read
    new_ciphertext: str = field(repr=False)


#: A connection has one token in each place, but for the rare second one in rotated_tokens: the next round reads it.
_READ = """
SELECT t.{key} AS connection_id, c.hub_id, t.{ciphertext} AS ciphertext
  FROM tokenkeeper.{table} AS t JOIN tokenkeeper.connections AS c ON c.id = t.{key}
 WHERE t.{key} > :after AND t.{ciphertext} IS NOT NULL ORDER BY t.{key} LIMIT :limit
"""
#: Only where the row is as it was read: a refresh or an install since then brought a newer token. The generation stays,
#: because the token is the same, so a refresh in flight is still saved. A row that is locked is left to the next round.
_REPLACE = """
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:connection_ids AS bigint[]), CAST(:old_ciphertexts AS text[]),
                         CAST(:new_ciphertexts AS text[])) AS g(connection_id, old_ciphertext, new_ciphertext)
), locked AS MATERIALIZED (
    SELECT t.{key}, given.old_ciphertext, given.new_ciphertext
      FROM tokenkeeper.{table} AS t JOIN given ON given.connection_id = t.{key}
     WHERE t.{ciphertext} = given.old_ciphertext
     ORDER BY t.{key} FOR NO KEY UPDATE OF t SKIP LOCKED
)
UPDATE tokenkeeper.{table} AS t SET {ciphertext} = locked.new_ciphertext
  FROM locked WHERE t.{key} = locked.{key} AND t.{ciphertext} = locked.old_ciphertext
RETURNING t.{key}
"""
READ = {place: single_statement(_READ.format(**place.value._asdict())) for place in TokenPlace}
REPLACE = {place: single_statement(_REPLACE.format(**place.value._asdict())) for place in TokenPlace}

_GIVEN = """
given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:connection_ids AS bigint[]), CAST(:ciphertexts AS text[]))
               AS g(connection_id, ciphertext)
)
"""
#: Only where the row is as it was read. As a disconnect by the operator, but HubSpot cannot be asked to end the token.
DISCONNECT = single_statement(f"""
WITH {_GIVEN}, locked AS MATERIALIZED (
    SELECT c.id, c.status
      FROM tokenkeeper.connections AS c JOIN given ON given.connection_id = c.id
     WHERE c.encrypted_refresh_token = given.ciphertext
     ORDER BY c.id FOR NO KEY UPDATE OF c
), marked AS (
    UPDATE tokenkeeper.connections AS c
       SET status = 'disconnected', status_reason = 'the key to its refresh token is lost: have it installed again',
           status_since = CASE WHEN locked.status = 'disconnected' THEN c.status_since ELSE clock_timestamp() END,
           encrypted_refresh_token = NULL, access_token = NULL, expires_at = NULL,
           generation = {next_number("c.generation")},
           due_at = NULL, retry_not_before = NULL, pending_revocation = NULL, account_info_due_at = NULL,
           refresh_requested = false
      FROM locked WHERE c.id = locked.id
    RETURNING c.app, c.hub_id, c.user_id, c.customer, locked.status AS old_status
), history AS (
    INSERT INTO tokenkeeper.history (app, hub_id, user_id, customer, event, detail, status)
    SELECT app, hub_id, user_id, customer, 'disconnected',
           jsonb_build_object('was', old_status, 'key_lost', true), 'disconnected'
      FROM marked WHERE old_status <> 'disconnected'
)
SELECT 1 FROM marked
""")
#: A token that waits for its connection, and no key decrypts, is of no use; the connection has another one.
_DELETE = """
WITH {given}
DELETE FROM tokenkeeper.{table} AS t USING given
 WHERE t.{key} = given.connection_id AND t.{ciphertext} = given.ciphertext
RETURNING 1
"""
REMOVE = {
    place: single_statement(_DELETE.format(given=_GIVEN, **place.value._asdict()))
    for place in (TokenPlace.ROTATED, TokenPlace.UNCERTAIN)
} | {TokenPlace.CONNECTIONS: DISCONNECT}


class KeyRotationStore:
    """Every method raises StoreUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def read_tokens(self, place: TokenPlace, *, after: int = 0, limit: int = 1000) -> list[EncryptedToken]:
        """A page, by connection: the first one above `after`."""
        rows = self._database.execute(READ[place], after=after, limit=limit)
        return [EncryptedToken(row.connection_id, row.hub_id, row.ciphertext) for row in rows]

    def replace_tokens(self, place: TokenPlace, tokens: Sequence[ReencryptedToken]) -> int:
        """How many were replaced. Raises StoreUnavailable; then none was."""
        if not tokens:
            return 0
        stored = self._database.execute(
            REPLACE[place],
            connection_ids=[token.connection_id for token in tokens],
            old_ciphertexts=[token.old_ciphertext for token in tokens],
            new_ciphertexts=[token.new_ciphertext for token in tokens],
        )
        return len(stored)

    def remove_undecryptable(self, place: TokenPlace, tokens: Sequence[EncryptedToken]) -> int:
        """Disconnect the connections whose token is one of these, or delete one that waits. How many."""
        if not tokens:
            return 0
        connection_ids, ciphertexts = [each.connection_id for each in tokens], [each.ciphertext for each in tokens]
        return len(self._database.execute(REMOVE[place], connection_ids=connection_ids, ciphertexts=ciphertexts))
