"""Adds up what the pool processes counted: one short statement each few seconds, beside the saves and not in them."""

from __future__ import annotations

from sqlalchemy import Engine, text

from shared.db.core.statements import Database
from shared.domain.refresh_counters import RefreshCounters

#: Counts can wait, saves cannot: whoever else holds a row is not waited for long. Rows are locked in one order, so that
#: two processes never wait in a circle.
COUNT = text("""
SET LOCAL statement_timeout = '2s'; SET LOCAL lock_timeout = '500ms';
WITH by_minute AS (
    INSERT INTO tokenkeeper.refreshes_by_minute AS m (minute, refreshed, failed)
    SELECT * FROM unnest(CAST(:minutes AS timestamptz[]), CAST(:refreshed AS bigint[]), CAST(:failed AS bigint[]))
     ORDER BY 1
    ON CONFLICT (minute) DO UPDATE
       SET refreshed = m.refreshed + excluded.refreshed, failed = m.failed + excluded.failed
)
INSERT INTO tokenkeeper.refresh_counters AS t (kind, name, total)
SELECT * FROM unnest(CAST(:kinds AS text[]), CAST(:names AS text[]), CAST(:totals AS double precision[]))
 ORDER BY 1, 2
ON CONFLICT (kind, name) DO UPDATE SET total = t.total + excluded.total
""")


class CounterStore:
    """Sums over all pool processes. Every method raises StoreUnavailable where PostgreSQL does not answer."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def add(self, counts: RefreshCounters) -> None:
        """Where the answer is lost, so that the same counts are handed in again, they count twice."""
        tally = [("attempts", name, float(total)) for name, total in counts.attempts.items()]
        tally += [("lateness", str(bound), float(total)) for bound, total in counts.lateness.items()]
        tally.append(("lateness_seconds", "", counts.lateness_seconds))
        self._database.execute(
            COUNT,
            minutes=list(counts.minutes),
            refreshed=[refreshed for refreshed, _ in counts.minutes.values()],
            failed=[failed for _, failed in counts.minutes.values()],
            kinds=[kind for kind, _, _ in tally],
            names=[name for _, name, _ in tally],
            totals=[total for _, _, total in tally],
        )
