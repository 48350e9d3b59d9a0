"""Corrects dates that were written while PostgreSQL's clock was ahead: they would delay refreshes and alerts."""

from __future__ import annotations

from sqlalchemy import Engine

from shared.db.core.statements import Database, single_statement
from shared.domain.schedule import MAX_RETRY_SECONDS

#: Two servers of a failover may differ by this much.
TOLERANCE_SECONDS = 5
#: Rows examined at each sweep: those of each app that are due last. Rows corrected in one sweep.
PROBED_ROWS, BATCH_ROWS = 100, 10_000
#: A token was granted in the future; or a refresh is due later than after any lifetime or backoff, without a
#: Retry-After of HubSpot's.
_IS_AHEAD = f"""(
    refreshed_at > now() + interval '{TOLERANCE_SECONDS} seconds'
    OR due_at > greatest(retry_not_before, now() + make_interval(
           secs => greatest(lifetime_seconds, {MAX_RETRY_SECONDS}) + {TOLERANCE_SECONDS})))
"""
#: An SQL expression. One of the rows that are due last is ahead.
ANY_AHEAD = f"""EXISTS (
    SELECT FROM tokenkeeper.provider AS p CROSS JOIN LATERAL (
                SELECT refreshed_at, due_at, retry_not_before, lifetime_seconds
                  FROM tokenkeeper.connections AS c WHERE c.app = p.app AND due_at IS NOT NULL
                 ORDER BY due_at DESC, id DESC LIMIT {PROBED_ROWS}) AS last
     WHERE {_IS_AHEAD})
"""
#: All rows are examined only where one is: a subquery of its own, evaluated first.
CORRECT = single_statement(f"""
WITH ahead AS MATERIALIZED (
    SELECT id FROM tokenkeeper.connections
     WHERE (SELECT {ANY_AHEAD})
       AND due_at IS NOT NULL AND {_IS_AHEAD}
     LIMIT {BATCH_ROWS} FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE tokenkeeper.connections AS c
   SET refreshed_at = CASE WHEN c.refreshed_at > now() THEN now() ELSE c.refreshed_at END,
       expires_at = CASE WHEN c.refreshed_at > now() THEN least(c.expires_at, now() + (c.expires_at - c.refreshed_at))
                         ELSE c.expires_at END,
       due_at = greatest(now(), c.retry_not_before)
  FROM ahead WHERE c.id = ahead.id
RETURNING 1
""")


def correct_future_dates(engine: Engine) -> int:
    """Make connections due whose dates are further ahead than they can be. How many. Raises StoreUnavailable."""
    return len(Database(engine).execute(CORRECT))
