"""The revocation brake: counts what becomes revoked, holds what is too much, and does what an operator says of that.

The provider's row is locked while it is counted, before any connection's: two workers that save at once do not let
through twice what one may.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, TextClause, text

from shared.db.alerts.raising import raise_alert
from shared.db.core.statements import Database, single_statement
from shared.db.refresh.claims import RefreshResult
from shared.domain.alerts import AlertKind
from shared.domain.brake import REVOCATION_WINDOW, hold_revocation, remaining_revocations
from shared.domain.connection import Status
from shared.domain.provider import RAMP_START_RATE, Condition

#: Connections that one statement of an operator's word moves: a hundred thousand at once would outlast its bound.
PAGE = 5000
HELD = "status = 'suspect' AND pending_revocation IS NOT NULL"

#: clock_timestamp(): who waited for the row must not count by the time at which he began to wait.
LOCK = text("SELECT brake_since, brake_reset_at, clock_timestamp() AS at FROM tokenkeeper.provider FOR NO KEY UPDATE")
#: Only those whose result will land count; locked, so that it does.
STILL_OURS = text("""
SELECT c.hub_id, c.status
  FROM tokenkeeper.connections AS c
  JOIN unnest(CAST(:hub_ids AS bigint[]), CAST(:numbers AS bigint[]), CAST(:generations AS bigint[]))
       AS l(hub_id, number, generation) ON c.hub_id = l.hub_id
 WHERE c.lease_number = l.number AND c.generation = l.generation AND c.lease_until IS NOT NULL
 ORDER BY c.hub_id FOR NO KEY UPDATE OF c
""")
REVOKED_SINCE = text("""
SELECT count(*) FROM tokenkeeper.history
 WHERE event = 'revoked' AND at > :since AND detail -> 'confirmed' IS NULL
""")
#: Those active now, less what the history's changes since then sum up to. So nobody reads a million rows.
ACTIVE_AT = text("""
SELECT connection_counts.connections
       - (SELECT count(*) FROM tokenkeeper.connections WHERE status <> 'active')
       - (SELECT count(*) FILTER (WHERE status = 'active' AND detail ->> 'was' IS DISTINCT FROM 'active')
               - count(*) FILTER (WHERE event = 'suspected'
                                     OR (event = 'disconnected' AND detail ->> 'was' = 'active'))
            FROM tokenkeeper.history WHERE at > :since AND status IS NOT NULL)
  FROM tokenkeeper.connection_counts
""")
ON = text("UPDATE tokenkeeper.provider SET brake_since = :at")
OFF = text("UPDATE tokenkeeper.provider SET brake_since = NULL")
OFF_ANEW = text("UPDATE tokenkeeper.provider SET brake_since = NULL, brake_reset_at = clock_timestamp()")
RAMP = text(f"UPDATE tokenkeeper.provider SET rate = {RAMP_START_RATE} WHERE condition = '{Condition.OK}'")
READ = single_statement(f"""
SELECT clock_timestamp() AS at, brake_since,
       (SELECT count(*) FROM tokenkeeper.connections WHERE {HELD}) AS held
  FROM tokenkeeper.provider
""")

CONFIRM = text(f"""
WITH those AS MATERIALIZED (
    SELECT hub_id, pending_revocation FROM tokenkeeper.connections
     WHERE {HELD} ORDER BY hub_id LIMIT {PAGE} FOR NO KEY UPDATE
), revoked AS (
    UPDATE tokenkeeper.connections AS c
       SET status = 'revoked', status_since = clock_timestamp(), pending_revocation = NULL,
           status_reason = 'HubSpot called it dead twice, and an operator confirmed it',
           access_token = NULL, expires_at = NULL, due_at = NULL, retry_not_before = NULL, refresh_requested = false
      FROM those WHERE c.hub_id = those.hub_id
    RETURNING c.hub_id
), told AS (
    INSERT INTO tokenkeeper.history (hub_id, event, detail, status)
    SELECT hub_id, 'revoked', pending_revocation || '{{"confirmed": true}}', 'revoked' FROM those ORDER BY hub_id
)
SELECT count(*) FROM revoked
""")
STILL_HELD = text(f"SELECT EXISTS (SELECT FROM tokenkeeper.connections WHERE {HELD})")

TO_DISMISS = f"(({HELD}) OR (status = 'revoked' AND status_since > :since)) AND status <> 'active'"
DISMISS = text(f"""
WITH those AS MATERIALIZED (
    SELECT hub_id, status FROM tokenkeeper.connections
     WHERE {TO_DISMISS} ORDER BY hub_id LIMIT {PAGE} FOR NO KEY UPDATE
), back AS (
    UPDATE tokenkeeper.connections AS c
       SET status = 'active', status_since = clock_timestamp(), status_reason = NULL, pending_revocation = NULL,
           due_at = greatest(now(), c.retry_not_before), failures = 0, last_error = NULL, refresh_requested = false
      FROM those WHERE c.hub_id = those.hub_id
    RETURNING c.hub_id
), told AS (
    INSERT INTO tokenkeeper.history (hub_id, event, detail, status)
    SELECT hub_id, 'recovered', jsonb_build_object('was', status, 'dismissed', true), 'active'
      FROM those ORDER BY hub_id
)
SELECT count(*) FROM back
""")
STILL_TO_DISMISS = text(f"SELECT EXISTS (SELECT FROM tokenkeeper.connections WHERE {TO_DISMISS})")


@dataclass(frozen=True, slots=True)
class Word:
    """What an operator can say of those that the brake holds."""

    name: str
    move: TextClause  #: a page of them
    left: TextClause  #: whether there are more
    off: TextClause
    first: TextClause | None = None


CONFIRMED = Word("confirmed", CONFIRM, STILL_HELD, OFF)
DISMISSED = Word("dismissed", DISMISS, STILL_TO_DISMISS, OFF_ANEW, first=RAMP)


@dataclass(frozen=True, slots=True)
class BrakeState:
    now: datetime  #: PostgreSQL's clock
    since: datetime | None  #: None: it is off
    held: int


class RevocationBrake:
    """The circuit breaker for revocations. Every method raises StoreUnavailable where PostgreSQL does not answer."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def read(self) -> BrakeState:
        row = self._database.execute(READ)[0]
        return BrakeState(row.at, row.brake_since, row.held)

    def confirm(self) -> int | None:
        """Revoke what the brake holds, and let it go. How many; None where it was off."""
        return _let_go(self._database, CONFIRMED)

    def dismiss(self) -> int | None:
        """Bring back what the brake holds, and what was revoked in the ten minutes before; then let it go. How many."""
        return _let_go(self._database, DISMISSED)


def apply_brake(
    connection: Connection, verdicts: Sequence[RefreshResult], *, lease_seconds: float
) -> list[RefreshResult]:
    """Of results that revoke those that are to be saved in this transaction: as they are, or held by the brake.

    What was claimed before an operator dismissed such verdicts is not among them: it is asked again.
    """
    state = connection.execute(LOCK).one()
    statuses = _ours(connection, verdicts)
    ours = [result for result in verdicts if result.lease.hub_id in statuses]
    if state.brake_reset_at is not None:
        lease = timedelta(seconds=lease_seconds)
        ours = [result for result in ours if result.lease.until - lease > state.brake_reset_at]
    # An operator confirmed it meanwhile: that is told already.
    told = [result for result in ours if statuses[result.lease.hub_id] == Status.REVOKED]
    fresh = [result for result in ours if statuses[result.lease.hub_id] != Status.REVOKED]
    allowed = 0 if state.brake_since else _allowed(connection, state, len(fresh))
    if len(fresh) > allowed and state.brake_since is None:
        _pull(connection, state.at, len(fresh) - allowed)
    again = [replace(result, transition=replace(result.transition, events=())) for result in told]
    return again + fresh[:allowed] + [_held(result, state.at) for result in fresh[allowed:]]


def _ours(connection: Connection, verdicts: Sequence[RefreshResult]) -> dict[int, str]:
    """The status of each hub whose row is still of the lease and generation that it was claimed under."""
    leases = [result.lease for result in verdicts]
    values = {
        "hub_ids": [lease.hub_id for lease in leases],
        "numbers": [lease.number for lease in leases],
        "generations": [lease.generation for lease in leases],
    }
    return {row.hub_id: row.status for row in connection.execute(STILL_OURS, values)}


def _allowed(connection: Connection, state: Row[Any], wanted: int) -> int:
    """How many may become revoked now, looked at no further than `wanted`."""
    since = state.at - REVOCATION_WINDOW
    counted_from = max(filter(None, (since, state.brake_reset_at)))
    revoked = connection.execute(REVOKED_SINCE, {"since": counted_from}).scalar_one()
    allowed = remaining_revocations(0, revoked)
    if allowed >= wanted:
        return allowed
    return remaining_revocations(connection.execute(ACTIVE_AT, {"since": since}).scalar_one(), revoked)


def _pull(connection: Connection, at: datetime, too_many: int) -> None:
    connection.execute(ON, {"at": at})
    raise_alert(connection, AlertKind.BRAKE, detail={"held": too_many})


def _held(result: RefreshResult, now: datetime) -> RefreshResult:
    return replace(result, transition=hold_revocation(result.transition, now))


def _let_go(database: Database, word: Word) -> int | None:
    """While pages are moved the brake stays on: nothing is revoked meanwhile, and a word cut short is said again."""
    moved: int | None = None
    while True:
        with database.transaction() as connection:
            state = connection.execute(LOCK).one()
            if state.brake_since is None:
                return moved
            since = {"since": state.brake_since - REVOCATION_WINDOW}
            if word.first is not None:
                connection.execute(word.first)
            moved = (moved or 0) + int(connection.execute(word.move, since).scalar_one())
            if not connection.execute(word.left, since).scalar_one():
                connection.execute(word.off)
                raise_alert(connection, AlertKind.BRAKE, recovered=True, detail={word.name: moved})
                return moved
