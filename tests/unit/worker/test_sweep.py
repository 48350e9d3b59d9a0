"""The sweep, and the thread that begins it, where PostgreSQL fails or the code has a bug."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from celery import Celery
from structlog.testing import capture_logs

from shared import dispatch
from shared.db.core.errors import StoreUnavailable
from shared.settings import Settings
from tests.support.environment import product_environment
from worker.services import Services
from worker.sweep import sweep
from worker.sweeper import Sweeper
from worker.tasks import register


@pytest.fixture
def services() -> Iterator[Services]:
    """Without PostgreSQL."""
    services = Services.build(
        Settings.from_env(
            product_environment("postgresql://user@127.0.0.1:1/database", "redis://127.0.0.1:1", "http://127.0.0.1:1")
        )
    )
    yield services
    services.engine.dispose()


def test_an_app_whose_sweep_cannot_begin_is_logged_and_where_none_begins_the_error_is_raised(
    services: Services,
) -> None:
    (app,) = services.apps.values()
    with capture_logs() as log, pytest.raises(StoreUnavailable, match="connection refused"):
        sweep(services, [app, app], is_from_beat=True)
    assert [line["event"] for line in log] == ["the sweep of one app cannot begin; the next one tries again"] * 2
    with capture_logs() as log, pytest.raises(StoreUnavailable):
        sweep(services, [app, app], is_from_beat=True, max_begin_seconds=0.0)
    assert len(log) == 1, "that took too long already: the others do not wait longer"


def test_a_disconnect_that_meets_a_failure_of_postgresql_is_left_to_a_later_sweep() -> None:
    def fail() -> Services:
        raise StoreUnavailable("no answer")

    app = Celery("test", set_as_current=False)
    register(app, fail, fail)  # type: ignore[arg-type]  # no sweeper is asked for
    with capture_logs() as log:
        app.tasks[dispatch.DISCONNECT](7)
    assert [(line["log_level"], line["connection_id"]) for line in log] == [("warning", 7)]


def test_a_bug_in_a_sweep_is_logged_and_the_thread_goes_on() -> None:
    is_second = threading.Event()
    calls = 0

    def fail() -> Services:
        nonlocal calls
        calls += 1
        if calls == 2:
            is_second.set()
        raise ZeroDivisionError

    sweeper = Sweeper(fail, 0.01, lambda: None)
    with capture_logs() as log:
        sweeper.start()
        assert is_second.wait(30)
        sweeper.stop()
        sweeper._thread.join(60)  # otherwise it could log in a later test
    assert log[0]["event"] == "a sweep raised an exception"
