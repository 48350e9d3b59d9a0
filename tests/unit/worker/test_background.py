"""Work in the background: bounded, and only its like waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from shared.db.core.errors import StoreUnavailable
from tests.support.polling import until
from worker.background import BackgroundWork


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Work in a test waits until it is set."""
    gate = threading.Event()
    yield gate
    gate.set()


def test_work_beyond_the_threads_and_the_queue_is_refused_until_some_has_ended(gate: threading.Event) -> None:
    work = BackgroundWork("test", threads=2, max_queued=1)
    assert [work.submit(gate.wait) for _ in range(4)] == [True, True, True, False]
    gate.set()
    until(lambda: work.submit(gate.wait))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (StoreUnavailable("no answer"), "PostgreSQL failed; a later sweep does this work"),
        (ZeroDivisionError(), "work in the background raised an exception"),
    ],
)
def test_an_exception_is_logged_and_ends_no_thread(error: Exception, line: str) -> None:
    def fail() -> None:
        raise error

    work, done = BackgroundWork("test", threads=1, max_queued=1), threading.Event()
    with capture_logs() as log:
        assert work.submit(fail)
        until(lambda: work.submit(done.set))
        assert done.wait(30)
    assert [(each["event"], each["work"]) for each in log] == [(line, "test")]


def test_after_stop_begun_work_ends_and_queued_work_is_dropped(gate: threading.Event) -> None:
    work, begun, dropped = BackgroundWork("test", threads=1, max_queued=1), threading.Event(), threading.Event()
    work.submit(lambda: begun.set() or gate.wait())
    assert begun.wait(30)
    work.submit(dropped.set)
    work.stop()
    assert not work.submit(gate.wait)
    assert not work.join(0.01), "the first one still runs"
    gate.set()
    assert work.join(30)
    assert not dropped.is_set()
