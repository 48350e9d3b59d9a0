"""Takes away what grows without end and nobody asks for any more; the sweep calls it, and it works once an hour."""

from __future__ import annotations

from sqlalchemy import Engine

from shared.db.core.statements import Database, single_statement

#: Rows that one statement takes away, and statements at one time: a sweep must not take long. What is left is taken
#: an hour later.
BATCH, BATCHES = 1000, 20

#: A date in the future is a clock that was set back: it must not stop the pruning.
BEGIN = single_statement("""
UPDATE tokenkeeper.pruning_state SET pruned_at = now()
 WHERE pruned_at IS NULL OR pruned_at < now() - interval '1 hour' OR pruned_at > now()
RETURNING pruned_at
""")
#: A connection that failed and recovered, without a change of status: of interest for a season. All else stays.
FAILURES = single_statement(f"""
WITH old AS MATERIALIZED (
    SELECT id FROM tokenkeeper.history
     WHERE status IS NULL AND event IN ('refresh_failed', 'recovered') AND at < now() - interval '90 days'
     ORDER BY at LIMIT {BATCH} FOR UPDATE SKIP LOCKED
)
DELETE FROM tokenkeeper.history AS h USING old WHERE h.id = old.id
RETURNING 1
""")
#: An install is handed in again for a day at most, by the browser's cookie; the newest of a hub stands in its row.
INSTALLS = single_statement(f"""
WITH old AS MATERIALIZED (
    SELECT install_id FROM tokenkeeper.installs
     WHERE stored_at < now() - interval '30 days'
     ORDER BY stored_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED
)
DELETE FROM tokenkeeper.installs AS i USING old WHERE i.install_id = old.install_id
RETURNING 1
""")
#: Two days are shown at most.
MINUTES = single_statement(
    "DELETE FROM tokenkeeper.refreshes_by_minute WHERE minute < now() - interval '3 days' RETURNING 1"
)


def prune(engine: Engine) -> int:
    """How many rows are gone; nothing is looked at where the last time was less than an hour ago.

    Alerts are pruned where they are told (shared/db/alerts/outbox.py).
    """
    database = Database(engine)
    if not database.execute(BEGIN):
        return 0
    gone = len(database.execute(MINUTES))
    for statement in (FAILURES, INSTALLS):
        for _ in range(BATCHES):
            batch = len(database.execute(statement))
            gone += batch
            if batch < BATCH:
                break
    return gone
