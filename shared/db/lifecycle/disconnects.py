"""Disconnects by the operator: mark the connection, read its tokens for HubSpot, wipe them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, Row

from shared.db.core.statements import Database, next_number, single_statement
from shared.domain.identity import ConnectionIdentity

#: A disconnect that is not finished within this time is finished by another process.
RECLAIM_SECONDS = 60


@dataclass(frozen=True, slots=True)
class DisconnectTokens:
    """The tokens that a disconnect ends at HubSpot."""

    identity: ConnectionIdentity
    generation: int  #: of the disconnect: an install since then has another one
    encrypted_refresh_token: str = field(repr=False)
    access_token: str | None = field(repr=False)  #: None where it has expired


#: From this statement on the view does not show the token. The tokens stay until HubSpot has ended them.
_MARK = f"""
WITH old AS MATERIALIZED (
    SELECT id, status FROM tokenkeeper.connections
     WHERE id = :connection_id AND {{not_wiped}} FOR NO KEY UPDATE
), marked AS (
    UPDATE tokenkeeper.connections AS c
       SET status = 'disconnected', status_reason = 'the operator disconnected it',
           status_since = CASE WHEN old.status = 'disconnected' THEN c.status_since ELSE clock_timestamp() END,
           generation = CASE WHEN old.status = 'disconnected' THEN c.generation ELSE {next_number("c.generation")} END,
           due_at = NULL, retry_not_before = NULL, pending_revocation = NULL, account_info_due_at = NULL,
           refresh_requested = false
      FROM old WHERE c.id = old.id
    RETURNING c.id, c.app, c.hub_id, c.user_id, c.customer, old.status AS old_status, {{returned}}
), history AS (
    INSERT INTO tokenkeeper.history (app, hub_id, user_id, customer, event, detail, status)
    SELECT app, hub_id, user_id, customer, 'disconnected', jsonb_build_object('was', old_status), 'disconnected'
      FROM marked WHERE old_status <> 'disconnected'
)
SELECT * FROM marked
"""
MARK_AND_READ_TOKENS = single_statement(
    _MARK.format(
        not_wiped="encrypted_refresh_token IS NOT NULL",
        returned="""
           c.generation, c.encrypted_refresh_token,
           CASE WHEN c.expires_at > clock_timestamp() THEN c.access_token END AS access_token
        """,
    )
)
#: For web, which may read neither token (shared/db/schema/privileges.py).
MARK = single_statement(_MARK.format(not_wiped="tokenkeeper.has_refresh_token(id)", returned="c.generation"))
READ_TOKENS = single_statement("""
SELECT app, hub_id, user_id, generation, encrypted_refresh_token,
       CASE WHEN expires_at > clock_timestamp() THEN access_token END AS access_token
  FROM tokenkeeper.connections
 WHERE id = :connection_id AND status = 'disconnected' AND encrypted_refresh_token IS NOT NULL
""")
IS_CURRENT = single_statement("""
SELECT EXISTS (SELECT FROM tokenkeeper.connections
                WHERE id = :connection_id AND generation = :generation AND status = 'disconnected'
                  AND encrypted_refresh_token IS NOT NULL)
""")
#: A connection that was installed again during the calls to HubSpot may have been ended there by one of them: it is
#: refreshed at once, so that its status says so.
WIPE_TOKENS = single_statement("""
WITH wiped AS (
    UPDATE tokenkeeper.connections
       SET access_token = NULL, expires_at = NULL, encrypted_refresh_token = NULL
     WHERE id = :connection_id AND generation = :generation AND status = 'disconnected'
    RETURNING id
), made_due AS (
    UPDATE tokenkeeper.connections SET due_at = least(due_at, greatest(now(), retry_not_before))
     WHERE id = :connection_id AND generation > :generation AND status = 'active'
)
SELECT id FROM wiped
""")
_IS_UNFINISHED = f"""
status = 'disconnected' AND encrypted_refresh_token IS NOT NULL
AND status_since < now() - interval '{RECLAIM_SECONDS} seconds' AND (lease_until IS NULL OR lease_until <= now())
"""
#: An SQL expression.
ANY_UNFINISHED = f"EXISTS (SELECT FROM tokenkeeper.connections WHERE {_IS_UNFINISHED})"
#: The lease keeps the next sweep from claiming the same rows.
CLAIM_UNFINISHED = single_statement(f"""
WITH unfinished AS MATERIALIZED (
    SELECT id FROM tokenkeeper.connections
     WHERE {_IS_UNFINISHED}
     ORDER BY id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE tokenkeeper.connections AS c
   SET lease_until = now() + interval '{RECLAIM_SECONDS} seconds', lease_number = {next_number("c.lease_number")}
  FROM unfinished WHERE c.id = unfinished.id
RETURNING c.id
""")


class DisconnectStore:
    """Disconnects by an operator. Every method raises StoreUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def mark(self, connection_id: int) -> bool:
        """Step 1, without the tokens. False where there is no such connection, or its tokens are wiped."""
        return bool(self._database.execute(MARK, connection_id=connection_id))

    def mark_and_read_tokens(self, connection_id: int) -> DisconnectTokens | None:
        """Step 1; may be repeated. None where there is no such connection, or its tokens are wiped."""
        rows = self._database.execute(MARK_AND_READ_TOKENS, connection_id=connection_id)
        return _row_to_tokens(rows[0]) if rows else None

    def read_tokens(self, connection_id: int) -> DisconnectTokens | None:
        """Step 1 again, for a disconnect that has begun. None where it has not begun, or its tokens are wiped."""
        rows = self._database.execute(READ_TOKENS, connection_id=connection_id)
        return _row_to_tokens(rows[0]) if rows else None

    def is_current(self, connection_id: int, generation: int) -> bool:
        """Whether this disconnect is still to be finished: the connection was not installed again since."""
        return bool(self._database.execute(IS_CURRENT, connection_id=connection_id, generation=generation)[0][0])

    def wipe_tokens(self, connection_id: int, generation: int) -> bool:
        """The last step. False where the connection was installed again: it keeps its tokens, and is due now."""
        return bool(self._database.execute(WIPE_TOKENS, connection_id=connection_id, generation=generation))

    def claim_unfinished(self, limit: int = 20) -> list[int]:
        """Connections whose disconnect is unfinished for RECLAIM_SECONDS; each is returned once in that time."""
        return [row.id for row in self._database.execute(CLAIM_UNFINISHED, limit=limit)]


def _row_to_tokens(row: Row[Any]) -> DisconnectTokens:
    identity = ConnectionIdentity(row.app, row.hub_id, row.user_id)
    return DisconnectTokens(identity, row.generation, row.encrypted_refresh_token, row.access_token)
