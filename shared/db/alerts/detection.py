"""What each sweep looks for on operators' behalf: connections revoked or back, and tokens about to end."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from shared.db.alerts.outbox import PENDING
from shared.db.alerts.raising import raise_alert
from shared.db.core.statements import Database, single_statement
from shared.domain.alerts import RECENT_WINDOW, AlertKind, pause_seconds

#: Of its token's lifetime: with less than that left, and no refresh having worked, a connection is about to go stale.
LAST_OF_LIFE = 0.1
#: Attempts in vain before that is said of a connection that is being tried.
VAIN = 2
#: Seconds, or sweeps, for which a refresh must have been overdue before it is said of one that nobody tried.
OVERDUE_SECONDS, OVERDUE_SWEEPS = 10.0, 5
#: So many hubs are named in one alert, the rest are counted.
NAMED = 10
#: Of those failing and of those longest overdue so many are looked at: a sweep must not slow down with a backlog.
LOOKED_AT = 5000
#: While an alert stands, another is raised when so many times as many are about to go stale, a RECENT_WINDOW later.
WORSE = 10
#: Told in one message at most.
MOST = 10_000

_STALE = f"""
SELECT hub_id FROM (
    (SELECT hub_id, status, expires_at, lifetime_seconds, failures, due_at FROM tokenkeeper.connections
      WHERE failures >= {VAIN} AND status IN ('active', 'suspect') LIMIT {LOOKED_AT})
    UNION ALL
    (SELECT hub_id, status, expires_at, lifetime_seconds, failures, due_at FROM tokenkeeper.connections
      WHERE due_at <= now() ORDER BY due_at LIMIT {LOOKED_AT})
) AS candidate
 WHERE status IN ('active', 'suspect')
   AND expires_at < now() + make_interval(secs => coalesce(lifetime_seconds, 0) * {LAST_OF_LIFE})
   AND (failures >= {VAIN} OR due_at < now() - make_interval(secs => :overdue))
 GROUP BY hub_id
"""
#: The planner takes half of all rows for untold, would read the table until it meets the first, and there is none;
#: with statistics from before a backlog it would sort the whole of it. The indexes' own order is what is wanted.
NO_SCAN = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off; "
LOOK = single_statement(f"""
{NO_SCAN}SELECT EXISTS (SELECT FROM tokenkeeper.connections WHERE (status = 'revoked') <> revocation_alerted) AS untold,
       (SELECT count(*) FROM ({_STALE}) AS stale) AS stale,
       (SELECT NOT recovered FROM tokenkeeper.alerts
         WHERE kind = 'stale_connections' ORDER BY at DESC LIMIT 1) AS stands
""")
#: SKIP LOCKED: who is being saved just now is told of at the next sweep.
TELL_REVOCATIONS = text(f"""
{NO_SCAN}WITH untold AS MATERIALIZED (
    SELECT hub_id FROM tokenkeeper.connections
     WHERE (status = 'revoked') <> revocation_alerted AND revocation_alerted = :recovered
     LIMIT {MOST} FOR NO KEY UPDATE SKIP LOCKED
), told AS (
    UPDATE tokenkeeper.connections AS c SET revocation_alerted = NOT c.revocation_alerted
      FROM untold WHERE c.hub_id = untold.hub_id
    RETURNING c.hub_id
)
SELECT count(*) AS total, (array_agg(hub_id ORDER BY hub_id))[1:{NAMED}] AS hubs FROM told
""")
#: Of two sweeps at once, the second sees what the first has raised.
ONE_AT_A_TIME = text("SELECT FROM tokenkeeper.provider FOR NO KEY UPDATE")
STALE = text(f"""
{NO_SCAN}SELECT count(*) AS total, (array_agg(hub_id ORDER BY hub_id))[1:{NAMED}] AS hubs FROM ({_STALE}) AS stale
""")
NEWEST_STALE = text("""
SELECT recovered, CAST(detail->>'count' AS bigint) AS total, at < now() - make_interval(secs => :lately) AS old
  FROM tokenkeeper.alerts WHERE kind = 'stale_connections' ORDER BY at DESC LIMIT 1
""")
TOLD_LATELY = text("""
SELECT count(*) AS told, extract(epoch FROM clock_timestamp() - max(at))::double precision AS ago
  FROM tokenkeeper.alerts
 WHERE kind = :kind AND recovered = :recovered AND at > clock_timestamp() - make_interval(secs => :lately)
""")


class AlertDetector:
    """Two sweeps at once, or one that is repeated, tell nothing twice: what was told stands in the same transaction."""

    def __init__(self, engine: Engine, sweep_seconds: float) -> None:
        self._database = Database(engine)
        self._overdue = max(OVERDUE_SECONDS, OVERDUE_SWEEPS * sweep_seconds)

    def detect(self) -> bool:
        """Raise what alerts there are to raise. Whether any waits to be told.

        Raises StoreUnavailable; then the next sweep looks again.
        """
        seen = self._database.execute(LOOK, overdue=self._overdue)[0]
        if seen.untold:
            for recovered in (False, True):
                self._tell_revocations(recovered=recovered)
        if seen.stale or seen.stands:
            self._tell_stale()
        return bool(self._database.execute(PENDING)[0][0])

    def _tell_revocations(self, *, recovered: bool) -> None:
        """Hundreds of them become a few messages, which sum them up."""
        with self._database.transaction() as connection:
            if not _may_tell(connection, AlertKind.REVOKED, recovered=recovered):
                return
            told = connection.execute(TELL_REVOCATIONS, {"recovered": recovered}).one()
            if told.total:
                _raise(connection, AlertKind.REVOKED, told, recovered=recovered)

    def _tell_stale(self) -> None:
        with self._database.transaction() as connection:
            connection.execute(ONE_AT_A_TIME)
            stale = connection.execute(STALE, {"overdue": self._overdue}).one()
            lately = {"lately": RECENT_WINDOW.total_seconds()}
            before = connection.execute(NEWEST_STALE, lately).one_or_none()
            if not _news(before, stale.total):
                return
            recovered = stale.total == 0
            if _may_tell(connection, AlertKind.STALE, recovered=recovered):
                _raise(connection, AlertKind.STALE, stale, recovered=recovered)


def _news(before: Row[Any] | None, count: int) -> bool:
    if before is None or before.recovered:
        return count > 0
    return count == 0 or (before.old and count >= WORSE * before.total)


def _may_tell(connection: Connection, kind: AlertKind, *, recovered: bool) -> bool:
    values = {"kind": kind.value, "recovered": recovered, "lately": RECENT_WINDOW.total_seconds()}
    row = connection.execute(TOLD_LATELY, values).one()
    return not row.told or bool(row.ago >= pause_seconds(row.told))


def _raise(connection: Connection, kind: AlertKind, about: Row[Any], *, recovered: bool) -> None:
    subject = str(about.hubs[0]) if about.total == 1 else ""
    detail = {"count": about.total, "hubs": about.hubs or []}
    raise_alert(connection, kind, recovered=recovered, subject=subject, detail=detail)
