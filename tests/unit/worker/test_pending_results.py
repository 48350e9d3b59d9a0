"""What waits in a pool process for PostgreSQL, and for rows that another transaction has locked."""

from __future__ import annotations

from shared.db.refresh.leases import Lease, RefreshResult
from shared.domain.connection import Status, Transition
from tests.support.builders import START, make_connection
from worker.refresh.pending_results import MIN_LOCKED_PAUSE_SECONDS, PendingResults
from worker.refresh.refresher import RefreshAttempt


def make_attempt(connection_id: int, *, is_called: bool = True) -> RefreshAttempt:
    lease = Lease(connection_id, number=1, generation=1, until=START, claimed_status=Status.ACTIVE)
    result = RefreshResult(lease, Transition(make_connection(connection_id=connection_id))) if is_called else None
    return RefreshAttempt(lease, result)


def list_ids(attempts: list[RefreshAttempt]) -> list[int]:
    return [attempt.lease.connection_id for attempt in attempts]


def test_attempts_without_a_result_wait_for_the_release_of_their_lease():
    pending = PendingResults()
    pending.add([make_attempt(1), make_attempt(2, is_called=False)])
    assert (list_ids(pending.attempts), [lease.connection_id for lease in pending.uncalled]) == ([1], [2])
    assert len(pending) == 2


def test_results_of_locked_rows_wait_and_each_is_reported_once():
    pending = PendingResults()
    pending.add([make_attempt(1), make_attempt(2)])
    assert list_ids(pending.finish({2})) == [2]
    assert (pending.attempts, list_ids(pending.locked), len(pending)) == ([], [2], 1)
    pending.retry_locked_if_due()
    pending.add([make_attempt(3)])
    assert list_ids(pending.finish({2, 3})) == [3]
    assert list_ids(pending.locked) == [2, 3]


def test_locked_rows_are_tried_again_at_once_and_then_after_a_pause():
    now = 100.0
    pending = PendingResults(lambda: now)
    pending.add([make_attempt(1)])
    pending.finish({1})
    pending.retry_locked_if_due()
    assert list_ids(pending.attempts) == [1]
    pending.finish({1})
    now += MIN_LOCKED_PAUSE_SECONDS / 2
    pending.retry_locked_if_due()
    assert pending.attempts == [], "the pause goes on"
    now += MIN_LOCKED_PAUSE_SECONDS
    pending.retry_locked_if_due()
    assert list_ids(pending.attempts) == [1]


def test_after_all_locked_rows_are_saved_the_next_one_is_tried_at_once_again():
    pending = PendingResults()
    pending.add([make_attempt(1)])
    for locked in ({1}, {1}):
        pending.finish(locked)
        pending.retry_locked_if_due()
    pending.attempts, pending.locked = [], []
    pending.finish(())
    pending.retry_locked_if_due()
    pending.add([make_attempt(2)])
    assert list_ids(pending.finish({2})) == [2]
    pending.retry_locked_if_due()
    assert list_ids(pending.attempts) == [2]
