"""The provider's state and the bucket that all workers' claims share: one row, locked while it is judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from shared.db.alerts.raising import raise_alert
from shared.db.core.statements import Database, single_statement
from shared.domain.alerts import AlertKind
from shared.domain.provider import CallOutcome, Condition, Provider, apply_outcomes, start_sweep

COLUMNS = "condition, since, reason, consecutive_no_answer, consecutive_unknown, paused_until, rate"
#: The share of a second's refreshes that may begin at once after a quiet while.
BURST = 0.25
#: Of a sweep's length: another beat's sweep that was less than this ago was this sweep.
ANOTHERS = 0.6

READ = single_statement(f"SELECT {COLUMNS} FROM tokenkeeper.provider")
LOCK = text(
    f"SELECT {COLUMNS}, bucket_level, bucket_refilled_at, clock_timestamp() AS at"
    " FROM tokenkeeper.provider FOR NO KEY UPDATE"
)
KEEP_BUCKET = text("UPDATE tokenkeeper.provider SET bucket_level = :level, bucket_refilled_at = :now")
KEEP = text("""
UPDATE tokenkeeper.provider
   SET condition = :condition, since = :since, reason = :reason, consecutive_no_answer = :consecutive_no_answer,
       consecutive_unknown = :consecutive_unknown, paused_until = :paused_until, rate = :rate
""")
#: clock_timestamp(): who waited for another beat's row must not judge it by the time at which he began to wait.
#: A date in the future is a clock that was set back: it must not stop the sweeps.
BEGIN_SWEEP = text(f"""
UPDATE tokenkeeper.provider SET swept_at = clock_timestamp()
 WHERE swept_at IS NULL
    OR swept_at < clock_timestamp() - make_interval(secs => :seconds) OR swept_at > clock_timestamp()
RETURNING {COLUMNS}, swept_at AS at
""")
#: What was put off because of an outage is due at once, but for a Retry-After of its own. Rows are locked in
#: the order in which every saver locks them.
WAKE = """
WITH late AS MATERIALIZED (
    SELECT hub_id FROM tokenkeeper.connections
     WHERE failures > 0 AND due_at > now() AND status IN ('active', 'suspect')
     ORDER BY hub_id FOR NO KEY UPDATE
), woken AS (
    UPDATE tokenkeeper.connections AS c SET due_at = least(c.due_at, greatest(now(), c.retry_not_before))
      FROM late WHERE c.hub_id = late.hub_id
    RETURNING c.hub_id
)
SELECT count(*) FROM woken
"""


@dataclass(slots=True)
class Bucket:
    """Refreshes that may begin, refilled as time passes, in the row that its holder has locked."""

    provider: Provider
    now: datetime
    level: float
    refilled_at: datetime

    @classmethod
    def locked(cls, connection: Connection) -> Bucket:
        row = connection.execute(LOCK).one()
        return cls(provider_of(row), row.at, row.bucket_level, row.bucket_refilled_at)

    def refilled(self, rate: float) -> float:
        """What it holds now at `rate` refreshes a second: never more than a quarter of a second's, or one."""
        passed = max(0.0, (self.now - self.refilled_at).total_seconds())
        return min(max(1.0, rate * BURST), self.level + rate * passed)

    def keep(self, connection: Connection, level: float) -> None:
        connection.execute(KEEP_BUCKET, {"level": level, "now": self.now})


class ProviderStore:
    """HubSpot's state as a whole, shared by all workers.

    Every method raises StoreUnavailable where PostgreSQL does not answer.
    """

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def read(self) -> Provider:
        return provider_of(self._database.execute(READ)[0])

    def begin_sweep(self, sweep_seconds: float) -> Provider | None:
        """The state at the start of this sweep; None where another beat's sweep was just now."""
        with self._database.transaction() as connection:
            row = connection.execute(BEGIN_SWEEP, {"seconds": ANOTHERS * sweep_seconds}).one_or_none()
            if row is None:
                return None
            before = provider_of(row)
            return _kept(connection, before, start_sweep(before, row.at))

    def record_outcomes(self, outcomes: Iterable[CallOutcome]) -> Provider:
        """Judge HubSpot by these answers. Others' are waited for, so that none is judged by half of them."""
        with self._database.transaction() as connection:
            bucket = Bucket.locked(connection)
            return _kept(connection, bucket.provider, apply_outcomes(bucket.provider, outcomes, bucket.now))

    def make_postponed_due(self) -> int:
        """How many that were put off are due now."""
        with self._database.transaction() as connection:
            return _wake(connection)


def provider_of(row: Row[Any]) -> Provider:
    return Provider(
        condition=Condition(row.condition),
        since=row.since,
        reason=row.reason,
        consecutive_no_answer=row.consecutive_no_answer,
        consecutive_unknown=row.consecutive_unknown,
        paused_until=row.paused_until,
        rate=row.rate,
    )


def _kept(connection: Connection, before: Provider, after: Provider) -> Provider:
    if after != before:
        connection.execute(KEEP, _columns(after))
    if after.condition is not before.condition:
        _alert(connection, before, after)
    if after.condition is Condition.OK and before.condition is not Condition.OK:
        _wake(connection)
    return after


def _alert(connection: Connection, before: Provider, after: Provider) -> None:
    recovered = after.condition is Condition.OK
    detail = {
        "state": after.condition.value,
        "before": before.condition.value,
        "reason": before.reason if recovered else after.reason,
    }
    raise_alert(connection, AlertKind.PROVIDER, recovered=recovered, detail=detail)


def _wake(connection: Connection) -> int:
    return int(connection.execute(text(WAKE)).scalar_one())


def _columns(provider: Provider) -> dict[str, Any]:
    return {
        "condition": provider.condition.value,
        "since": provider.since,
        "reason": provider.reason,
        "consecutive_no_answer": provider.consecutive_no_answer,
        "consecutive_unknown": provider.consecutive_unknown,
        "paused_until": provider.paused_until,
        "rate": provider.rate,
    }
