"""Whose account a connection is: owed after each install, asked of HubSpot as soon as there is a token."""

from __future__ import annotations

from shared.db.database import Database, alone

#: Seconds after which an identification that was begun is begun again.
AGAIN = 30

ANY_UNIDENTIFIED = alone("""
SELECT EXISTS (SELECT FROM tokenkeeper.connections
                WHERE identify_due_at <= now() AND access_token IS NOT NULL AND expires_at > now())
""")
CLAIM_UNIDENTIFIED = alone(f"""
WITH owed AS MATERIALIZED (
    SELECT hub_id FROM tokenkeeper.connections
     WHERE identify_due_at <= now() AND access_token IS NOT NULL AND expires_at > now()
     ORDER BY identify_due_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE tokenkeeper.connections AS c SET identify_due_at = now() + interval '{AGAIN} seconds'
  FROM owed WHERE c.hub_id = owed.hub_id
RETURNING c.hub_id, c.access_token
""")
#: An install in between made it due anew, in the past: then it stays owed.
IDENTIFIED = alone("""
WITH seen AS (
    UPDATE tokenkeeper.connections
       SET identify_due_at = CASE WHEN identify_due_at <= now() THEN identify_due_at END
     WHERE hub_id = :hub_id AND status <> 'disconnected'
    RETURNING hub_id
)
INSERT INTO tokenkeeper.accounts (hub_id, hub_domain, installed_by)
SELECT hub_id, :hub_domain, :installed_by FROM seen
ON CONFLICT (hub_id) DO UPDATE SET hub_domain = excluded.hub_domain, installed_by = excluded.installed_by
""")


def any_unidentified(database: Database) -> bool:
    return bool(database.ask(ANY_UNIDENTIFIED)[0][0])


def claim_unidentified(database: Database, most: int) -> list[tuple[int, str]]:
    """Hubs and their access tokens, those that were owed longest first. One without a token waits for one."""
    return [(row.hub_id, row.access_token) for row in database.ask(CLAIM_UNIDENTIFIED, limit=most)]


def identified(database: Database, hub_id: int, hub_domain: str | None, installed_by: str | None) -> None:
    database.ask(IDENTIFIED, hub_id=hub_id, hub_domain=hub_domain, installed_by=installed_by)
