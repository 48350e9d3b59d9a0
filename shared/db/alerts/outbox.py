"""What becomes of alerts after they were raised: logged once, posted by one worker at a time, in order per kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, text

from shared.db.core.statements import Database, single_statement
from shared.domain.alerts import GIVE_UP_AFTER, Alert, AlertKind

#: Seconds for which an alert that is being posted is nobody else's: three times what a post may take.
LEASE = 30
#: Those that were told are kept for so long, and the newest of its kind for ever: it says how things stand.
KEPT = "30 days"

#: Posts of one kind within an hour after which the next waits so long for the last: HubSpot may flicker all night.
OFTEN, REST = 12, "5 minutes"
#: With more than so many of one kind waiting, only the newest is posted: it says how things stand.
MOST_WAITING = 10
#: Each names other connections, and the sweeps sum them: none of these stands for another.
_SUMMED_ALREADY = "kind = 'connection_revoked'"

COLUMNS = "a.id, a.kind, a.at, a.recovered, a.subject, a.detail, a.attempts, a.summarized_count"
#: Of each kind the first that is not done with: what was raised after it waits for it.
_HEADS = """
SELECT DISTINCT ON (kind) number FROM tokenkeeper.alerts WHERE due_at IS NOT NULL ORDER BY kind, number
"""
_RESTING = f"""
SELECT kind FROM tokenkeeper.alerts WHERE delivered_at > now() - interval '1 hour' AND NOT {_SUMMED_ALREADY}
 GROUP BY kind HAVING count(*) >= {OFTEN} AND max(delivered_at) > now() - interval '{REST}'
"""
_FREE = "(a.lease_until IS NULL OR a.lease_until <= now())"
_POSTABLE = f"a.due_at <= now() AND {_FREE} AND a.kind NOT IN ({_RESTING})"
#: Whether there is anything to log, or to post now.
PENDING = single_statement(f"""
SELECT EXISTS (SELECT FROM tokenkeeper.alerts WHERE due_at IS NOT NULL AND logged_at IS NULL)
    OR EXISTS (SELECT FROM tokenkeeper.alerts AS a WHERE number IN ({_HEADS}) AND {_POSTABLE})
""")
NEWS = text(f"""
SELECT {COLUMNS}, a.number FROM tokenkeeper.alerts AS a
 WHERE a.due_at IS NOT NULL AND a.logged_at IS NULL
 ORDER BY a.number FOR NO KEY UPDATE SKIP LOCKED
""")
LOGGED = text("UPDATE tokenkeeper.alerts SET logged_at = now() WHERE number = ANY(:numbers)")
SUM_UP = single_statement(f"""
WITH waiting AS MATERIALIZED (
    SELECT number, count(*) OVER kinds AS many, max(number) OVER kinds AS newest
      FROM tokenkeeper.alerts WHERE due_at IS NOT NULL AND NOT {_SUMMED_ALREADY} WINDOW kinds AS (PARTITION BY kind)
), dropped AS (
    UPDATE tokenkeeper.alerts AS a SET due_at = NULL
      FROM waiting AS w
     WHERE a.number = w.number AND w.many > {MOST_WAITING} AND a.number < w.newest
       AND a.due_at IS NOT NULL AND a.logged_at IS NOT NULL AND {_FREE}
    RETURNING w.newest, a.summarized_count
)
UPDATE tokenkeeper.alerts AS a SET summarized_count = a.summarized_count + d.more
  FROM (SELECT newest, sum(1 + summarized_count) AS more FROM dropped GROUP BY newest) AS d
 WHERE a.number = d.newest
""")
CLAIM = single_statement(f"""
WITH mine AS MATERIALIZED (
    SELECT a.number FROM tokenkeeper.alerts AS a
     WHERE a.number IN ({_HEADS}) AND {_POSTABLE}
     ORDER BY a.number LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE tokenkeeper.alerts AS a
   SET attempts = a.attempts + 1, lease_until = now() + interval '{LEASE} seconds'
  FROM mine WHERE a.number = mine.number
RETURNING {COLUMNS}, now() AS now
""")
_STILL_OURS = "id = :id AND attempts = :attempts AND delivered_at IS NULL"
DELIVERED = single_statement(f"""
UPDATE tokenkeeper.alerts SET delivered_at = now(), due_at = NULL, lease_until = NULL WHERE {_STILL_OURS}
""")
FAILED = single_statement(f"""
UPDATE tokenkeeper.alerts
   SET lease_until = NULL,
       due_at = CASE WHEN at > now() - make_interval(secs => :given_up_after)
                     THEN now() + make_interval(secs => :wait) END
 WHERE {_STILL_OURS}
RETURNING due_at
""")
SHELVE = single_statement(
    "UPDATE tokenkeeper.alerts SET due_at = NULL WHERE due_at IS NOT NULL AND logged_at IS NOT NULL"
)
PRUNE = single_statement(f"""
DELETE FROM tokenkeeper.alerts AS a
 WHERE a.due_at IS NULL AND a.at < now() - interval '{KEPT}'
   AND EXISTS (SELECT FROM tokenkeeper.alerts AS newer WHERE newer.kind = a.kind AND newer.number > a.number)
""")


@dataclass(frozen=True, slots=True)
class ClaimedAlert:
    """An alert that this worker alone posts now."""

    alert: Alert
    now: datetime  #: PostgreSQL's clock at the claim


class Outbox:
    """Every method raises StoreUnavailable where PostgreSQL does not answer; it may be called again."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def log_new_alerts(self, say: Callable[[Alert], None]) -> None:
        """`say` each that nobody said yet. Said again only if this process dies in the midst of it."""
        with self._database.transaction() as connection:
            rows = connection.execute(NEWS).all()
            for row in rows:
                say(alert_of(row))
            if rows:
                connection.execute(LOGGED, {"numbers": [row.number for row in rows]})

    def claim(self) -> ClaimedAlert | None:
        """The next to post; None where there is none, or others are posting it."""
        self._database.execute(SUM_UP)
        rows: Sequence[Row[Any]] = self._database.execute(CLAIM)
        return ClaimedAlert(alert_of(rows[0]), rows[0].now) if rows else None

    def mark_delivered(self, alert: Alert) -> None:
        self._database.execute(DELIVERED, id=alert.id, attempts=alert.attempts)

    def schedule_retry(self, alert: Alert, wait: float) -> bool:
        """Due again in `wait` seconds; False where it is too old for that and given up."""
        given_up_after = GIVE_UP_AFTER.total_seconds()
        rows = self._database.execute(
            FAILED, id=alert.id, attempts=alert.attempts, wait=wait, given_up_after=given_up_after
        )
        return not rows or rows[0].due_at is not None

    def finish_without_posting(self) -> None:
        """There is nowhere to post to: what was logged is done with, and kept."""
        self._database.execute(SHELVE)

    def prune(self) -> None:
        self._database.execute(PRUNE)


def alert_of(row: Row[Any]) -> Alert:
    return Alert(
        id=str(row.id),
        kind=AlertKind(row.kind),
        at=row.at,
        recovered=row.recovered,
        subject=row.subject,
        detail=row.detail,
        attempts=row.attempts,
        summarized_count=row.summarized_count,
    )
