"""Puts newly sealed refresh tokens in the place of the same ones under an older key, while everything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine

from shared.db.core.statements import Database, single_statement


@dataclass(frozen=True, slots=True)
class ReencryptedToken:
    hub_id: int
    was: str = field(repr=False)  #: sealed, as it was read
    sealed: str = field(repr=False)


#: Only where it is still what was read: a refresh or an install in between brought a newer token. The generation
#: stays, because the token is the same: a refresh in flight still lands. Rows are locked in every saver's order.
RESEAL = single_statement("""
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:hub_ids AS bigint[]), CAST(:was AS text[]), CAST(:sealed AS text[]))
               AS g(hub_id, was, sealed)
), held AS MATERIALIZED (
    SELECT c.hub_id, given.sealed
      FROM tokenkeeper.connections AS c JOIN given ON given.hub_id = c.hub_id
     WHERE c.encrypted_refresh_token = given.was
     ORDER BY c.hub_id FOR NO KEY UPDATE OF c
)
UPDATE tokenkeeper.connections AS c SET encrypted_refresh_token = held.sealed
  FROM held WHERE c.hub_id = held.hub_id
RETURNING c.hub_id
""")


#: Only where it is still what was read, as above. Like an operator's disconnect, but there is nothing to tell HubSpot.
FORGET = single_statement("""
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:hub_ids AS bigint[]), CAST(:sealed AS text[])) AS g(hub_id, sealed)
), held AS MATERIALIZED (
    SELECT c.hub_id, c.status
      FROM tokenkeeper.connections AS c JOIN given ON given.hub_id = c.hub_id
     WHERE c.encrypted_refresh_token = given.sealed
     ORDER BY c.hub_id FOR NO KEY UPDATE OF c
), marked AS (
    UPDATE tokenkeeper.connections AS c
       SET status = 'disconnected', status_reason = 'the key to its refresh token is lost: have it installed again',
           status_since = CASE WHEN held.status = 'disconnected' THEN c.status_since ELSE clock_timestamp() END,
           encrypted_refresh_token = NULL, access_token = NULL, expires_at = NULL, generation = c.generation + 1,
           due_at = NULL, retry_not_before = NULL, pending_revocation = NULL, account_info_due_at = NULL,
           refresh_requested = false
      FROM held WHERE c.hub_id = held.hub_id
    RETURNING c.hub_id, held.status AS was
), told AS (
    INSERT INTO tokenkeeper.history (hub_id, event, detail, status)
    SELECT hub_id, 'disconnected', jsonb_build_object('was', was, 'key_lost', true), 'disconnected'
      FROM marked WHERE was <> 'disconnected'
)
SELECT hub_id FROM marked
""")


class KeyRotationStore:
    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def replace_tokens(self, rows: Sequence[ReencryptedToken]) -> int:
        """How many of them took its place. Raises StoreUnavailable; then none did."""
        if not rows:
            return 0
        stored = self._database.execute(
            RESEAL,
            hub_ids=[row.hub_id for row in rows],
            was=[row.was for row in rows],
            sealed=[row.sealed for row in rows],
        )
        return len(stored)

    def disconnect_undecryptable(self, rows: Sequence[tuple[int, str]]) -> int:
        """Of hubs and their sealed refresh tokens, which nobody can open any more: how many wait for an install now."""
        if not rows:
            return 0
        hub_ids, sealed = [hub_id for hub_id, _ in rows], [each for _, each in rows]
        return len(self._database.execute(FORGET, hub_ids=hub_ids, sealed=sealed))
