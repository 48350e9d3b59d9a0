"""Whose account a connection is: owed after each install, asked of HubSpot as soon as there is a token."""

from __future__ import annotations

from sqlalchemy import Engine

from shared.db.core.statements import Database, single_statement

#: Seconds after which an identification that was begun is begun again.
AGAIN = 30

ANY_UNIDENTIFIED = single_statement("""
SELECT EXISTS (SELECT FROM tokenkeeper.connections
                WHERE account_info_due_at <= now() AND access_token IS NOT NULL AND expires_at > now())
""")
CLAIM_UNIDENTIFIED = single_statement(f"""
WITH owed AS MATERIALIZED (
    SELECT hub_id FROM tokenkeeper.connections
     WHERE account_info_due_at <= now() AND access_token IS NOT NULL AND expires_at > now()
     ORDER BY account_info_due_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE tokenkeeper.connections AS c SET account_info_due_at = now() + interval '{AGAIN} seconds'
  FROM owed WHERE c.hub_id = owed.hub_id
RETURNING c.hub_id, c.access_token
""")
#: An install in between made it due anew, in the past: then it stays owed.
IDENTIFIED = single_statement("""
WITH seen AS (
    UPDATE tokenkeeper.connections
       SET account_info_due_at = CASE WHEN account_info_due_at <= now() THEN account_info_due_at END
     WHERE hub_id = :hub_id AND status <> 'disconnected'
    RETURNING hub_id
)
INSERT INTO tokenkeeper.accounts (hub_id, hub_domain, installed_by)
SELECT hub_id, :hub_domain, :installed_by FROM seen
ON CONFLICT (hub_id) DO UPDATE SET hub_domain = excluded.hub_domain, installed_by = excluded.installed_by
""")


class AccountInfoStore:
    """Domain and installer of each account, from HubSpot.

    Every method raises StoreUnavailable where PostgreSQL does not answer.
    """

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def any_missing(self) -> bool:
        return bool(self._database.execute(ANY_UNIDENTIFIED)[0][0])

    def claim_missing(self, most: int) -> list[tuple[int, str]]:
        """Hubs and their access tokens, those that were owed longest first. One without a token waits for one."""
        return [(row.hub_id, row.access_token) for row in self._database.execute(CLAIM_UNIDENTIFIED, limit=most)]

    def save(self, hub_id: int, hub_domain: str | None, installed_by: str | None) -> None:
        self._database.execute(IDENTIFIED, hub_id=hub_id, hub_domain=hub_domain, installed_by=installed_by)
