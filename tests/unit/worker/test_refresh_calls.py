"""The calls of one refresh loop: when gathering ends, what a stop skips, and which rows count as unfinished."""

import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from shared.db.core.clock import DatabaseClock
from shared.db.refresh.leases import ClaimedConnection
from shared.domain.errors import Throttled
from shared.domain.schedule import Schedule
from tests.support.builders import START, grant
from tests.support.hubspot import ScriptedHubSpot, wait_for_calls
from tests.support.polling import until
from tests.support.refresh_attempts import CALL_TIMEOUT_SECONDS, CIPHER, make_claimed_row
from worker.refresh.calls import RefreshCalls
from worker.refresh.refresher import Refresher

#: Longer than any call here takes, on a busy machine too.
GATHER_SECONDS = 60.0


@pytest.fixture
def hubspot() -> Iterator[ScriptedHubSpot]:
    hubspot = ScriptedHubSpot()
    yield hubspot
    hubspot.gate.set()
    wait_for_calls()


def make_calls(hubspot: ScriptedHubSpot, concurrency: int) -> RefreshCalls:
    clock = DatabaseClock()
    clock.set(START)
    refresher = Refresher(hubspot, CIPHER, clock, Schedule(), CALL_TIMEOUT_SECONDS)  # type: ignore[arg-type]
    return RefreshCalls(refresher, concurrency)


def make_rows(count: int) -> list[ClaimedConnection]:
    return [make_claimed_row(connection_id=number) for number in range(1, count + 1)]


def test_gathering_ends_as_soon_as_no_call_is_left(hubspot: ScriptedHubSpot) -> None:
    calls, begun_at = make_calls(hubspot, concurrency=2), monotonic()
    calls.add(make_rows(5))
    attempts = calls.gather(GATHER_SECONDS)
    assert (len(attempts), len(calls.leases)) == (5, 0)
    assert monotonic() - begun_at < GATHER_SECONDS / 2


def test_gathering_takes_no_longer_than_asked_for_while_a_call_hangs(hubspot: ScriptedHubSpot) -> None:
    hubspot.gate.clear()
    calls = make_calls(hubspot, concurrency=1)
    calls.add(make_rows(1))
    assert calls.gather(0.01) == []
    assert len(calls.leases) == 1


def test_an_answer_that_asks_all_to_stop_ends_the_gathering_and_skips_the_queue_until_rows_are_added(
    hubspot: ScriptedHubSpot,
) -> None:
    hubspot.refresh_answer = Throttled("429", http_status=429)
    calls, begun_at = make_calls(hubspot, concurrency=1), monotonic()
    calls.add(make_rows(3))
    attempts = calls.gather(GATHER_SECONDS)
    assert [attempt.result is not None for attempt in attempts] == [True, False, False]
    assert monotonic() - begun_at < GATHER_SECONDS / 2
    calls.add(make_rows(1))
    until(lambda: hubspot.refreshes.total() == 2)


def test_an_answer_with_a_new_refresh_token_ends_the_gathering_although_other_calls_go_on(
    hubspot: ScriptedHubSpot,
) -> None:
    """Until it is saved only this process knows it."""
    hubspot.refresh_answer = grant(refresh_token="rotated")
    hubspot.remaining_answers = threading.Semaphore(1)
    calls, begun_at = make_calls(hubspot, concurrency=2), monotonic()
    calls.add(make_rows(2))
    assert [attempt.result is not None for attempt in calls.gather(GATHER_SECONDS)] == [True]
    assert monotonic() - begun_at < GATHER_SECONDS / 2
    hubspot.remaining_answers.release()


def test_gathering_ends_where_the_loop_is_activated_although_calls_go_on(hubspot: ScriptedHubSpot) -> None:
    hubspot.gate.clear()
    calls, begun_at = make_calls(hubspot, concurrency=1), monotonic()
    calls.add(make_rows(1))
    calls.end_gathering()
    assert calls.gather(GATHER_SECONDS) == []
    assert monotonic() - begun_at < GATHER_SECONDS / 2


def test_a_row_at_which_decryption_has_a_bug_costs_no_other_row_of_the_claim(hubspot: ScriptedHubSpot) -> None:
    calls = make_calls(hubspot, concurrency=2)
    no_text: Any = 1
    calls.add([make_claimed_row(connection_id=1, encrypted_refresh_token=no_text), *make_rows(3)[1:]])
    attempts = calls.gather(GATHER_SECONDS)
    by_id = {attempt.lease.connection_id: attempt.result is not None for attempt in attempts}
    assert by_id == {1: False, 2: True, 3: True}


def test_rows_that_wait_to_be_gathered_are_not_unfinished(hubspot: ScriptedHubSpot) -> None:
    hubspot.gate.clear()
    calls = make_calls(hubspot, concurrency=1)
    calls.add(make_rows(2))
    assert calls.count_unfinished() == 2
    hubspot.gate.set()
    until(lambda: calls.count_unfinished() == 0)
    assert len(calls.leases) == 2


def test_after_closing_rows_that_are_queued_are_not_called(hubspot: ScriptedHubSpot) -> None:
    hubspot.gate.clear()
    calls = make_calls(hubspot, concurrency=1)
    calls.add(make_rows(3))
    calls.close()
    hubspot.gate.set()
    until(lambda: calls.count_unfinished() == 0)
    assert hubspot.refreshes.total() == 1
    assert [attempt.result is not None for attempt in calls.gather(GATHER_SECONDS)] == [True, False, False]
