"""Detects what operators are alerted to at each sweep: connections revoked, or no longer so, and tokens about to
expire.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from shared.db.alerts.outbox import ANY_TO_DELIVER
from shared.db.alerts.raising import raise_alert
from shared.db.alerts.snapshot_watch import SnapshotWatch
from shared.db.core.statements import Database, PreparedStatement
from shared.domain.alerts import MAX_NAMED_HUBS, RECENT_WINDOW, AlertKind, pause_seconds
from shared.domain.sweep_liveness import sweep_overdue_seconds

#: A connection is stale when its token has less than this share of its lifetime left, and no refresh has worked.
STALE_LIFETIME_SHARE = 0.1
#: Consecutive failures after which a connection that is being refreshed counts as stale.
STALE_FAILURES = 2
#: A connection that no worker tries to refresh is stale when overdue for so many seconds, and so many sweeps.
STALE_OVERDUE_SECONDS, STALE_OVERDUE_SWEEPS = 10.0, 5
#: Examined at each sweep, of the failing and of the longest overdue: a backlog must not slow down the sweep.
CANDIDATE_ROWS = 5000
#: While an alert about stale connections stands, another one follows only when so many times as many are stale, and not
#: within RECENT_WINDOW.
WORSENING_FACTOR = 10
#: After a search for connections that need an alert, the next one waits for this many times its duration.
SEARCH_PAUSE_FACTOR = 10
#: Snapshots are measured at each process's sweep after so many sweeps' time: it writes, and their limit is minutes.
SNAPSHOT_SWEEPS = 5
#: Hubs that one alert counts; the others get the next one.
MAX_HUBS_PER_ALERT = 10_000

#: Of the app of a row `p`. Also of one that is in no setting any more: its tokens are served until they expire.
_STALE = f"""
SELECT DISTINCT id, hub_id, user_id FROM (
    (SELECT id, hub_id, user_id, status, expires_at, lifetime_seconds, failures, due_at
       FROM tokenkeeper.connections AS c
      WHERE c.app = p.app AND failures >= {STALE_FAILURES} AND status IN ('active', 'suspect') LIMIT {CANDIDATE_ROWS})
    UNION ALL
    (SELECT id, hub_id, user_id, status, expires_at, lifetime_seconds, failures, due_at
       FROM tokenkeeper.connections AS c
      WHERE c.app = p.app AND due_at <= now() ORDER BY due_at LIMIT {CANDIDATE_ROWS})
) AS candidate
 WHERE status IN ('active', 'suspect')
   AND expires_at < now() + make_interval(secs => coalesce(lifetime_seconds, 0) * {STALE_LIFETIME_SHARE})
   AND (failures >= {STALE_FAILURES} OR due_at < now() - make_interval(secs => :overdue_seconds))
"""
#: Their number, and the first hubs. Several users of one hub are several connections.
_COUNT_AND_NAME = f"""
count(*) AS total, (array_agg(DISTINCT hub_id ORDER BY hub_id))[1:{MAX_NAMED_HUBS}] AS hubs, min(user_id) AS user_id
"""
_IS_BEAT_MISSING = """
coalesce(swept_without_beat_since < clock_timestamp() - make_interval(secs => :beat_missing_seconds), false)
"""
_IS_BEAT_ALERT_OPEN = """
coalesce((SELECT NOT recovered FROM tokenkeeper.alerts WHERE kind = 'beat_missing' ORDER BY at DESC LIMIT 1), false)
"""
#: Makes the planner use the partial indexes. It assumes that half of all rows need a revocation alert, and would read
#: the whole table to find the first of them, when there is none; with statistics from before a backlog it would sort
#: the table.
_USE_INDEXES = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off; "
#: One row for each app. Beat's message has all apps swept: the app that was swept last says whether it comes.
DETECT = PreparedStatement(
    f"""
SELECT p.app,
       EXISTS (SELECT FROM tokenkeeper.connections AS c
                WHERE c.app = p.app AND (status = 'revoked') <> revocation_alerted) AS any_revocation,
       (SELECT count(*) FROM ({_STALE}) AS stale) AS stale_count,
       (SELECT NOT recovered FROM tokenkeeper.alerts
         WHERE kind = 'stale_connections' AND alerts.app = p.app
         ORDER BY at DESC LIMIT 1) AS is_stale_alert_open,
       {_IS_BEAT_MISSING} AS is_beat_missing, {_IS_BEAT_ALERT_OPEN} AS is_beat_alert_open
  FROM tokenkeeper.provider AS p
 ORDER BY swept_at DESC NULLS LAST
""",
    _USE_INDEXES,
    is_retried=True,
    overdue_seconds="double precision",
    beat_missing_seconds="double precision",
)
#: SKIP LOCKED: a row that is being saved at this moment gets its alert at the next sweep.
MARK_ALERTED = text(f"""
{_USE_INDEXES}WITH unalerted AS MATERIALIZED (
    SELECT id FROM tokenkeeper.connections
     WHERE app = :app AND (status = 'revoked') <> revocation_alerted AND revocation_alerted = :recovered
     LIMIT {MAX_HUBS_PER_ALERT} FOR NO KEY UPDATE SKIP LOCKED
), alerted AS (
    UPDATE tokenkeeper.connections AS c SET revocation_alerted = NOT c.revocation_alerted
      FROM unalerted WHERE c.id = unalerted.id
    RETURNING c.hub_id, c.user_id
)
SELECT {_COUNT_AND_NAME} FROM alerted
""")
READ_BEAT = text(f"""
SELECT {_IS_BEAT_MISSING} AS is_missing, {_IS_BEAT_ALERT_OPEN} AS is_alert_open,
       CAST(extract(epoch FROM clock_timestamp() - swept_without_beat_since) AS integer) AS seconds
  FROM tokenkeeper.provider
 ORDER BY swept_at DESC NULLS LAST LIMIT 1
""")
#: Of two sweeps at once, the second one waits, and sees what the first one has raised.
LOCK_ALERTS = text("SELECT FROM tokenkeeper.provider WHERE app = :app FOR NO KEY UPDATE")
LOCK_BEAT_ALERTS = text("SELECT FROM tokenkeeper.provider ORDER BY app LIMIT 1 FOR NO KEY UPDATE")
COUNT_STALE = text(f"""
{_USE_INDEXES}SELECT {_COUNT_AND_NAME}
  FROM tokenkeeper.provider AS p CROSS JOIN LATERAL ({_STALE}) AS stale WHERE p.app = :app
""")
READ_NEWEST_STALE_ALERT = text("""
SELECT recovered, CAST(detail->>'count' AS bigint) AS total,
       at < now() - make_interval(secs => :recent_seconds) AS is_old
  FROM tokenkeeper.alerts WHERE kind = 'stale_connections' AND app = :app
 ORDER BY at DESC LIMIT 1
""")
COUNT_RECENT_ALERTS = text("""
SELECT count(*) AS total, extract(epoch FROM clock_timestamp() - max(at))::double precision AS seconds_since_newest
  FROM tokenkeeper.alerts
 WHERE kind = :kind AND app IS NOT DISTINCT FROM CAST(:app AS text)
   AND recovered = :recovered AND at > clock_timestamp() - make_interval(secs => :recent_seconds)
   AND at <= clock_timestamp()  -- a later one is of a clock that was ahead
""")


class AlertDetector:
    """Raises each alert once, also where sweeps overlap: its transaction marks what the alert is about."""

    def __init__(
        self, engine: Engine, sweep_seconds: float, *, search_pause_factor: float = SEARCH_PAUSE_FACTOR
    ) -> None:
        """`search_pause_factor`: 0 lets each call search, whatever the last one took."""
        self._database = Database(engine)
        self._snapshot_watch = SnapshotWatch(engine)
        self._search_pause_factor = search_pause_factor
        self._next_search_at = 0.0  #: this and the next one by time.monotonic()
        self._next_measure_at = 0.0
        self._measure_seconds = SNAPSHOT_SWEEPS * sweep_seconds
        self._overdue_seconds = max(STALE_OVERDUE_SECONDS, STALE_OVERDUE_SWEEPS * sweep_seconds)
        self._beat_missing_seconds = sweep_overdue_seconds(sweep_seconds)

    def detect(self) -> bool:
        """Raise new alerts. Whether the outbox has any to deliver now, new or old.

        Raises StoreUnavailable; then the next sweep detects the same again.
        """
        if time.monotonic() >= self._next_measure_at:
            self._snapshot_watch.measure()
            self._next_measure_at = time.monotonic() + self._measure_seconds
        if time.monotonic() >= self._next_search_at:
            self._search_connections()
        return bool(self._database.execute(ANY_TO_DELIVER)[0][0])

    def _search_connections(self) -> None:
        values = {"overdue_seconds": self._overdue_seconds, "beat_missing_seconds": self._beat_missing_seconds}
        started_at = time.monotonic()
        apps = self._database.execute(DETECT, **values)
        ended_at = time.monotonic()
        # An old snapshot makes it slow, because it begins at the first due row: it may take a part of the time only.
        self._next_search_at = ended_at + (ended_at - started_at) * self._search_pause_factor
        for found in apps:
            if found.any_revocation:
                for recovered in (False, True):
                    self._alert_to_revocations(found.app, recovered=recovered)
            if found.stale_count or found.is_stale_alert_open:
                self._alert_to_stale_connections(found.app)
        if apps and apps[0].is_beat_missing != apps[0].is_beat_alert_open:
            self._alert_to_missing_beat()

    def _alert_to_revocations(self, app: str, *, recovered: bool) -> None:
        """One alert about all of the app that became revoked, or stopped being so, since the last one."""
        with self._database.transaction() as connection:
            if not _is_pause_over(connection, AlertKind.REVOKED, app, recovered=recovered):
                return
            alerted = connection.execute(MARK_ALERTED, {"app": app, "recovered": recovered}).one()
            if alerted.total:
                _raise_about(connection, AlertKind.REVOKED, app, alerted, recovered=recovered)

    def _alert_to_stale_connections(self, app: str) -> None:
        """An alert when the first of the app become stale, when many more are stale, and when none is any more."""
        with self._database.transaction() as connection:
            connection.execute(LOCK_ALERTS, {"app": app})
            stale = connection.execute(COUNT_STALE, {"app": app, "overdue_seconds": self._overdue_seconds}).one()
            recent = {"app": app, "recent_seconds": RECENT_WINDOW.total_seconds()}
            newest = connection.execute(READ_NEWEST_STALE_ALERT, recent).one_or_none()
            recovered = stale.total == 0
            if newest is None or newest.recovered:
                is_news = not recovered
            else:
                is_news = recovered or (newest.is_old and stale.total >= WORSENING_FACTOR * newest.total)
            if is_news and _is_pause_over(connection, AlertKind.STALE, app, recovered=recovered):
                _raise_about(connection, AlertKind.STALE, app, stale, recovered=recovered)

    def _alert_to_missing_beat(self) -> None:
        with self._database.transaction() as connection:
            connection.execute(LOCK_BEAT_ALERTS)
            beat = connection.execute(READ_BEAT, {"beat_missing_seconds": self._beat_missing_seconds}).one()
            if beat.is_missing == beat.is_alert_open:
                return
            if _is_pause_over(connection, AlertKind.BEAT, None, recovered=beat.is_alert_open):
                raise_alert(
                    connection, AlertKind.BEAT, recovered=beat.is_alert_open, detail={"seconds": beat.seconds or 0}
                )


def _is_pause_over(connection: Connection, kind: AlertKind, app: str | None, *, recovered: bool) -> bool:
    """Whether enough time has passed since the newest such alert; see pause_seconds()."""
    recent_seconds = RECENT_WINDOW.total_seconds()
    values = {"kind": kind.value, "app": app, "recovered": recovered, "recent_seconds": recent_seconds}
    recent = connection.execute(COUNT_RECENT_ALERTS, values).one()
    return not recent.total or bool(recent.seconds_since_newest >= pause_seconds(recent.total))


def _raise_about(connection: Connection, kind: AlertKind, app: str, found: Row[Any], *, recovered: bool) -> None:
    """`found`: the total, the first hubs, and the user where it is one connection of a user-level app."""
    subject = str(found.hubs[0]) if found.total == 1 else ""
    detail = {"count": found.total, "hubs": found.hubs or []}
    if found.total == 1 and found.user_id is not None:
        detail["user_id"] = found.user_id
    raise_alert(connection, kind, app=app, recovered=recovered, subject=subject, detail=detail)
