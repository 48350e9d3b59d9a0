"""Claims due rows: the first half of the hot path, one short statement.

A row belongs to whoever holds its newest lease. A result lands only where lease and generation are still
those of the claim: a re-install or a disconnect in between wins, and the late answer changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from shared.db.database import Database, alone
from shared.db.provider import COLUMNS as PROVIDER_COLUMNS
from shared.db.provider import Bucket, provider_of
from shared.domain import connection as domain
from shared.domain.connection import Status, Step
from shared.domain.provider import Provider, limit


@dataclass(frozen=True, slots=True)
class Lease:
    hub_id: int
    number: int
    generation: int
    until: datetime  #: by PostgreSQL's clock; after it the row may be somebody else's
    was: Status  #: the row's when it was claimed; an operator's word on revocations may move it meanwhile


@dataclass(frozen=True, slots=True)
class Claimed:
    connection: domain.Connection
    lease: Lease
    sealed_refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Claims:
    rows: list[Claimed]
    now: datetime  #: PostgreSQL's clock at the claim
    provider: Provider
    limited: bool = False  #: a rate, not the lack of work, is why there are no more


@dataclass(frozen=True, slots=True)
class Result:
    lease: Lease
    step: Step
    sealed_refresh_token: str | None = field(default=None, repr=False)  #: where HubSpot handed out a new one


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
       SET lease_until = now() + make_interval(secs => :seconds), lease_no = c.lease_no + 1
      FROM due WHERE c.hub_id = due.hub_id
    RETURNING c.hub_id, c.status, c.failures, c.life, c.scopes, c.due_at, c.not_before, c.last_error,
              c.status_reason, c.sealed_refresh_token, c.lease_no, c.generation, c.lease_until
)
"""
#: At ease, nobody's row but the connections' is written. One row at least comes back, with the provider in it.
CLAIM_AT_EASE = alone(
    _CLAIMED.format(
        gate="AND (SELECT rate IS NULL AND coalesce(paused_until <= now(), true) FROM tokenkeeper.provider)"
    )
    + f"""
SELECT now() AS at, {PROVIDER_COLUMNS}, claimed.*
  FROM tokenkeeper.provider LEFT JOIN claimed ON true
"""
)
CLAIM_SOME = text(_CLAIMED.format(gate="") + "SELECT * FROM claimed")

HAND_BACK = alone("""
UPDATE tokenkeeper.connections AS c SET lease_until = NULL
  FROM unnest(CAST(:hub_ids AS bigint[]), CAST(:numbers AS bigint[])) AS l(hub_id, number)
 WHERE c.hub_id = l.hub_id AND c.lease_no = l.number
""")
COUNT_DUE = alone(f"SELECT count(*) FROM (SELECT FROM tokenkeeper.connections WHERE {_DUE} LIMIT :at_most) AS due")


def claim(database: Database, most: int, *, lease_seconds: float, cap: float) -> Claims:
    """Up to `most` due rows, soonest due first; none that anybody holds.

    `cap`: refreshes a second over all workers (0: none), on top of what the provider's state allows.
    """
    if cap:
        return _claim_some(database, most, lease_seconds=lease_seconds, cap=cap)
    rows = database.ask(CLAIM_AT_EASE, limit=most, seconds=lease_seconds)
    now, provider = rows[0].at, provider_of(rows[0])
    if provider.rate is not None and not _paused(provider, now):
        return _claim_some(database, most, lease_seconds=lease_seconds, cap=cap)
    return Claims([_claimed(row) for row in rows if row.hub_id is not None], now, provider)


def hand_back(database: Database, leases: Sequence[Lease]) -> None:
    """Let others have these rows at once."""
    if leases:
        ordered = sorted(leases, key=lambda lease: lease.hub_id)
        hub_ids, numbers = [lease.hub_id for lease in ordered], [lease.number for lease in ordered]
        database.ask(HAND_BACK, hub_ids=hub_ids, numbers=numbers)


def due(database: Database, at_most: int) -> int:
    """How many rows could be claimed now, counted no further than `at_most`."""
    return int(database.ask(COUNT_DUE, at_most=at_most)[0][0])


def _claim_some(database: Database, most: int, *, lease_seconds: float, cap: float) -> Claims:
    """Under a rate: takes from the bucket that all workers share, and puts back what finds no work."""
    with database.transaction() as connection:
        bucket = Bucket.locked(connection)
        rate = None if _paused(bucket.provider, bucket.now) else limit(bucket.provider, cap)
        if rate is None:  # paused, or back at ease between two statements: the next claim sees to it
            return Claims([], bucket.now, bucket.provider)
        allowance = bucket.refilled(rate)
        budget = min(most, int(allowance))
        rows = _some(connection, budget, lease_seconds) if budget else ()
        bucket.keep(connection, allowance - len(rows))
    limited = budget < most and len(rows) == budget
    return Claims([_claimed(row) for row in rows], bucket.now, bucket.provider, limited)


def _some(connection: Connection, budget: int, lease_seconds: float) -> Sequence[Row[Any]]:
    return connection.execute(CLAIM_SOME, {"limit": budget, "seconds": lease_seconds}).all()


def _paused(provider: Provider, now: datetime) -> bool:
    return provider.paused_until is not None and provider.paused_until > now


def _claimed(row: Row[Any]) -> Claimed:
    status = Status(row.status)
    connection = domain.Connection(
        hub_id=row.hub_id,
        status=status,
        failures=row.failures,
        life=row.life,
        scopes=tuple(row.scopes),
        due_at=row.due_at,
        not_before=row.not_before,
        last_error=row.last_error,
        reason=row.status_reason,
    )
    lease = Lease(row.hub_id, row.lease_no, row.generation, row.lease_until, status)
    return Claimed(connection, lease, row.sealed_refresh_token)
