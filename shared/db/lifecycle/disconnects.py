"""What an operator asks of one connection: to end it, or to refresh it now."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Engine

from shared.db.core.statements import Database, single_statement

#: Seconds that a disconnect may take before somebody else finishes it.
AGAIN = 60


@dataclass(frozen=True, slots=True)
class DisconnectTokens:
    """What a disconnect needs to tell HubSpot."""

    encrypted_refresh_token: str = field(repr=False)
    access_token: str | None = field(repr=False)  #: None where it is past its life


#: Not served from this statement on: the view asks for the status. The tokens stay until HubSpot is told.
_MARKED = """
WITH old AS MATERIALIZED (
    SELECT hub_id, status FROM tokenkeeper.connections
     WHERE hub_id = :hub_id AND {unwiped} FOR NO KEY UPDATE
), marked AS (
    UPDATE tokenkeeper.connections AS c
       SET status = 'disconnected', status_reason = 'the operator disconnected it',
           status_since = CASE WHEN old.status = 'disconnected' THEN c.status_since ELSE clock_timestamp() END,
           generation = c.generation + CASE WHEN old.status = 'disconnected' THEN 0 ELSE 1 END,
           due_at = NULL, retry_not_before = NULL, pending_revocation = NULL, account_info_due_at = NULL,
           refresh_requested = false
      FROM old WHERE c.hub_id = old.hub_id
    RETURNING c.hub_id, old.status AS was, {returned}
), told AS (
    INSERT INTO tokenkeeper.history (hub_id, event, detail, status)
    SELECT hub_id, 'disconnected', jsonb_build_object('was', was), 'disconnected'
      FROM marked WHERE was <> 'disconnected'
)
SELECT * FROM marked
"""
DISCONNECTING = single_statement(
    _MARKED.format(
        unwiped="encrypted_refresh_token IS NOT NULL",
        returned="""
           c.encrypted_refresh_token, CASE WHEN c.expires_at > clock_timestamp() THEN c.access_token END AS access_token
        """,
    )
)
#: For web, which may read neither (shared/db/schema/privileges.py).
BEGIN_DISCONNECT = single_statement(
    _MARKED.format(unwiped="tokenkeeper.has_refresh_token(hub_id)", returned="c.generation")
)
BEGUN = single_statement("""
SELECT encrypted_refresh_token, CASE WHEN expires_at > clock_timestamp() THEN access_token END AS access_token
  FROM tokenkeeper.connections
 WHERE hub_id = :hub_id AND status = 'disconnected' AND encrypted_refresh_token IS NOT NULL
""")
WIPED = single_statement("""
UPDATE tokenkeeper.connections
   SET access_token = NULL, expires_at = NULL, encrypted_refresh_token = NULL
 WHERE hub_id = :hub_id AND status = 'disconnected'
""")
#: The lease keeps the next sweep from handing out the same one.
LEFTOVERS = single_statement(f"""
WITH left_over AS MATERIALIZED (
    SELECT hub_id FROM tokenkeeper.connections
     WHERE status = 'disconnected' AND encrypted_refresh_token IS NOT NULL
       AND status_since < now() - interval '{AGAIN} seconds'
       AND (lease_until IS NULL OR lease_until <= now())
     ORDER BY hub_id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE tokenkeeper.connections AS c
   SET lease_until = now() + interval '{AGAIN} seconds', lease_number = c.lease_number + 1
  FROM left_over WHERE c.hub_id = left_over.hub_id
RETURNING c.hub_id
""")


class DisconnectStore:
    """Disconnects by an operator. Every method raises StoreUnavailable where PostgreSQL does not answer."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def mark(self, hub_id: int) -> bool:
        """The first step, for who does not take the next. False where there is no such connection, or it is wiped."""
        return bool(self._database.execute(BEGIN_DISCONNECT, hub_id=hub_id))

    def mark_and_read_tokens(self, hub_id: int) -> DisconnectTokens | None:
        """The first step. None where there is no such connection, or it is wiped. May be repeated until it is."""
        rows = self._database.execute(DISCONNECTING, hub_id=hub_id)
        return DisconnectTokens(rows[0].encrypted_refresh_token, rows[0].access_token) if rows else None

    def read_tokens(self, hub_id: int) -> DisconnectTokens | None:
        """None where nobody began to disconnect it, or it is wiped."""
        rows = self._database.execute(BEGUN, hub_id=hub_id)
        return DisconnectTokens(rows[0].encrypted_refresh_token, rows[0].access_token) if rows else None

    def wipe_tokens(self, hub_id: int) -> None:
        """The last step; one that was installed again meanwhile keeps what it has."""
        self._database.execute(WIPED, hub_id=hub_id)

    def claim_unfinished(self, most: int = 20) -> list[int]:
        """Disconnects that were begun a minute ago and never finished; each is named once a minute."""
        return [row.hub_id for row in self._database.execute(LEFTOVERS, limit=most)]
