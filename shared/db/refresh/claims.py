"""Claims due rows: the first half of the hot path, one short statement.

A claim gives a row a lease with a new number. A result is saved only where lease number and generation are still those
of the claim: a re-install or a disconnect in between wins, and the late result changes nothing (docs/adr/0002).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, text

from shared.db.core.clock import DatabaseClock
from shared.db.core.errors import StoreUnavailable
from shared.db.core.server_watch import server_watch
from shared.db.core.statements import READ_IN_ORDER, Database, PreparedStatement, next_number, single_statement
from shared.db.refresh.due_cursor import FULL_SCAN_SECONDS, DueCursor, Scan
from shared.db.refresh.leases import ClaimedConnection, Lease
from shared.db.refresh.provider import NOT_REGISTERED, PROVIDER_COLUMNS, Bucket, row_to_provider
from shared.domain.connection import Connection, Status
from shared.domain.identity import DEFAULT_APP, ConnectionIdentity
from shared.domain.provider import Provider, rate_limit


@dataclass(frozen=True, slots=True)
class ClaimBatch:
    rows: list[ClaimedConnection]
    now: datetime  #: PostgreSQL's clock at the claim
    provider: Provider
    is_rate_limited: bool = False  #: a rate limit, not the lack of due rows, is why there are no more


#: After a failover no row is claimed for so long: other processes notice it too, renew lost leases of calls in flight,
#: and save refresh tokens again that it lost (recent_grants.py). Otherwise a row could be claimed with the old refresh
#: token, which HubSpot rejects. Longer than the refresh loop waits between two attempts to reach PostgreSQL.
SETTLE_SECONDS = 5.0
#: A lease that ends later than so many seconds from now was given out while PostgreSQL's clock was ahead, and does not
#: count. Twice LEASE_SECONDS, so that the setting can be changed while other workers run, plus that of a disconnect.
_MAX_LEASE_SECONDS = "2 * :lease_seconds + 60"
#: now(), not clock_timestamp(): it is constant within a statement, so that the index can be searched for it. A
#: connection whose newest refresh token waits in rotated_tokens must not be refreshed with the one before.
_IS_CLAIMABLE = f"""
app = :app AND due_at >= CAST(:begins_at AS timestamptz) AND due_at <= now()
       AND (lease_until IS NULL OR lease_until <= now()
            OR lease_until > now() + make_interval(secs => {_MAX_LEASE_SECONDS}))
       AND NOT EXISTS (SELECT FROM tokenkeeper.rotated_tokens AS r WHERE r.connection_id = c.id)
"""
#: By ctid, which is that of the locked version: the primary key has an entry for each version that an old snapshot
#: keeps. A row that was changed after the statement began is left to the next claim.
_CLAIM = f"""
WITH due AS MATERIALIZED (
    SELECT ctid FROM tokenkeeper.connections AS c
     WHERE {_IS_CLAIMABLE} {{condition}}
     ORDER BY due_at LIMIT :limit
       FOR NO KEY UPDATE OF c SKIP LOCKED
), claimed AS (
    UPDATE tokenkeeper.connections AS c
       SET lease_until = now() + make_interval(secs => :lease_seconds), lease_number = {next_number("c.lease_number")}
      FROM due WHERE c.ctid = due.ctid
    RETURNING c.id, c.hub_id, c.user_id, c.status, c.failures, c.lifetime_seconds, c.scopes, c.due_at,
              c.retry_not_before, c.last_error, c.status_reason, c.encrypted_refresh_token, c.lease_number,
              c.generation, c.lease_until
)
"""
_NO_PROVIDER = ", ".join(["NULL"] * (1 + len(PROVIDER_COLUMNS.split(", "))))
#: Claims nothing where HubSpot's state limits the rate or pauses refreshes, and writes only to claimed rows.
#: HubSpot's state is the one row whose id is null: the others need not repeat it.
CLAIM_UNLESS_LIMITED = PreparedStatement(
    _CLAIM.format(
        condition="""
       AND (SELECT rate IS NULL AND coalesce(paused_until <= now(), true) FROM tokenkeeper.provider WHERE app = :app)
     """
    )
    + f"""
SELECT * FROM (SELECT now() AS now, {PROVIDER_COLUMNS} FROM tokenkeeper.provider WHERE app = :app) AS provider
  LEFT JOIN claimed ON false
 UNION ALL
SELECT {_NO_PROVIDER}, * FROM claimed
""",
    READ_IN_ORDER,
    is_retried=True,
    app="text",
    begins_at="timestamptz",
    lease_seconds="double precision",
    limit="bigint",
)
CLAIM = text(_CLAIM.format(condition="") + "SELECT * FROM claimed")

#: A row that another transaction has locked keeps its lease, and is returned.
RELEASE = single_statement("""
WITH lease AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:numbers AS bigint[])) AS lease(id, number)
), held AS MATERIALIZED (
    SELECT c.id FROM tokenkeeper.connections AS c JOIN lease ON lease.id = c.id
     WHERE c.lease_number = lease.number
       AND c.lease_until IS NOT NULL  -- ended already: do not rewrite the row
), locked AS MATERIALIZED (
    SELECT c.id FROM tokenkeeper.connections AS c JOIN lease ON lease.id = c.id
     WHERE c.id IN (SELECT id FROM held) AND c.lease_number = lease.number
     ORDER BY c.id FOR NO KEY UPDATE OF c SKIP LOCKED
), released AS (
    UPDATE tokenkeeper.connections AS c SET lease_until = NULL FROM locked WHERE c.id = locked.id
)
SELECT id FROM held WHERE id NOT IN (SELECT id FROM locked)
""")
#: Only where the claim was lost: the row's lease number is older, and no other worker has claimed it since.
RENEW_LOST_LEASES = single_statement("""
WITH lease AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:numbers AS bigint[]), CAST(:generations AS bigint[]),
                         CAST(:untils AS timestamptz[])) AS lease(id, number, generation, until)
), locked AS MATERIALIZED (
    SELECT c.id FROM tokenkeeper.connections AS c JOIN lease ON lease.id = c.id
     WHERE c.generation = lease.generation AND c.lease_number < lease.number AND lease.until > now()
       AND coalesce(c.lease_until <= now(), true)
     ORDER BY c.id FOR NO KEY UPDATE OF c SKIP LOCKED
)
UPDATE tokenkeeper.connections AS c SET lease_number = lease.number, lease_until = lease.until
  FROM locked JOIN lease ON lease.id = locked.id
 WHERE c.id = locked.id
""")
COUNT_DUE = PreparedStatement(
    f"""
SELECT count(*) FROM (
    SELECT FROM tokenkeeper.connections AS c WHERE {_IS_CLAIMABLE} LIMIT :at_most
) AS due
""",
    READ_IN_ORDER,
    is_retried=True,
    app="text",
    begins_at="timestamptz",
    lease_seconds="double precision",
    at_most="bigint",
)


class ConnectionClaims:
    """Claims due rows of one app under a lease. Every method raises StoreUnavailable."""

    def __init__(
        self,
        engine: Engine,
        app: str = DEFAULT_APP,
        *,
        lease_seconds: float,
        max_refreshes_per_second: float = 0.0,
        full_scan_seconds: float = FULL_SCAN_SECONDS,
    ) -> None:
        """`max_refreshes_per_second`: by all workers together; 0: no limit. `full_scan_seconds`: see DueCursor."""
        self._database = Database(engine)
        self._claiming = Database(engine, settle_seconds=SETTLE_SECONDS)
        self.app = app
        self._lease_seconds = lease_seconds
        self._max_refreshes_per_second = max_refreshes_per_second
        self._cursor = DueCursor(full_scan_seconds)
        self._watch = server_watch(engine)
        self._renewed_losses = self._watch.losses  #: when leases were last compared with the rows
        self.clock = DatabaseClock()  #: set by every claim

    def claim(self, max_rows: int) -> ClaimBatch:
        """Lease up to `max_rows` due rows that have no running lease, soonest due first, and set `clock`.

        1. Usually nothing limits the rate: one statement claims the rows, and reads HubSpot's state to be sure of it.
        2. Where the setting or HubSpot's state limits the rate, the rows are claimed within the shared bucket.
        """
        if not self._max_refreshes_per_second:
            scan = self._cursor.begin_scan()
            rows = self._claiming.execute(CLAIM_UNLESS_LIMITED, limit=max_rows, **self._scan_values(scan))
            if not rows:
                raise StoreUnavailable(NOT_REGISTERED.format(app=self.app))
            state = next(row for row in rows if row.id is None)
            now, provider = state.now, row_to_provider(state)
            if provider.rate is None or provider.is_paused(now):
                self.clock.set(now)
                claimed = [_row_to_claim(row, self.app) for row in rows if row.id is not None]
                if not provider.is_paused(now):
                    self._cursor.end_scan(scan)
                    self._cursor.move_to(_last_due_at(claimed) or now)
                return ClaimBatch(claimed, now, provider)
        batch = self._claim_from_bucket(max_rows)
        self.clock.set(batch.now)
        return batch

    def release(self, leases: Sequence[Lease]) -> list[Lease]:
        """End these leases now, so that any worker may claim the rows.

        Returns those whose rows another transaction has locked: they go on.
        """
        locked = release(self._database, leases)
        if first := min((lease.due_at for lease in leases if lease.due_at), default=None):
            self._cursor.move_back_to(first)
        return [lease for lease in leases if lease.connection_id in locked]

    def renew_lost_leases(self, leases: Collection[Lease]) -> None:
        """Lease the rows of calls in flight again where a failover lost their claims. Costs nothing otherwise."""
        losses = self._watch.losses
        if losses != self._renewed_losses:
            if leases:
                self._database.execute(
                    RENEW_LOST_LEASES,
                    ids=[lease.connection_id for lease in leases],
                    numbers=[lease.number for lease in leases],
                    generations=[lease.generation for lease in leases],
                    untils=[lease.until for lease in leases],
                )
            self._renewed_losses = losses

    def count_due(self, at_most: int) -> int:
        """How many rows could be claimed now, counted no further than `at_most`."""
        scan = self._cursor.begin_scan()
        count = int(self._database.execute(COUNT_DUE, at_most=at_most, **self._scan_values(scan))[0][0])
        self._cursor.end_scan(scan)
        if count and scan.is_full:
            self._cursor.forget()
        return count

    def _claim_from_bucket(self, max_rows: int) -> ClaimBatch:
        """Claim no more than the bucket holds, and take from it only what was claimed."""
        with self._claiming.transaction() as connection:
            bucket = Bucket.lock(connection, self.app)
            rate = rate_limit(bucket.provider, self._max_refreshes_per_second)
            if rate is None or bucket.provider.is_paused(bucket.now):
                # rate None: HubSpot became healthy after the first statement. The next claim is not limited.
                return ClaimBatch([], bucket.now, bucket.provider)
            level = bucket.refill(rate)
            limit = min(max_rows, int(level))
            rows: Sequence[Row[Any]] = ()
            if limit:
                scan = self._cursor.begin_scan()
                rows = connection.execute(CLAIM, {"limit": limit, **self._scan_values(scan)}).all()
                self._cursor.end_scan(scan)
            bucket.save(connection, level - len(rows))
        is_rate_limited = limit < max_rows and len(rows) == limit
        claimed = [_row_to_claim(row, self.app) for row in rows]
        if last_due_at := _last_due_at(claimed):
            self._cursor.move_to(last_due_at)
        return ClaimBatch(claimed, bucket.now, bucket.provider, is_rate_limited)

    def _scan_values(self, scan: Scan) -> dict[str, Any]:
        return {"app": self.app, "begins_at": scan.begins_at, "lease_seconds": self._lease_seconds}


def release(database: Database, leases: Sequence[Lease]) -> frozenset[int]:
    """End these leases now, where they are still the newest of their row. Returns those whose rows are locked."""
    if not leases:
        return frozenset()
    ids, numbers = [lease.connection_id for lease in leases], [lease.number for lease in leases]
    return frozenset(row.id for row in database.execute(RELEASE, ids=ids, numbers=numbers))


def _last_due_at(claimed: Sequence[ClaimedConnection]) -> datetime | None:
    return max((row.lease.due_at for row in claimed if row.lease.due_at), default=None)


def _row_to_claim(row: Row[Any], app: str) -> ClaimedConnection:
    status = Status(row.status)
    connection = Connection(
        connection_id=row.id,
        identity=ConnectionIdentity(app, row.hub_id, row.user_id),
        status=status,
        failures=row.failures,
        lifetime_seconds=row.lifetime_seconds,
        scopes=tuple(row.scopes),
        due_at=row.due_at,
        retry_not_before=row.retry_not_before,
        last_error=row.last_error,
        status_reason=row.status_reason,
    )
    lease = Lease(row.id, row.lease_number, row.generation, row.lease_until, status, row.due_at)
    return ClaimedConnection(connection, lease, row.encrypted_refresh_token)
