"""Adds up the refresh counters of all pool processes: one short statement every few seconds, apart from the saves."""

from __future__ import annotations

from sqlalchemy import Engine, text

from shared.db.core.statements import Database
from shared.domain.identity import DEFAULT_APP
from shared.domain.refresh_counters import RefreshCounters

#: Short limits: counters can wait, but must not hold up saves. Both inserts are sorted, so that two processes lock rows
#: in the same order and cannot deadlock.
ADD_COUNTERS = text("""
SET LOCAL statement_timeout = '2s'; SET LOCAL lock_timeout = '500ms';
WITH by_minute AS (
    INSERT INTO tokenkeeper.refreshes_by_minute AS stored (minute, refreshed, failed)
    SELECT * FROM unnest(CAST(:minutes AS timestamptz[]), CAST(:refreshed AS bigint[]), CAST(:failed AS bigint[]))
     ORDER BY 1
    ON CONFLICT (minute) DO UPDATE
       SET refreshed = stored.refreshed + excluded.refreshed, failed = stored.failed + excluded.failed
)
INSERT INTO tokenkeeper.refresh_counters AS stored (app, kind, name, total)
SELECT :app, counter.* FROM unnest(CAST(:kinds AS text[]), CAST(:names AS text[]), CAST(:totals AS double precision[]))
       AS counter(kind, name, total)
 ORDER BY 1, 2, 3
ON CONFLICT (app, kind, name) DO UPDATE SET total = stored.total + excluded.total
""")


class CounterStore:
    """Sums of one app over all pool processes. Every method raises StoreUnavailable."""

    def __init__(self, engine: Engine, app: str = DEFAULT_APP) -> None:
        self._database = Database(engine)
        self._app = app

    def add(self, counters: RefreshCounters) -> None:
        """Add these counts. If it raises although PostgreSQL has committed, repeating it counts them twice."""
        totals = [("attempts", name, float(total)) for name, total in counters.attempts.items()]
        totals += [("lateness", str(bound), float(total)) for bound, total in counters.lateness.items()]
        totals.append(("lateness_seconds", "", counters.lateness_seconds))
        self._database.execute(
            ADD_COUNTERS,
            app=self._app,
            minutes=list(counters.minutes),
            refreshed=[refreshed for refreshed, _ in counters.minutes.values()],
            failed=[failed for _, failed in counters.minutes.values()],
            kinds=[kind for kind, _, _ in totals],
            names=[name for _, name, _ in totals],
            totals=[total for _, _, total in totals],
        )
