"""Stores the state of the revocation brake, and an operator's decision about what it holds.

The rules are in `shared/domain/brake.py`. HubSpot may by mistake reject many grants at once, both at the refresh and at
the introspection. So of each app at most max(10, 5 % of its active connections) may become revoked within ten minutes.
Beyond that the brake turns on, with one alert, and further revocations are held: saved as suspect, with what HubSpot
answered in `pending_revocation`. Such a connection is served until its token expires, and is retried as after any
failure. An operator turns the brake off: `confirm` revokes what is held; `dismiss` makes it active and due, and what
became revoked just before as well.

Revocations are counted under a lock on the app's row in `provider`, so that two workers that save at the same time stay
within the limit together. While it is held no connection's row is waited for: one that is locked is left to a later
save.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, TextClause, text

from shared.db.alerts.raising import raise_alert
from shared.db.core.errors import StoreUnavailable
from shared.db.core.statements import Database, single_statement
from shared.db.refresh.leases import RefreshResult
from shared.db.refresh.provider import NOT_REGISTERED
from shared.domain.alerts import AlertKind
from shared.domain.brake import REVOCATION_WINDOW, hold_revocation, remaining_revocations
from shared.domain.connection import Status
from shared.domain.identity import DEFAULT_APP
from shared.domain.provider import RAMP_START_PER_SECOND, Condition

#: Connections that one statement of confirm() or dismiss() changes: many more could exceed the statement's time limit.
BATCH_ROWS = 1000
#: For rows that another transaction has locked: between two tries, and in all.
LOCKED_ROWS_PAUSE_SECONDS, LOCKED_ROWS_WAIT_SECONDS = 0.2, 5.0
ROWS_STAY_LOCKED = (
    "{changed} {name}, and other transactions keep the remaining rows locked, so the brake stays on: end those, and "
    "repeat the command"
)
#: An SQL condition: the brake holds the connection's revocation.
IS_HELD = "status = 'suspect' AND pending_revocation IS NOT NULL"

READ = single_statement(f"""
SELECT clock_timestamp() AS now, brake_since,
       (SELECT count(*) FROM tokenkeeper.connections AS c WHERE c.app = :app AND {IS_HELD}) AS held
  FROM tokenkeeper.provider WHERE app = :app
""")
#: clock_timestamp(), not now(): after waiting for the lock, the window must not end before the wait.
LOCK_BRAKE = text("""
SELECT brake_since, brake_reset_at, clock_timestamp() AS now FROM tokenkeeper.provider WHERE app = :app
   FOR NO KEY UPDATE
""")
_LEASED = """
  FROM tokenkeeper.connections AS c
  JOIN unnest(CAST(:ids AS bigint[]), CAST(:numbers AS bigint[]), CAST(:generations AS bigint[]))
       AS lease(id, number, generation) ON c.id = lease.id
 WHERE c.lease_number = lease.number AND c.generation = lease.generation AND c.lease_until IS NOT NULL
"""
#: The rows whose result can still be saved: only those count. Locked, so that this stays so. While the provider's row
#: is locked, which all workers share, no other row is waited for.
LOCK_LEASED_ROWS = text(f"SELECT c.id, c.status {_LEASED} ORDER BY c.id FOR NO KEY UPDATE OF c SKIP LOCKED")
#: Those and, of the rows that another transaction has locked, the ones that are leased as far as can be seen.
READ_LEASED_ROWS = text(f"SELECT c.id {_LEASED}")
COUNT_REVOKED_SINCE = text("""
SELECT count(*) FROM tokenkeeper.history
 WHERE app = :app AND event = 'revoked' AND at > :since AND detail -> 'confirmed' IS NULL
""")
#: How many connections were active at that time: those active now, less the changes of status since. It reads an index
#: of the history, not a million connections.
COUNT_ACTIVE_AT = text("""
SELECT connection_counts.connections
       - (SELECT count(*) FROM tokenkeeper.connections AS c WHERE c.app = :app AND c.status <> 'active')
       - (SELECT count(*) FILTER (WHERE status = 'active' AND detail ->> 'was' IS DISTINCT FROM 'active')
               - count(*) FILTER (WHERE event = 'suspected'
                                     OR (event = 'disconnected' AND detail ->> 'was' = 'active'))
            FROM tokenkeeper.history AS h WHERE h.app = :app AND h.at > :since AND h.status IS NOT NULL)
  FROM tokenkeeper.connection_counts WHERE app = :app
""")
TURN_ON = text("UPDATE tokenkeeper.provider SET brake_since = :now WHERE app = :app")

CONFIRM_BATCH = text(f"""
WITH held AS MATERIALIZED (
    SELECT id, app, hub_id, user_id, customer, pending_revocation FROM tokenkeeper.connections
     WHERE app = :app AND {IS_HELD} ORDER BY id LIMIT {BATCH_ROWS} FOR NO KEY UPDATE SKIP LOCKED
), revoked AS (
    UPDATE tokenkeeper.connections AS c
       SET status = 'revoked', status_since = clock_timestamp(), pending_revocation = NULL,
           status_reason = 'HubSpot rejected it twice, and an operator confirmed the revocation',
           access_token = NULL, expires_at = NULL, due_at = NULL, retry_not_before = NULL, refresh_requested = false
      FROM held WHERE c.id = held.id
    RETURNING c.id
), history_lines AS (
    INSERT INTO tokenkeeper.history (app, hub_id, user_id, customer, event, detail, status)
    SELECT app, hub_id, user_id, customer, 'revoked', pending_revocation || '{{"confirmed": true}}', 'revoked'
      FROM held ORDER BY id
)
SELECT count(*) FROM revoked
""")
ANY_TO_CONFIRM = text(f"SELECT EXISTS (SELECT FROM tokenkeeper.connections WHERE app = :app AND {IS_HELD})")
TURN_OFF = text("UPDATE tokenkeeper.provider SET brake_since = NULL WHERE app = :app")

#: `status <> 'active'` follows from the rest, and lets the planner use the index connections_not_active.
_IS_TO_DISMISS = f"(({IS_HELD}) OR (status = 'revoked' AND status_since > :since)) AND status <> 'active'"
DISMISS_BATCH = text(f"""
WITH dismissed AS MATERIALIZED (
    SELECT id, app, hub_id, user_id, customer, status FROM tokenkeeper.connections
     WHERE app = :app AND {_IS_TO_DISMISS} ORDER BY id LIMIT {BATCH_ROWS} FOR NO KEY UPDATE SKIP LOCKED
), activated AS (
    UPDATE tokenkeeper.connections AS c
       SET status = 'active', status_since = clock_timestamp(), status_reason = NULL, pending_revocation = NULL,
           due_at = greatest(now(), c.retry_not_before), failures = 0, last_error = NULL, refresh_requested = false
      FROM dismissed WHERE c.id = dismissed.id
    RETURNING c.id
), history_lines AS (
    INSERT INTO tokenkeeper.history (app, hub_id, user_id, customer, event, detail, status)
    SELECT app, hub_id, user_id, customer, 'recovered', jsonb_build_object('was', status, 'dismissed', true), 'active'
      FROM dismissed ORDER BY id
)
SELECT count(*) FROM activated
""")
ANY_TO_DISMISS = text(f"SELECT EXISTS (SELECT FROM tokenkeeper.connections WHERE app = :app AND {_IS_TO_DISMISS})")
#: The revocations dismissed do not count towards the next time that the brake turns on.
TURN_OFF_AND_RESET = text(
    "UPDATE tokenkeeper.provider SET brake_since = NULL, brake_reset_at = clock_timestamp() WHERE app = :app"
)
#: Many connections become due at once: refresh them at a growing rate, as after an outage.
START_RAMP = text(
    f"UPDATE tokenkeeper.provider SET rate = {RAMP_START_PER_SECOND} WHERE app = :app AND condition = '{Condition.OK}'"
)


@dataclass(frozen=True, slots=True)
class BrakeState:
    now: datetime  #: PostgreSQL's clock
    since: datetime | None  #: None: the brake is off
    held: int  #: connections whose revocation it holds


class RevocationBrake:
    """The circuit breaker for revocations of one app. Every method raises StoreUnavailable."""

    def __init__(
        self, engine: Engine, app: str = DEFAULT_APP, *, locked_rows_wait_seconds: float = LOCKED_ROWS_WAIT_SECONDS
    ) -> None:
        self._database = Database(engine)
        self._app = app
        self._locked_rows_wait_seconds = locked_rows_wait_seconds

    def read(self) -> BrakeState:
        rows = self._database.execute(READ, app=self._app)
        if not rows:
            raise StoreUnavailable(NOT_REGISTERED.format(app=self._app))
        (row,) = rows
        return BrakeState(row.now, row.brake_since, row.held)

    def confirm(self) -> int | None:
        """Revoke the connections held, and turn the brake off. How many; None where it was off."""
        return _decide(self._database, self._app, CONFIRM_DECISION, self._locked_rows_wait_seconds)

    def dismiss(self) -> int | None:
        """Make the connections held active and due, and those revoked up to a REVOCATION_WINDOW before the brake.

        Then turn the brake off. How many; None where it was off.
        """
        return _decide(self._database, self._app, DISMISS_DECISION, self._locked_rows_wait_seconds)


@dataclass(frozen=True, slots=True)
class LimitedRevocations:
    to_save: list[RefreshResult]  #: in this transaction: as they are, or held by the brake
    locked: frozenset[int]  #: connections whose rows another transaction has locked: to be saved again later


def limit_revocations(
    connection: Connection, app: str, results: Sequence[RefreshResult], *, lease_seconds: float
) -> LimitedRevocations:
    """What is to become of `results`, which all revoke connections of the app.

    Results of leases from before a dismissal are left out: those connections are refreshed again.
    """
    # 1. Lock the brake, then the rows; leave out results that can no longer be saved, and those whose rows are locked.
    brake = _lock_brake(connection, app)
    leases = [result.lease for result in results]
    values = {
        "ids": [lease.connection_id for lease in leases],
        "numbers": [lease.number for lease in leases],
        "generations": [lease.generation for lease in leases],
    }
    statuses = {row.id: row.status for row in connection.execute(LOCK_LEASED_ROWS, values)}
    locked = frozenset[int]()
    if len(statuses) < len(results):
        locked = frozenset(row.id for row in connection.execute(READ_LEASED_ROWS, values)) - statuses.keys()
    current = [result for result in results if result.lease.connection_id in statuses]
    # 2. Leave out results of leases that began before the newest dismissal.
    if brake.brake_reset_at is not None:
        lease_length = timedelta(seconds=lease_seconds)
        current = [result for result in current if result.lease.until - lease_length > brake.brake_reset_at]
    # 3. What an operator has confirmed since the claim is revoked, and in the history, already.
    confirmed = [
        replace(result, transition=replace(result.transition, events=()))
        for result in current
        if statuses[result.lease.connection_id] == Status.REVOKED
    ]
    new = [result for result in current if statuses[result.lease.connection_id] != Status.REVOKED]
    # 4. Hold what exceeds the limit; the first time, turn the brake on.
    allowed = 0 if brake.brake_since else _count_allowed(connection, app, brake, len(new))
    to_revoke, to_hold = new[:allowed], new[allowed:]
    if to_hold and brake.brake_since is None:
        connection.execute(TURN_ON, {"app": app, "now": brake.now})
        raise_alert(connection, AlertKind.BRAKE, app=app, detail={"held": len(to_hold)})
    held = [replace(result, transition=hold_revocation(result.transition, brake.now)) for result in to_hold]
    return LimitedRevocations([*confirmed, *to_revoke, *held], locked)


def _lock_brake(connection: Connection, app: str) -> Row[Any]:
    """Raises StoreUnavailable where the app has no row yet."""
    row = connection.execute(LOCK_BRAKE, {"app": app}).one_or_none()
    if row is None:
        raise StoreUnavailable(NOT_REGISTERED.format(app=app))
    return row


def _count_allowed(connection: Connection, app: str, brake: Row[Any], wanted: int) -> int:
    """How many of the app may become revoked now. Exact only below `wanted`, so that small numbers cost one count."""
    window_start = brake.now - REVOCATION_WINDOW
    count_from = max(filter(None, (window_start, brake.brake_reset_at)))
    revoked = connection.execute(COUNT_REVOKED_SINCE, {"app": app, "since": count_from}).scalar_one()
    allowed = remaining_revocations(0, revoked)
    if allowed >= wanted:
        return allowed
    active = connection.execute(COUNT_ACTIVE_AT, {"app": app, "since": window_start}).scalar_one()
    return remaining_revocations(active, revoked)


@dataclass(frozen=True, slots=True)
class _Decision:
    """What an operator decides about the revocations that the brake holds."""

    name: str  #: in the alert's detail
    change_batch: TextClause  #: returns how many rows it changed
    any_left: TextClause
    turn_off: TextClause
    start: TextClause | None = None  #: executed with the first batch


CONFIRM_DECISION = _Decision("confirmed", CONFIRM_BATCH, ANY_TO_CONFIRM, TURN_OFF)
DISMISS_DECISION = _Decision("dismissed", DISMISS_BATCH, ANY_TO_DISMISS, TURN_OFF_AND_RESET, start=START_RAMP)


def _decide(database: Database, app: str, decision: _Decision, locked_rows_wait_seconds: float) -> int | None:
    """Change the rows in batches. The brake stays on until the last: if this is interrupted, it can be repeated.

    Raises StoreUnavailable where other transactions keep rows locked.
    """
    changed: int | None = None
    stop_waiting_at = time.monotonic() + locked_rows_wait_seconds
    while True:
        with database.transaction() as connection:
            brake = _lock_brake(connection, app)
            if brake.brake_since is None:
                return changed
            values = {"app": app, "since": brake.brake_since - REVOCATION_WINDOW}
            if decision.start is not None and changed is None:
                connection.execute(decision.start, {"app": app})
            batch = int(connection.execute(decision.change_batch, values).scalar_one())
            changed = (changed or 0) + batch
            if not connection.execute(decision.any_left, values).scalar_one():
                connection.execute(decision.turn_off, {"app": app})
                raise_alert(connection, AlertKind.BRAKE, app=app, recovered=True, detail={decision.name: changed})
                return changed
        if batch == 0:
            # The rows that are left are locked. Wait for them without a lock of our own.
            if time.monotonic() > stop_waiting_at:
                raise StoreUnavailable(ROWS_STAY_LOCKED.format(changed=changed, name=decision.name))
            time.sleep(LOCKED_ROWS_PAUSE_SECONDS)
