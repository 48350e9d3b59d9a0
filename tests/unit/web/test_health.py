"""Liveness touches nothing; readiness names what is down, in time."""

import threading
import time

import pytest

from tests.unit.web.conftest import Site
from web.monitoring.health import NotReady
from web.server.timeouts import TimedOut, run_within


def fine():
    return None


def down():
    raise NotReady("down")


def site_with(**checks):
    return Site(checks=checks)


def test_a_living_process_is_healthy_whatever_is_down():
    site = site_with(postgres=down, redis=down)
    site.installs.down = site.queue.down = True
    assert site.visit("/healthz").status_code == 200
    assert site.installs.asked == 0


def test_ready_is_when_both_are():
    answer = site_with(postgres=fine, redis=fine).visit("/readyz")
    assert answer.status_code == 200
    assert answer.get_json() == {"postgres": "ok", "redis": "ok"}


@pytest.mark.parametrize("name", ["postgres", "redis"])
def test_whatever_is_down_is_named(name):
    answer = site_with(**{"postgres": fine, "redis": fine, name: down}).visit("/readyz")
    assert answer.status_code == 503
    assert answer.get_json()[name] == "down"
    assert "ok" in answer.get_json().values()


def test_servers_that_accept_and_hang_are_named_within_three_seconds():
    released = threading.Event()
    site = site_with(postgres=released.wait, redis=released.wait)
    began = time.monotonic()
    answer = site.visit("/readyz")
    released.set()
    assert time.monotonic() - began < 3
    assert answer.get_json() == {"postgres": "no answer", "redis": "no answer"}


def test_a_bounded_question_hands_on_what_the_call_returns_or_raises():
    assert run_within(1, lambda: 42) == 42
    with pytest.raises(NotReady):
        run_within(1, down)


def test_a_bounded_question_ends_in_time():
    released = threading.Event()
    with pytest.raises(TimedOut):
        run_within(0.01, released.wait)
    released.set()
