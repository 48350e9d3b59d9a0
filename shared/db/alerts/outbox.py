"""Delivers alerts: each is logged once, and posted by one worker at a time, those of a kind and app in order.

See docs/adr/0011.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, text

from shared.db.core.statements import Database, PreparedStatement, single_statement
from shared.domain.alerts import GIVE_UP_AFTER, MAX_RETRY_SECONDS, Alert, AlertKind

#: For one post: three times as long as it may take.
LEASE_SECONDS = 30
#: Alerts that are done with are deleted after so long; the newest of each kind stays, because it says how things stand.
RETENTION = "30 days"

#: After so many posts of one kind about one app within an hour, the next one waits so long for the last one: HubSpot's
#: state may change back and forth all night.
MAX_POSTS_PER_HOUR, PAUSE = 12, "5 minutes"
#: With more than so many alerts of one kind about one app waiting, only the newest is posted: it says how things stand.
MAX_WAITING_ALERTS = 10
#: Not for these: each is about other connections, and the sweeps summarize them already.
_NEVER_SUMMARIZED = "kind = 'connection_revoked'"

_COLUMNS = """
a.id, a.kind, a.app, a.at, a.recovered, a.subject, a.detail, a.attempts, a.summarized_count,
(SELECT count(*) > 1 FROM tokenkeeper.provider) AS has_several_apps
"""
#: Of each kind and app the first alert that is not done with: the later ones wait for it.
_FIRST_OF_KIND = """
SELECT DISTINCT ON (kind, app) number FROM tokenkeeper.alerts WHERE due_at IS NOT NULL ORDER BY kind, app, number
"""
_PAUSED_KINDS = f"""
SELECT kind, coalesce(app, '') FROM tokenkeeper.alerts
 WHERE delivered_at > now() - interval '1 hour' AND delivered_at <= now() AND NOT {_NEVER_SUMMARIZED}
 GROUP BY kind, app HAVING count(*) >= {MAX_POSTS_PER_HOUR} AND max(delivered_at) > now() - interval '{PAUSE}'
"""
#: Dates further ahead than they can be are of a clock that was ahead, and do not count. With a minute to spare: what
#: another worker wrote after the start of this statement counts from its own, later now().
_SPARE_SECONDS = 60
_MAX_LEASE_SECONDS, _MAX_WAIT_SECONDS = LEASE_SECONDS + _SPARE_SECONDS, MAX_RETRY_SECONDS + _SPARE_SECONDS
_IS_UNLEASED = f"""
(a.lease_until IS NULL OR a.lease_until <= now() OR a.lease_until > now() + interval '{_MAX_LEASE_SECONDS} seconds')
"""
_IS_DUE = f"(a.due_at <= now() OR a.due_at > now() + interval '{_MAX_WAIT_SECONDS:.0f} seconds')"
#: NOT IN, not a join: PostgreSQL evaluates it again for a row that another worker has changed since the snapshot.
_IS_POSTABLE = f"{_IS_DUE} AND {_IS_UNLEASED} AND (a.kind, coalesce(a.app, '')) NOT IN ({_PAUSED_KINDS})"
#: Whether there is anything to log, or to post now.
ANY_TO_DELIVER = PreparedStatement(
    f"""
SELECT EXISTS (SELECT FROM tokenkeeper.alerts WHERE due_at IS NOT NULL AND logged_at IS NULL)
    OR EXISTS (SELECT FROM tokenkeeper.alerts AS a WHERE number IN ({_FIRST_OF_KIND}) AND {_IS_POSTABLE})
""",
    is_retried=True,
)
LOCK_UNLOGGED = text(f"""
SELECT {_COLUMNS}, a.number FROM tokenkeeper.alerts AS a
 WHERE a.due_at IS NOT NULL AND a.logged_at IS NULL
 ORDER BY a.number FOR NO KEY UPDATE SKIP LOCKED
""")
MARK_LOGGED = text("UPDATE tokenkeeper.alerts SET logged_at = now() WHERE number = ANY(:numbers)")
#: Where too many of a kind wait, all but the newest are not posted any more, and the newest counts them.
SUMMARIZE = single_statement(f"""
WITH waiting AS MATERIALIZED (
    SELECT number, count(*) OVER kinds AS total, max(number) OVER kinds AS newest
      FROM tokenkeeper.alerts WHERE due_at IS NOT NULL AND NOT {_NEVER_SUMMARIZED}
    WINDOW kinds AS (PARTITION BY kind, app)
), summarized AS (
    UPDATE tokenkeeper.alerts AS a SET due_at = NULL
      FROM waiting
     WHERE a.number = waiting.number AND waiting.total > {MAX_WAITING_ALERTS} AND a.number < waiting.newest
       AND a.due_at IS NOT NULL AND a.logged_at IS NOT NULL AND {_IS_UNLEASED}
    RETURNING waiting.newest, a.summarized_count
)
UPDATE tokenkeeper.alerts AS a SET summarized_count = a.summarized_count + sums.total
  FROM (SELECT newest, sum(1 + summarized_count) AS total FROM summarized GROUP BY newest) AS sums
 WHERE a.number = sums.newest
""")
CLAIM = single_statement(f"""
WITH next AS MATERIALIZED (
    SELECT a.number FROM tokenkeeper.alerts AS a
     WHERE a.number IN ({_FIRST_OF_KIND}) AND {_IS_POSTABLE}
     ORDER BY a.number LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE tokenkeeper.alerts AS a
   SET attempts = a.attempts + 1, lease_until = now() + interval '{LEASE_SECONDS} seconds'
  FROM next WHERE a.number = next.number
RETURNING {_COLUMNS}, now() AS now
""")
#: `attempts` fences: another worker may have claimed the alert after the lease.
_IS_CURRENT_CLAIM = "id = :id AND attempts = :attempts AND delivered_at IS NULL"
MARK_DELIVERED = single_statement(f"""
UPDATE tokenkeeper.alerts SET delivered_at = now(), due_at = NULL, lease_until = NULL WHERE {_IS_CURRENT_CLAIM}
""")
SCHEDULE_RETRY = single_statement(f"""
UPDATE tokenkeeper.alerts
   SET lease_until = NULL,
       due_at = CASE WHEN at > now() - make_interval(secs => :give_up_seconds)
                     THEN now() + make_interval(secs => :wait_seconds) END
 WHERE {_IS_CURRENT_CLAIM}
RETURNING due_at
""")
FINISH_LOGGED = single_statement(
    "UPDATE tokenkeeper.alerts SET due_at = NULL WHERE due_at IS NOT NULL AND logged_at IS NOT NULL"
)
PRUNE = single_statement(f"""
DELETE FROM tokenkeeper.alerts AS a
 WHERE a.due_at IS NULL AND a.at < now() - interval '{RETENTION}'
   AND EXISTS (SELECT FROM tokenkeeper.alerts AS newer
                WHERE newer.kind = a.kind AND newer.app IS NOT DISTINCT FROM a.app AND newer.number > a.number)
""")


@dataclass(frozen=True, slots=True)
class ClaimedAlert:
    """An alert that the worker which claimed it, and no other, posts now."""

    alert: Alert
    now: datetime  #: PostgreSQL's clock at the claim


class Outbox:
    """Every method raises StoreUnavailable where PostgreSQL does not answer, and may then be called again."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def log_new_alerts(self, log: Callable[[Alert], None]) -> None:
        """`log` each alert that is not logged yet. A process that stops in between makes it happen again."""
        with self._database.transaction() as connection:
            rows = connection.execute(LOCK_UNLOGGED).all()
            for row in rows:
                log(_row_to_alert(row))
            if rows:
                connection.execute(MARK_LOGGED, {"numbers": [row.number for row in rows]})

    def claim(self) -> ClaimedAlert | None:
        """The next alert to post; None where there is none, or other workers are posting them."""
        self._database.execute(SUMMARIZE)
        rows = self._database.execute(CLAIM)
        return ClaimedAlert(_row_to_alert(rows[0]), rows[0].now) if rows else None

    def mark_delivered(self, alert: Alert) -> None:
        self._database.execute(MARK_DELIVERED, id=alert.id, attempts=alert.attempts)

    def schedule_retry(self, alert: Alert, wait_seconds: float) -> bool:
        """Post it again in `wait_seconds`; False where it is too old for that: then it is given up."""
        give_up_seconds = GIVE_UP_AFTER.total_seconds()
        values = {"id": alert.id, "attempts": alert.attempts}
        rows = self._database.execute(
            SCHEDULE_RETRY, wait_seconds=wait_seconds, give_up_seconds=give_up_seconds, **values
        )
        return not rows or rows[0].due_at is not None

    def finish_without_posting(self) -> None:
        """Where no webhook is set: an alert that is logged is done with, and kept."""
        self._database.execute(FINISH_LOGGED)

    def prune(self) -> None:
        """Delete alerts older than RETENTION."""
        self._database.execute(PRUNE)


def _row_to_alert(row: Row[Any]) -> Alert:
    return Alert(
        id=str(row.id),
        kind=AlertKind(row.kind),
        app=row.app,
        at=row.at,
        recovered=row.recovered,
        subject=row.subject,
        detail=row.detail,
        attempts=row.attempts,
        summarized_count=row.summarized_count,
        names_app=row.has_several_apps,
    )
