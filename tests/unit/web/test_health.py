"""/healthz asks no server; /readyz names the servers that are down, within three seconds."""

import threading
import time

import pytest

from tests.support.polling import until
from tests.unit.web.conftest import Site
from web.monitoring.health import MAX_WAITING_REQUESTS, READY_TIMEOUT_SECONDS, NotReady
from web.server.timeouts import TimedOut, run_within


def pass_check():
    return None


def fail_check():
    raise NotReady("down")


def site_with(**checks):
    return Site(checks=checks)


def test_healthz_is_200_with_every_server_down():
    site = site_with(postgres=fail_check, redis=fail_check)
    site.installs.down = site.queue.down = True
    assert site.visit("/healthz").status_code == 200
    assert site.installs.asked == 0


def test_readyz_is_200_when_both_servers_answer():
    response = site_with(postgres=pass_check, redis=pass_check).visit("/readyz")
    assert response.status_code == 200
    assert response.get_json() == {"postgres": "ok", "redis": "ok"}


@pytest.mark.parametrize("name", ["postgres", "redis"])
def test_readyz_names_the_server_that_is_down(name):
    response = site_with(**{"postgres": pass_check, "redis": pass_check, name: fail_check}).visit("/readyz")
    assert response.status_code == 503
    assert response.get_json()[name] == "down"
    assert "ok" in response.get_json().values()


def test_readyz_names_servers_that_hang_within_three_seconds():
    release = threading.Event()
    site = Site(checks={"postgres": release.wait, "redis": release.wait}, readiness_seconds=READY_TIMEOUT_SECONDS)
    started_at = time.monotonic()
    response = site.visit("/readyz")
    release.set()
    assert time.monotonic() - started_at < 3 + 27, "a busy machine may add 27 s"
    assert response.get_json() == {"postgres": "no answer", "redis": "no answer"}


def test_while_the_servers_hang_more_requests_are_answered_at_once_with_the_latest_result():
    release, runs = threading.Event(), []
    site = site_with(postgres=lambda: runs.append(None) or release.wait(60))
    pages = [threading.Thread(target=site.other_browser().visit, args=["/readyz"]) for _ in range(MAX_WAITING_REQUESTS)]
    for page in pages:
        page.start()
    waiting = site.app.view_functions["readyz"].__self__._waiting
    until(lambda: runs and waiting._value == 0)
    assert [site.visit("/readyz").status_code for _ in range(5)] == [503] * 5
    release.set()
    for page in pages:
        page.join(30)
    assert len(runs) <= MAX_WAITING_REQUESTS


def test_run_within_returns_and_raises_what_the_call_does():
    assert run_within(60, lambda: 42) == 42
    with pytest.raises(NotReady):
        run_within(60, fail_check)


def test_run_within_raises_timed_out_after_the_limit():
    release = threading.Event()
    with pytest.raises(TimedOut):
        run_within(0.01, release.wait)
    release.set()
