"""How far the history is sent to our own product: a cursor, and the connections whose events wait (docs/adr/0037).

The history itself is the outbox. Only connections whose oldest event was not accepted have a row of their own, and not
more than MAX_WAITING_CONNECTIONS: a receiver that is down for long, or a million revocations, add no further rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row

from shared.db.core.statements import Database
from shared.db.events import delivery_sql as sql
from shared.db.events.alerting import alert_to_receiver, alert_to_skipped
from shared.domain.events import (
    FAILURES_BEFORE_PAUSE,
    GIVE_UP_AFTER,
    BatchResult,
    Chain,
    ChainOutcome,
    Event,
    evaluate_batch,
    retry_seconds,
)
from shared.domain.identity import ConnectionIdentity

#: With more connections waiting, no further line of the history is read.
MAX_WAITING_CONNECTIONS = 1000


@dataclass(frozen=True, slots=True)
class Batch:
    """What the process that holds the lease sends now: one chain per connection."""

    chains: tuple[Chain, ...]
    cursor_id: int  #: of the newest line read
    lease_number: int
    now: datetime  #: PostgreSQL's clock
    rate: float  #: posts a second at most
    failures: int
    is_failing: bool  #: the receiver accepts nothing: this is a probe
    replay_until: int
    replayed_at: datetime | None

    def is_too_old(self, event: Event, now: datetime) -> bool:
        begins_at = event.at
        if self.replayed_at is not None and event.id <= self.replay_until:
            begins_at = max(event.at, self.replayed_at)
        return now - begins_at > GIVE_UP_AFTER


class EventDelivery:
    """Every method raises StoreUnavailable where PostgreSQL does not answer, and may then be called again."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def enable(self, *, is_enabled: bool) -> None:
        """Whether a receiver is set, as the worker says at its start."""
        self._database.execute(sql.ENABLE, is_enabled=is_enabled)

    def any_to_send(self) -> bool:
        return bool(self._database.execute(sql.ANY_TO_SEND)[0][0])

    def claim(self) -> Batch | None:
        """The next events to send; None where there are none now, or another process is sending."""
        with self._database.transaction() as connection:
            # 1. The lease, and how the receiver is.
            state = connection.execute(sql.LOCK).one_or_none()
            if state is None:
                return None
            is_failing = state.failing_connections >= FAILURES_BEFORE_PAUSE

            # 2. Events that wait; only one as a probe of a receiver that fails.
            limit = {"connections": 1 if is_failing else sql.BATCH_EVENTS, "cursor_id": state.cursor_id}
            rows = list(connection.execute(sql.READ_WAITING, limit))
            if is_failing:
                rows = rows[:1]

            # 3. New ones. The cursor also passes those of connections that wait.
            cursor_id = state.cursor_id
            if not is_failing and state.waiting < MAX_WAITING_CONNECTIONS and len(rows) < sql.BATCH_EVENTS:
                skipped_to, new = _read_new(connection, state, sql.BATCH_EVENTS - len(rows))
                cursor_id = new[-1].id if new else skipped_to
                rows += [row for row in new if not row.is_waiting]
                connection.execute(sql.MOVE_CURSOR, {"cursor_id": skipped_to if rows else cursor_id})
            if not rows:
                return None
            return Batch(
                chains=_make_chains(rows),
                cursor_id=cursor_id,
                lease_number=connection.execute(sql.BEGIN_LEASE).scalar_one(),
                now=state.now,
                rate=state.rate,
                failures=state.failures,
                is_failing=is_failing,
                replay_until=state.replay_until,
                replayed_at=state.replayed_at,
            )

    def finish(self, batch: Batch, outcomes: Sequence[ChainOutcome]) -> BatchResult | None:
        """Store what became of the batch. None where its lease has ended: then its events are sent again."""
        with self._database.transaction() as connection:
            held = connection.execute(sql.LOCK_LEASED, {"lease_number": batch.lease_number}).one_or_none()
            if held is None:
                return None
            result = evaluate_batch(outcomes, failures=batch.failures, rate=batch.rate, is_failing=batch.is_failing)
            waiting = [_describe_wait(outcome) for outcome in outcomes if outcome.left]
            done = [_describe_end(outcome) for outcome in outcomes if not outcome.left]
            if waiting:
                connection.execute(sql.WAIT, {"outcomes": json.dumps(waiting)})
            if done:
                connection.execute(sql.END_WAIT, {"outcomes": json.dumps(done), "cursor_id": batch.cursor_id})
            if result.accepted and batch.failures:
                connection.execute(sql.RETRY_ALL_NOW)
            values = {name: getattr(result, name) for name in ("rate", "failures", "pause_seconds", "is_gone")}
            totals = {"accepted": result.accepted, "dropped": result.dropped}
            connection.execute(sql.END_LEASE, {"cursor_id": batch.cursor_id, **values, **totals})
            alert_to_receiver(connection, result, failing_since=held.failing_since, now=held.now)
            return result

    def replay(self, since: int) -> int:
        """Send again what follows line `since` of the history. How many lines those are."""
        with self._database.transaction() as connection:
            total = connection.execute(sql.REPLAY, {"since": since}).scalar_one_or_none()
            if total:
                connection.execute(sql.FORGET_LATER_WAITS, {"since": since})
            return int(total or 0)

    def resume(self) -> bool:
        """Send again after a 410, and end a pause. False where no worker has a receiver."""
        with self._database.transaction() as connection:
            is_enabled = bool(connection.execute(sql.RESUME).scalar_one())
            connection.execute(sql.RETRY_ALL_NOW)
            return is_enabled


def _read_new(connection: Connection, state: Row[Any], limit: int) -> tuple[int, list[Row[Any]]]:
    """The last of those lines behind the cursor that are too old to be sent, and up to `limit` lines after it."""
    cursor_id, skipped, oldest_sent = state.cursor_id, 0, state.now - GIVE_UP_AFTER
    while True:
        new = list(connection.execute(sql.READ_NEW, {"cursor_id": cursor_id, "lines": limit}))
        if not new or new[0].id <= state.replay_until or new[0].at >= oldest_sent:
            break
        values = {"cursor_id": cursor_id, "replay_until": state.replay_until, "oldest_sent": oldest_sent}
        old = connection.execute(sql.SKIP_OLD, values).one()
        cursor_id, skipped = old.id, skipped + old.total
    if skipped:
        connection.execute(sql.COUNT_DROPPED, {"count": skipped})
        alert_to_skipped(connection, skipped)
    return cursor_id, new


def _make_chains(rows: Sequence[Row[Any]]) -> tuple[Chain, ...]:
    """One per connection, in the order of the first event of each."""
    by_connection: dict[ConnectionIdentity, list[Row[Any]]] = {}
    for row in rows:
        by_connection.setdefault(ConnectionIdentity(row.app, row.hub_id, row.user_id), []).append(row)
    return tuple(
        Chain(tuple(make_event(row) for row in chain), attempts=chain[0].attempts) for chain in by_connection.values()
    )


def make_event(row: Row[Any]) -> Event:
    """From a row with the columns of _EVENT."""
    identity = ConnectionIdentity(row.app, row.hub_id, row.user_id)
    return Event(row.id, row.at, row.event, identity, row.customer, row.status, row.detail)


def _describe_wait(outcome: ChainOutcome) -> dict[str, Any]:
    is_same = not outcome.accepted and not outcome.dropped
    attempts = outcome.chain.attempts if is_same else 0
    wait_seconds = 0.0
    if outcome.failure:
        attempts += 1
        wait_seconds = max(retry_seconds(attempts), outcome.failure.retry_after_seconds)
    return {
        **_describe_identity(outcome.chain.identity),
        "history_id": outcome.left[0].id,
        "attempts": attempts,
        "wait_seconds": wait_seconds,
        "is_failure": outcome.failure is not None,
        "error": outcome.failure.why if outcome.failure else None,
    }


def _describe_end(outcome: ChainOutcome) -> dict[str, Any]:
    return {**_describe_identity(outcome.chain.identity), "history_id": outcome.chain.events[-1].id}


def _describe_identity(identity: ConnectionIdentity) -> dict[str, Any]:
    return {"hub_id": identity.hub_id, "app": identity.app, "user_id": identity.user_id}
