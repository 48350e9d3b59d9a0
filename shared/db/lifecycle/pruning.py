"""Deletes old rows that no reader needs, once an hour."""

from __future__ import annotations

from sqlalchemy import Engine

from shared.db.core.statements import Database, single_statement

#: Rows of one statement, and statements of one run: a sweep must be short. The next run deletes what is left.
BATCH_ROWS, MAX_BATCHES = 1000, 20

#: A date in the future comes from a clock that was set back, and must not stop the pruning.
_IS_DUE = "pruned_at IS NULL OR pruned_at < now() - interval '1 hour' OR pruned_at > now()"
#: An SQL expression.
IS_PRUNING_DUE = f"EXISTS (SELECT FROM tokenkeeper.pruning_state WHERE {_IS_DUE})"
BEGIN_RUN = single_statement(
    f"UPDATE tokenkeeper.pruning_state SET pruned_at = now() WHERE {_IS_DUE} RETURNING pruned_at"
)
#: Failures and recoveries without a change of status. Every other row of the history stays, and may not be deleted.
DELETE_FAILURES = single_statement(f"SELECT tokenkeeper.prune_history({BATCH_ROWS}) AS deleted")
#: The browser's cookie hands an install in again for a day at most. The row of the connection keeps the newest install.
DELETE_INSTALLS = single_statement(f"""
WITH old AS MATERIALIZED (
    SELECT install_id FROM tokenkeeper.installs
     WHERE stored_at < now() - interval '30 days'
     ORDER BY stored_at LIMIT {BATCH_ROWS} FOR UPDATE SKIP LOCKED
), deleted AS (
    DELETE FROM tokenkeeper.installs AS i USING old WHERE i.install_id = old.install_id RETURNING 1
)
SELECT count(*) AS deleted FROM deleted
""")
#: An expired one is refused for that alone; but an install that came by it may still wait in a queue or a browser, and
#: so may another one by the same link.
DELETE_SINGLE_USES = single_statement(f"""
WITH old AS MATERIALIZED (
    SELECT kind, id FROM tokenkeeper.single_uses
     WHERE expires_at < now() - interval '30 days'
     ORDER BY expires_at LIMIT {BATCH_ROWS} FOR UPDATE SKIP LOCKED
), deleted AS (
    DELETE FROM tokenkeeper.single_uses AS s USING old WHERE s.kind = old.kind AND s.id = old.id RETURNING 1
)
SELECT count(*) AS deleted FROM deleted
""")
#: The stored one has worked, or the operator has ended the connection: the other install's grant is not needed.
DELETE_OTHER_GRANTS = single_statement("""
DELETE FROM tokenkeeper.uncertain_installs AS u USING tokenkeeper.connections AS c
 WHERE c.id = u.connection_id AND (c.refreshed_at > u.kept_at OR c.status = 'disconnected')
RETURNING 1
""")
#: Reports show two days at most.
DELETE_MINUTES = single_statement(
    "DELETE FROM tokenkeeper.refreshes_by_minute WHERE minute < now() - interval '3 days' RETURNING 1"
)


def prune(engine: Engine) -> int:
    """How many rows were deleted; 0 where the last run was less than an hour ago. Raises StoreUnavailable.

    Alerts are pruned in shared/db/alerts/outbox.py.
    """
    database = Database(engine)
    if not database.execute(BEGIN_RUN):
        return 0
    deleted = len(database.execute(DELETE_MINUTES)) + len(database.execute(DELETE_OTHER_GRANTS))
    for statement in (DELETE_FAILURES, DELETE_INSTALLS, DELETE_SINGLE_USES):
        for _ in range(MAX_BATCHES):
            batch = int(database.execute(statement)[0].deleted)
            deleted += batch
            if batch < BATCH_ROWS:
                break
    return deleted
