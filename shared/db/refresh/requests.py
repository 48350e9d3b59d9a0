"""Requests to refresh connections now: those of operators, with their outcomes, and how a sweep applies all requests.

A job's request is stored by the SQL function `hubspot.request_refresh`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from sqlalchemy import Engine

from shared.db.core.statements import Database, single_statement

#: Requests that one statement applies, and statements of one sweep: a sweep must be short.
BATCH_ROWS, MAX_BATCHES = 1000, 20
#: A token that came by a request is replaced by a job's request after one of so many parts of its lifetime.
MIN_INTERVAL_DIVISOR = 60


class RefreshRequestOutcome(StrEnum):
    """What became of an operator's request to refresh a connection now."""

    ASKED = "asked"
    IN_FLIGHT = "in_flight"
    ALREADY_DUE = "already_due"
    DISCONNECTED = "disconnected"
    UNKNOWN = "unknown"

    @property
    def description(self) -> str:
        """For the operator: the command prints it after the hub id, a page as a sentence."""
        return _DESCRIPTIONS[self]


_DESCRIPTIONS = {
    RefreshRequestOutcome.ASKED: "due now; the next sweep refreshes it",
    RefreshRequestOutcome.IN_FLIGHT: "a refresh is in flight already",
    RefreshRequestOutcome.ALREADY_DUE: "due already; the next sweep refreshes it as soon as HubSpot allows",
    RefreshRequestOutcome.DISCONNECTED: "disconnected: the account has to install the app again",
    RefreshRequestOutcome.UNKNOWN: "no such connection",
}

#: A request is a row: no connection is locked, and none that is locked is waited for (docs/adr/0022).
REQUEST = single_statement("""
WITH decided AS MATERIALIZED (
    SELECT c.id, token_granted_at, requested.id IS NULL AS is_first,
           CASE WHEN status = 'disconnected' THEN 'disconnected'
                WHEN lease_until > now() THEN 'in_flight'
                WHEN due_at <= greatest(now(), retry_not_before) OR requested.id IS NOT NULL THEN 'already_due'
                ELSE 'asked' END AS outcome
      FROM tokenkeeper.connections AS c
     CROSS JOIN LATERAL (SELECT coalesce(c.refreshed_at, '-infinity') AS token_granted_at) AS token
      LEFT JOIN LATERAL (
          SELECT r.id FROM tokenkeeper.refresh_requests AS r
           WHERE r.connection_id = c.id AND r.token_granted_at = token.token_granted_at AND r.is_operator LIMIT 1
      ) AS requested ON true
     WHERE c.id = ANY (CAST(:ids AS bigint[]))
), stored AS (
    INSERT INTO tokenkeeper.refresh_requests (connection_id, token_granted_at, is_operator)
    SELECT id, token_granted_at, true FROM decided WHERE is_first AND outcome IN ('asked', 'in_flight')
)
SELECT id, outcome FROM decided
""")
#: An SQL expression.
ANY_REQUESTED = "EXISTS (SELECT FROM tokenkeeper.refresh_requests)"
#: A request counts while the access token that it is about is the newest. A job's also only while the connection is
#: live and, where a token came by a request before, not until a sixtieth of its lifetime has passed: 30 s of HubSpot's
#: 30 minutes. An operator's request has no such limit, and another one may follow a failure.
APPLY = single_statement(f"""
WITH stored AS MATERIALIZED (
    SELECT id, connection_id, token_granted_at, is_operator FROM tokenkeeper.refresh_requests
     WHERE id > :after ORDER BY id LIMIT {BATCH_ROWS} FOR UPDATE SKIP LOCKED
), locked AS MATERIALIZED (
    SELECT c.id AS connection_id, coalesce(c.refreshed_at, '-infinity') AS token_granted_at
      FROM tokenkeeper.connections AS c
     WHERE c.id IN (SELECT connection_id FROM stored)
     ORDER BY c.id FOR NO KEY UPDATE OF c SKIP LOCKED
), current AS (
    SELECT connection_id, bool_or(stored.is_operator) AS is_operator
      FROM stored JOIN locked USING (connection_id, token_granted_at) GROUP BY connection_id
), applied AS (
    UPDATE tokenkeeper.connections AS c
       SET due_at = least(c.due_at, greatest(now(), c.retry_not_before,
               CASE WHEN c.requested_refresh_at IS NOT NULL AND NOT current.is_operator
                    THEN least(c.requested_refresh_at, now())
                         + make_interval(secs => greatest(1, c.lifetime_seconds / {MIN_INTERVAL_DIVISOR})) END)),
           refresh_requested = true
      FROM current
     WHERE c.id = current.connection_id
       AND CASE WHEN current.is_operator THEN c.status <> 'disconnected'
                ELSE c.status IN ('active', 'suspect') AND NOT c.refresh_requested END
), deleted AS (
    DELETE FROM tokenkeeper.refresh_requests AS r USING stored
     WHERE r.id = stored.id
       AND (r.connection_id IN (SELECT connection_id FROM locked)
            OR NOT EXISTS (SELECT FROM tokenkeeper.connections AS c WHERE c.id = r.connection_id))
)
SELECT count(*) AS total, max(id) AS last_id FROM stored
""")


class RefreshRequests:
    """Every method raises StoreUnavailable where PostgreSQL does not answer."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def request(self, connection_ids: Sequence[int]) -> dict[int, RefreshRequestOutcome]:
        """Let the next sweep make these connections due, revoked ones too. The outcome for each of them."""
        rows = self._database.execute(REQUEST, ids=list(connection_ids))
        outcomes = {row.id: RefreshRequestOutcome(row.outcome) for row in rows}
        return {each: outcomes.get(each, RefreshRequestOutcome.UNKNOWN) for each in connection_ids}

    def apply(self) -> None:
        """Make due what was requested since the last sweep. A request for a locked row waits for the next one."""
        after = 0
        for _ in range(MAX_BATCHES):
            batch = self._database.execute(APPLY, after=after)[0]
            if batch.total < BATCH_ROWS:
                return
            after = batch.last_id
