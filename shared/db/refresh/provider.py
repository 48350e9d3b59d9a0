"""Stores HubSpot's state for each app, and the token bucket that all workers share: one row, locked for a change.

The rules by which the state changes are in `shared/domain/provider.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, TextClause, text

from shared.db.alerts.raising import raise_alert
from shared.db.core.errors import StoreError, StoreUnavailable
from shared.db.core.statements import READ_IN_ORDER, Database, PreparedStatement, single_statement
from shared.domain.alerts import AlertKind
from shared.domain.identity import DEFAULT_APP
from shared.domain.provider import CallOutcome, Condition, Provider, apply_outcomes, resume, start_sweep

#: What row_to_provider() needs.
PROVIDER_COLUMNS = "condition, since, reason, consecutive_no_answer, consecutive_unknown, paused_until, rate"
#: The bucket holds the refreshes of so many seconds: they may begin at once after a quiet time.
BUCKET_SECONDS = 0.25
#: Connections that one statement makes due after a fault, and statements of one sweep: a sweep must be short.
POSTPONED_BATCH_ROWS, POSTPONED_BATCHES = 5000, 20
#: Share of the interval between two sweeps. A sweep that began less than this ago was this sweep, begun by another
#: beat.
MIN_SWEEP_INTERVAL_SHARE = 0.6

#: Where an app has no row yet.
NOT_REGISTERED = "the app {app} has no row in tokenkeeper.provider yet: the next sweep makes it"

READ = single_statement(f"SELECT {PROVIDER_COLUMNS} FROM tokenkeeper.provider WHERE app = :app")
READ_NEWEST_SWEEP = PreparedStatement(
    "SELECT swept_at, clock_timestamp() AS now FROM tokenkeeper.provider WHERE app = :app", app="text"
)
LOCK = text(f"""
SELECT {PROVIDER_COLUMNS}, bucket_level, bucket_refilled_at, clock_timestamp() AS now
  FROM tokenkeeper.provider WHERE app = :app FOR NO KEY UPDATE
""")
SAVE_BUCKET = text("UPDATE tokenkeeper.provider SET bucket_level = :level, bucket_refilled_at = :now WHERE app = :app")
SAVE = text("""
UPDATE tokenkeeper.provider
   SET condition = :condition, since = :since, reason = :reason, consecutive_no_answer = :consecutive_no_answer,
       consecutive_unknown = :consecutive_unknown, paused_until = :paused_until, rate = :rate,
       has_postponed = has_postponed OR :is_over
 WHERE app = :app
""")
#: A sweep of one app waits no longer for another transaction: the other apps' sweeps come after it.
LIMIT_LOCK_WAIT = "SET LOCAL lock_timeout = '2s'; "
_PAST_DATES = ("since", "brake_since", "brake_reset_at")
_NOT_IN_FUTURE = "CASE WHEN {0} > clock_timestamp() THEN clock_timestamp() ELSE {0} END"
#: clock_timestamp(), not now(): a beat that waited for another one's lock must not use the time from before the wait.
#: A date in the future comes from a clock that was set back: it must not stop the sweeps, or count for longer.
BEGIN_SWEEP = PreparedStatement(
    f"""
UPDATE tokenkeeper.provider
   SET swept_at = clock_timestamp(), {", ".join(f"{name} = {_NOT_IN_FUTURE.format(name)}" for name in _PAST_DATES)},
       swept_without_beat_since = CASE WHEN NOT :is_from_beat
           THEN coalesce(least(swept_without_beat_since, clock_timestamp()), clock_timestamp()) END
 WHERE app = :app
   AND (swept_at IS NULL
        OR swept_at < clock_timestamp() - make_interval(secs => :seconds) OR swept_at > clock_timestamp())
RETURNING {PROVIDER_COLUMNS}, has_postponed
""",
    LIMIT_LOCK_WAIT,
    app="text",
    seconds="double precision",
    is_from_beat="boolean",
)
ADD_ROW = single_statement("INSERT INTO tokenkeeper.provider (app) VALUES (:app) ON CONFLICT DO NOTHING")
_IS_POSTPONED = "failures > 0 AND due_at > greatest(now(), retry_not_before) AND status IN ('active', 'suspect')"
#: In the order of the index connections_failing. Rows that another transaction has locked are left to the next sweep.
#: `locked` finds them by their id: with the condition in its WHERE clause, it could be planned with statistics from
#: before an outage to read all of that index for each row.
MAKE_POSTPONED_DUE = single_statement(f"""
{READ_IN_ORDER}
WITH postponed AS MATERIALIZED (
    SELECT failures, id FROM tokenkeeper.connections
     WHERE app = :app AND {_IS_POSTPONED} AND (failures, id) > (:failures, :id)
     ORDER BY failures, id LIMIT {POSTPONED_BATCH_ROWS}
), locked AS MATERIALIZED (
    SELECT id, {_IS_POSTPONED} AS is_postponed FROM tokenkeeper.connections
     WHERE id IN (SELECT id FROM postponed) FOR NO KEY UPDATE SKIP LOCKED
), made_due AS (
    UPDATE tokenkeeper.connections AS c SET due_at = greatest(now(), c.retry_not_before)
      FROM locked WHERE c.id = locked.id AND locked.is_postponed
    RETURNING c.id
)
SELECT count(*) AS total, (SELECT count(*) FROM made_due) AS made_due,
       (array_agg(failures ORDER BY failures DESC, id DESC))[1] AS failures,
       (array_agg(id ORDER BY failures DESC, id DESC))[1] AS id
  FROM postponed
""")
FORGET_POSTPONED = single_statement(
    "UPDATE tokenkeeper.provider SET has_postponed = false WHERE app = :app AND has_postponed"
)
#: Rows that another transaction has locked are left out. `last_error` begins with the code of a 429.
MAKE_THROTTLED_DUE = single_statement("""
WITH throttled AS MATERIALIZED (
    SELECT id FROM tokenkeeper.connections
     WHERE app = :app AND failures > 0 AND due_at > now() AND last_error LIKE 'throttled%'
     LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
), made_due AS (
    UPDATE tokenkeeper.connections AS c SET due_at = now(), retry_not_before = NULL
      FROM throttled WHERE c.id = throttled.id
    RETURNING c.id
)
SELECT count(*) FROM made_due
""")


@dataclass(slots=True)
class Bucket:
    """An app's token bucket: refreshes that may begin now. The caller's transaction holds the lock on its row."""

    app: str
    provider: Provider
    now: datetime  #: PostgreSQL's clock
    level: float
    refilled_at: datetime

    @classmethod
    def lock(cls, connection: Connection, app: str) -> Bucket:
        """Raises StoreUnavailable where the app has no row yet."""
        row = connection.execute(LOCK, {"app": app}).one_or_none()
        if row is None:
            raise StoreUnavailable(NOT_REGISTERED.format(app=app))
        return cls(app, row_to_provider(row), row.now, row.bucket_level, row.bucket_refilled_at)

    def refill(self, rate: float) -> float:
        """The level now, at `rate` refreshes a second: at most those of BUCKET_SECONDS, or one.

        The first probe after a pause begins at once: the pause was long enough.
        """
        seconds = max(0.0, (self.now - self.refilled_at).total_seconds())
        level = min(max(1.0, rate * BUCKET_SECONDS), self.level + rate * seconds)
        paused_until = self.provider.paused_until
        is_first = paused_until is not None and self.refilled_at < paused_until <= self.now
        return max(1.0, level) if is_first else level

    def save(self, connection: Connection, level: float) -> None:
        connection.execute(SAVE_BUCKET, {"app": self.app, "level": level, "now": self.now})


@dataclass(frozen=True, slots=True)
class BegunSweep:
    provider: Provider  #: at the start of the sweep
    has_postponed: bool  #: a fault is over, and not all that it postponed is due yet


class ProviderStore:
    """HubSpot's state for one app, shared by all workers.

    Every method raises StoreUnavailable where PostgreSQL does not answer.
    """

    def __init__(self, engine: Engine, app: str = DEFAULT_APP) -> None:
        self._database = Database(engine)
        self._app = app

    def read(self) -> Provider:
        return row_to_provider(self._read_row(READ))

    def read_newest_sweep(self) -> tuple[datetime | None, datetime]:
        """When the newest sweep began, None before the first, and PostgreSQL's clock."""
        row = self._read_row(READ_NEWEST_SWEEP)
        return row.swept_at, row.now

    def begin_sweep(self, sweep_seconds: float, *, is_from_beat: bool = True) -> BegunSweep | None:
        """The state at the start of this sweep; None where another beat or worker has begun it already.

        `is_from_beat`: False for a sweep that a worker begins because beat's message does not come.
        """
        seconds = MIN_SWEEP_INTERVAL_SHARE * sweep_seconds
        rows = self._database.execute(BEGIN_SWEEP, app=self._app, seconds=seconds, is_from_beat=is_from_beat)
        if not rows:
            # Begun already; or a failover has lost the app's row, and the next sweep can begin.
            self._database.execute(ADD_ROW, app=self._app)
            return None
        provider = row_to_provider(rows[0])
        if start_sweep(provider) != provider:
            provider = self._start_sweep()
        return BegunSweep(provider, rows[0].has_postponed)

    def record_outcomes(self, outcomes: Iterable[CallOutcome]) -> Provider:
        """The state after these answers of HubSpot. Waits for other workers' lock, so that no outcome is lost."""
        with self._database.transaction() as connection:
            bucket = Bucket.lock(connection, self._app)
            after = self._save_change(
                connection, bucket.provider, apply_outcomes(bucket.provider, outcomes, bucket.now)
            )
        if _is_over(bucket.provider, after):
            with suppress(StoreError):  # it is recorded that there are some: the next sweep makes them due
                self.make_postponed_due(max_batches=1)
        return after

    def resume(self, operator: str) -> tuple[Provider, Provider]:
        """End the pause of all refreshes for an operator, whom the alert names. The state before and after."""
        with self._database.transaction() as connection:
            bucket = Bucket.lock(connection, self._app)
            after = self._save_change(connection, bucket.provider, resume(bucket.provider, bucket.now), operator)
            return bucket.provider, after

    def make_throttled_due(self) -> int:
        """Make the connections due now that wait for a Retry-After of their own after a 429. How many."""
        made_due = 0
        while count := self._database.execute(MAKE_THROTTLED_DUE, app=self._app)[0][0]:
            made_due += count
        return made_due

    def make_postponed_due(self, max_batches: int = POSTPONED_BATCHES) -> int:
        """Make the connections due that failed and wait for a retry. How many.

        No row that all workers share is locked meanwhile. What is left, because it is too much or locked, is left to
        the next sweep.
        """
        made_due, is_any_left, last = 0, False, {"failures": 0, "id": 0}
        for _ in range(max_batches):
            batch = self._database.execute(MAKE_POSTPONED_DUE, app=self._app, **last)[0]
            made_due += batch.made_due
            is_any_left |= batch.made_due < batch.total
            if batch.total < POSTPONED_BATCH_ROWS:
                if not is_any_left:
                    self._database.execute(FORGET_POSTPONED, app=self._app)
                break
            last = {"failures": batch.failures, "id": batch.id}
        return made_due

    def _start_sweep(self) -> Provider:
        """Rarely: the rate rises."""
        with self._database.transaction() as connection:
            bucket = Bucket.lock(connection, self._app)
            return self._save_change(connection, bucket.provider, start_sweep(bucket.provider))

    def _read_row(self, statement: TextClause | PreparedStatement) -> Any:
        rows = self._database.execute(statement, app=self._app)
        if not rows:
            raise StoreUnavailable(NOT_REGISTERED.format(app=self._app))
        return rows[0]

    def _save_change(
        self, connection: Connection, before: Provider, after: Provider, operator: str | None = None
    ) -> Provider:
        """Save `after`, alert operators to a new condition, and record where a fault may have postponed connections."""
        if after != before:
            values = {
                "app": self._app,
                "condition": after.condition.value,
                "since": after.since,
                "reason": after.reason,
                "consecutive_no_answer": after.consecutive_no_answer,
                "consecutive_unknown": after.consecutive_unknown,
                "paused_until": after.paused_until,
                "rate": after.rate,
                "is_over": _is_over(before, after),
            }
            connection.execute(SAVE, values)
        if after.condition is not before.condition:
            recovered = after.condition is Condition.OK
            detail = {
                "state": after.condition.value,
                "before": before.condition.value,
                "reason": before.reason if recovered else after.reason,
            }
            if operator is not None:
                detail["resumed_by"] = operator
            raise_alert(connection, AlertKind.PROVIDER, app=self._app, recovered=recovered, detail=detail)
        return after


def row_to_provider(row: Row[Any]) -> Provider:
    return Provider(
        condition=Condition(row.condition),
        since=row.since,
        reason=row.reason,
        consecutive_no_answer=row.consecutive_no_answer,
        consecutive_unknown=row.consecutive_unknown,
        paused_until=row.paused_until,
        rate=row.rate,
    )


def _is_over(before: Provider, after: Provider) -> bool:
    """A fault of HubSpot as a whole has ended."""
    return after.condition is Condition.OK and before.condition is not Condition.OK
