"""Remembers saved results with a rotated refresh token, and saves again those that a failover lost.

A result without a new refresh token is not remembered: its row is due again, and the stored refresh token works.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import structlog
from sqlalchemy import Engine

from shared.db.core.recent_writes import RecentWrites
from shared.db.core.statements import Database, next_number, single_statement
from shared.db.refresh.late_results import make_rotated_row
from shared.db.refresh.leases import RefreshResult

log = structlog.get_logger(__name__)

#: About a kilobyte each. At a million connections, the results of one pool process in 24 seconds.
MAX_GRANTS = 10_000
BATCH_ROWS = 500

#: The fences: no install, import or disconnect since, which have another generation, and no newer grant. A refresh in
#: flight, which uses an old token, is fenced out by a new lease number while its lease goes on, and what HubSpot
#: said about an old token is followed by a refresh at once. A locked row is written the next time.
WRITE_LOST_AGAIN = single_statement(f"""
WITH grants AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(:grants AS json)) AS grants(
        connection_id bigint, lease_number bigint, generation bigint, encrypted_refresh_token text, access_token text,
        expires_at timestamptz, granted_at timestamptz, lifetime_seconds real, scopes text[], due_at timestamptz)
), lost AS MATERIALIZED (
    SELECT c.id FROM tokenkeeper.connections AS c JOIN grants ON grants.connection_id = c.id
     WHERE c.generation = grants.generation AND c.encrypted_refresh_token IS NOT NULL
       AND grants.granted_at > coalesce(c.refreshed_at, '-infinity')
), locked AS MATERIALIZED (
    SELECT c.id, c.lease_until > now() AND c.lease_number <> grants.lease_number AS is_in_flight
      FROM tokenkeeper.connections AS c JOIN grants ON grants.connection_id = c.id
     WHERE c.id IN (SELECT id FROM lost) AND c.generation = grants.generation
       AND grants.granted_at > coalesce(c.refreshed_at, '-infinity')
     ORDER BY c.id FOR NO KEY UPDATE OF c SKIP LOCKED
), written AS (
    UPDATE tokenkeeper.connections AS c
       SET encrypted_refresh_token = grants.encrypted_refresh_token,
           access_token = CASE WHEN c.status <> 'revoked' THEN coalesce(grants.access_token, c.access_token) END,
           expires_at = CASE WHEN c.status <> 'revoked' THEN coalesce(grants.expires_at, c.expires_at) END,
           refreshed_at = grants.granted_at,
           lifetime_seconds = coalesce(grants.lifetime_seconds, c.lifetime_seconds),
           scopes = coalesce(grants.scopes, c.scopes),
           due_at = CASE WHEN is_in_flight OR c.status <> 'active' OR c.failures > 0
                         THEN greatest(now(), c.retry_not_before) ELSE grants.due_at END,
           pending_revocation = NULL,
           lease_number = {next_number("c.lease_number")},
           lease_until = CASE WHEN is_in_flight THEN c.lease_until END
      FROM grants JOIN locked ON locked.id = grants.connection_id
     WHERE c.id = locked.id
    RETURNING c.id
)
SELECT (SELECT count(*) FROM lost) AS lost, (SELECT count(*) FROM written) AS written
""")


class RecentGrants:
    """The newest saved grants of this process, of all apps."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)
        self._recent: RecentWrites[int, str] = RecentWrites(
            engine, self._write_lost_again, max_items=MAX_GRANTS, name="recent-grants"
        )

    def remember(self, saved: Iterable[RefreshResult]) -> None:
        """Call it right after the save. Results without a new refresh token are left out."""
        grants = {result.lease.connection_id: _to_json(result) for result in saved if result.encrypted_refresh_token}
        if grants:
            self._recent.remember(grants)

    def finish(self, timeout_seconds: float) -> None:
        """Call it at the end of the process. Takes long only where PostgreSQL does not answer just then."""
        self._recent.finish(timeout_seconds)

    def _write_lost_again(self, grants: Sequence[str]) -> bool:
        lost, written = 0, 0
        for start in range(0, len(grants), BATCH_ROWS):
            batch = f"[{','.join(grants[start : start + BATCH_ROWS])}]"
            (row,) = self._database.execute(WRITE_LOST_AGAIN, grants=batch)
            lost, written = lost + row.lost, written + row.written
        if written:
            log.warning("saved refresh tokens again that a failover had lost", count=written)
        return lost == written


def _to_json(result: RefreshResult) -> str:
    """A row of the statement. A string takes less memory than the result."""
    grant, due_at = result.transition.grant, result.transition.connection.due_at
    row = make_rotated_row(result)
    return json.dumps({**row, "scopes": grant and grant.scopes, "due_at": due_at and due_at.isoformat()})
