"""A call in a thread: its result, its error, its time limit, and how many may run at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from tests.support.polling import until
from web.server.timeouts import MAX_CALLS, TimedOut, run_in_thread, run_within

LONG_SECONDS = 60
span: ContextVar[str] = ContextVar("span", default="none")


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Calls that wait for it end at the end of the test at the latest."""
    gate = threading.Event()
    yield gate
    gate.set()


def test_the_result_of_the_call_is_returned_and_its_error_raised() -> None:
    assert run_within(LONG_SECONDS, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        run_within(LONG_SECONDS, lambda: 1 // 0)


def test_a_call_runs_with_the_context_of_its_caller() -> None:
    token = span.set("of the caller")
    assert run_within(LONG_SECONDS, span.get) == "of the caller"
    span.reset(token)


def test_a_call_that_takes_too_long_raises_and_goes_on_in_its_thread(gate: threading.Event) -> None:
    has_ended = threading.Event()

    def call() -> None:
        gate.wait()
        has_ended.set()

    with pytest.raises(TimedOut, match=r"no answer within 0\.01 s"):
        run_within(0.01, call)
    gate.set()
    assert has_ended.wait(LONG_SECONDS)


def test_a_call_beyond_the_limit_of_concurrent_calls_fails_at_once_and_a_later_one_runs(gate: threading.Event) -> None:
    running = [run_in_thread(gate.wait) for _ in range(MAX_CALLS)]
    was_called = threading.Event()
    with pytest.raises(TimedOut):
        run_within(LONG_SECONDS, was_called.set)
    assert not was_called.is_set()
    assert not any(future.done() for future in running)
    gate.set()
    assert all(future.result(LONG_SECONDS) for future in running)
    # A thread returns its slot after it has set its result.
    assert until(lambda: run_in_thread(lambda: "ran").exception(LONG_SECONDS) is None)
