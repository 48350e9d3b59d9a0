"""Account information (domain and installer): due after each install, asked of HubSpot once there is a token."""

from __future__ import annotations

from sqlalchemy import Engine

from shared.db.core.statements import Database, single_statement

#: A claim that was not saved within this time is claimed again.
RECLAIM_SECONDS = 30

ANY_DUE = single_statement("""
SELECT EXISTS (SELECT FROM tokenkeeper.connections
                WHERE account_info_due_at <= now() AND access_token IS NOT NULL AND expires_at > now())
""")
CLAIM_DUE = single_statement(f"""
WITH due AS MATERIALIZED (
    SELECT hub_id FROM tokenkeeper.connections
     WHERE account_info_due_at <= now() AND access_token IS NOT NULL AND expires_at > now()
     ORDER BY account_info_due_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE tokenkeeper.connections AS c SET account_info_due_at = now() + interval '{RECLAIM_SECONDS} seconds'
  FROM due WHERE c.hub_id = due.hub_id
RETURNING c.hub_id, c.access_token
""")
#: An install since the claim made it due again, in the past: then it stays due.
SAVE = single_statement("""
WITH connection AS (
    UPDATE tokenkeeper.connections
       SET account_info_due_at = CASE WHEN account_info_due_at <= now() THEN account_info_due_at END
     WHERE hub_id = :hub_id AND status <> 'disconnected'
    RETURNING hub_id
)
INSERT INTO tokenkeeper.accounts (hub_id, hub_domain, installed_by)
SELECT hub_id, :hub_domain, :installed_by FROM connection
ON CONFLICT (hub_id) DO UPDATE SET hub_domain = excluded.hub_domain, installed_by = excluded.installed_by
""")


class AccountInfoStore:
    """Domain and installer of each account. Every method raises StoreUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def any_missing(self) -> bool:
        return bool(self._database.execute(ANY_DUE)[0][0])

    def claim_missing(self, limit: int) -> list[tuple[int, str]]:
        """Hubs and their access tokens, the longest due first. A connection without a token stays due."""
        return [(row.hub_id, row.access_token) for row in self._database.execute(CLAIM_DUE, limit=limit)]

    def save(self, hub_id: int, hub_domain: str | None, installed_by: str | None) -> None:
        self._database.execute(SAVE, hub_id=hub_id, hub_domain=hub_domain, installed_by=installed_by)
