"""Claims due rows: the first half of the hot path, one short statement.

A row belongs to whoever holds its newest lease. A result lands only where lease and generation are still
those of the claim: a re-install or a disconnect in between wins, and the late answer changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, text

from shared.db.core.clock import DatabaseClock
from shared.db.core.statements import Database, single_statement
from shared.db.refresh.provider import COLUMNS as PROVIDER_COLUMNS
from shared.db.refresh.provider import Bucket, provider_of
from shared.domain import connection as domain
from shared.domain.connection import Status, Transition
from shared.domain.provider import Provider, rate_limit


@dataclass(frozen=True, slots=True)
class Lease:
    hub_id: int
    number: int
    generation: int
    until: datetime  #: by PostgreSQL's clock; after it the row may be somebody else's
    claimed_status: Status  #: the row's when it was claimed; an operator's word on revocations may move it meanwhile


@dataclass(frozen=True, slots=True)
class ClaimedConnection:
    connection: domain.Connection
    lease: Lease
    encrypted_refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClaimBatch:
    rows: list[ClaimedConnection]
    now: datetime  #: PostgreSQL's clock at the claim
    provider: Provider
    is_rate_limited: bool = False  #: a rate, not the lack of work, is why there are no more


@dataclass(frozen=True, slots=True)
class RefreshResult:
    lease: Lease
    transition: Transition
    encrypted_refresh_token: str | None = field(default=None, repr=False)  #: where HubSpot handed out a new one


_DUE = "due_at <= now() AND (lease_until IS NULL OR lease_until <= now())"
#: now(), not clock_timestamp(): the index can be searched for it, and it is this statement's own start.
_CLAIMED = f"""
WITH due AS MATERIALIZED (
    SELECT hub_id FROM tokenkeeper.connections
     WHERE {_DUE} {{gate}}
     ORDER BY due_at LIMIT :limit
       FOR NO KEY UPDATE SKIP LOCKED
), claimed AS (
    UPDATE tokenkeeper.connections AS c
       SET lease_until = now() + make_interval(secs => :seconds), lease_number = c.lease_number + 1
      FROM due WHERE c.hub_id = due.hub_id
    RETURNING c.hub_id, c.status, c.failures, c.lifetime_seconds, c.scopes, c.due_at, c.retry_not_before, c.last_error,
              c.status_reason, c.encrypted_refresh_token, c.lease_number, c.generation, c.lease_until
)
"""
#: At ease, nobody's row but the connections' is written. One row at least comes back, with the provider in it.
CLAIM_UNLIMITED = single_statement(
    _CLAIMED.format(
        gate="AND (SELECT rate IS NULL AND coalesce(paused_until <= now(), true) FROM tokenkeeper.provider)"
    )
    + f"""
SELECT now() AS at, {PROVIDER_COLUMNS}, claimed.*
  FROM tokenkeeper.provider LEFT JOIN claimed ON true
"""
)
CLAIM_LIMITED = text(_CLAIMED.format(gate="") + "SELECT * FROM claimed")

RELEASE = single_statement("""
UPDATE tokenkeeper.connections AS c SET lease_until = NULL
  FROM unnest(CAST(:hub_ids AS bigint[]), CAST(:numbers AS bigint[])) AS l(hub_id, number)
 WHERE c.hub_id = l.hub_id AND c.lease_number = l.number
""")
COUNT_DUE = single_statement(
    f"SELECT count(*) FROM (SELECT FROM tokenkeeper.connections WHERE {_DUE} LIMIT :at_most) AS due"
)


class ConnectionClaims:
    """Claims due rows under a lease. Every method raises StoreUnavailable where PostgreSQL does not answer."""

    def __init__(self, engine: Engine, *, lease_seconds: float, max_refreshes_per_second: float = 0.0) -> None:
        self._database = Database(engine)
        self._lease_seconds = lease_seconds
        self._cap = max_refreshes_per_second
        self.clock = DatabaseClock()  #: set by every claim

    def claim(self, most: int) -> ClaimBatch:
        """Lease up to `most` due rows that have no running lease, soonest due first, and set `clock`."""
        batch = self._claim_unlimited(most) if not self._cap else self._claim_within_rate(most)
        self.clock.set(batch.now)
        return batch

    def release(self, leases: Sequence[Lease]) -> None:
        """End these leases now, so that any worker may claim the rows."""
        release(self._database, leases)

    def count_due(self, at_most: int) -> int:
        """How many rows could be claimed now, counted no further than `at_most`."""
        return int(self._database.execute(COUNT_DUE, at_most=at_most)[0][0])

    def _claim_unlimited(self, most: int) -> ClaimBatch:
        rows = self._database.execute(CLAIM_UNLIMITED, limit=most, seconds=self._lease_seconds)
        now, provider = rows[0].at, provider_of(rows[0])
        if provider.rate is not None and not _paused(provider, now):
            return self._claim_within_rate(most)
        return ClaimBatch([_claimed(row) for row in rows if row.hub_id is not None], now, provider)

    def _claim_within_rate(self, most: int) -> ClaimBatch:
        """Takes from the bucket that all workers share, and puts back what finds no work."""
        with self._database.transaction() as connection:
            bucket = Bucket.locked(connection)
            rate = None if _paused(bucket.provider, bucket.now) else rate_limit(bucket.provider, self._cap)
            if rate is None:  # paused, or healthy again between two statements: the next claim sees to it
                return ClaimBatch([], bucket.now, bucket.provider)
            level = bucket.refilled(rate)
            budget = min(most, int(level))
            rows: Sequence[Row[Any]] = ()
            if budget:
                rows = connection.execute(CLAIM_LIMITED, {"limit": budget, "seconds": self._lease_seconds}).all()
            bucket.keep(connection, level - len(rows))
        limited = budget < most and len(rows) == budget
        return ClaimBatch([_claimed(row) for row in rows], bucket.now, bucket.provider, limited)


def release(database: Database, leases: Sequence[Lease]) -> None:
    """Let others have these rows at once."""
    if leases:
        ordered = sorted(leases, key=lambda lease: lease.hub_id)
        hub_ids, numbers = [lease.hub_id for lease in ordered], [lease.number for lease in ordered]
        database.execute(RELEASE, hub_ids=hub_ids, numbers=numbers)


def _paused(provider: Provider, now: datetime) -> bool:
    return provider.paused_until is not None and provider.paused_until > now


def _claimed(row: Row[Any]) -> ClaimedConnection:
    status = Status(row.status)
    connection = domain.Connection(
        hub_id=row.hub_id,
        status=status,
        failures=row.failures,
        lifetime_seconds=row.lifetime_seconds,
        scopes=tuple(row.scopes),
        due_at=row.due_at,
        retry_not_before=row.retry_not_before,
        last_error=row.last_error,
        status_reason=row.status_reason,
    )
    lease = Lease(row.hub_id, row.lease_number, row.generation, row.lease_until, status)
    return ClaimedConnection(connection, lease, row.encrypted_refresh_token)
