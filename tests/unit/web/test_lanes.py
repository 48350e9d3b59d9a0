"""A request that waits for another server takes no thread from those that do not."""

import threading

import pytest

from tests.support.polling import until
from web.server.lanes import DATABASE_THREADS, EXCHANGE_THREADS, Lane, Lanes, choose_lane


@pytest.mark.parametrize(
    ("target", "lane"),
    [
        (b"/", Lane.QUICK),
        (b"/healthz", Lane.QUICK),
        (b"/install?hub_id=1", Lane.QUICK),
        (b"/static/style.css", Lane.QUICK),
        (b"/oauth/callback?code=x&state=y", Lane.EXCHANGE),
        (b"/oauth/callback/", Lane.EXCHANGE),
        (b"/a/prefix/oauth/callback?code=x", Lane.EXCHANGE),
        (b"/oauth/%63allback?code=x", Lane.EXCHANGE),
        (b"http://a.host/oauth/callback?code=x", Lane.EXCHANGE),
        (b"/?/oauth/callback", Lane.QUICK),
        (b"/installs/6e9d9c4e-0000-4000-8000-000000000000/status", Lane.DATABASE),
        (b"/connections/1", Lane.DATABASE),
        (b"/connect/a.b.c", Lane.DATABASE),
        (b"/prefix/marketplace?step=finalize&code=x", Lane.EXCHANGE),
        (b"/marketplace/sales", Lane.EXCHANGE),
        (b"/a/operator", Lane.DATABASE),
        (b"/metrics", Lane.DATABASE),
        (b"/readyz", Lane.DATABASE),
        (b"", Lane.QUICK),
        (b"\xff\xfe", Lane.QUICK),
    ],
)
def test_a_request_gets_the_lane_of_its_path(target, lane):
    assert choose_lane(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n") is lane


@pytest.mark.parametrize("head", [b"", b"\r\n\r\n", b"GET", b"GET \r\n", b"GET /oauth/callback"])
def test_any_bytes_get_a_lane(head):
    assert choose_lane(head) in Lane


@pytest.fixture
def lanes():
    lanes = Lanes(2)
    yield lanes
    lanes.shutdown(wait=True)


@pytest.fixture
def blocker():
    """Calls wait for it until the test has ended."""
    blocker = threading.Event()
    yield blocker
    blocker.set()


def test_blocked_exchanges_and_queries_leave_quick_pages_their_threads(lanes, blocker):
    for lane, threads in ((Lane.EXCHANGE, EXCHANGE_THREADS), (Lane.DATABASE, DATABASE_THREADS)):
        for _ in range(threads + 1):
            lanes.submit(blocker.wait, 60, lane=lane)
    assert lanes.submit(lambda: "answered").result(30) == "answered"
    blocker.set()


def test_a_callback_that_is_queued_for_long_is_answered_by_a_quick_thread(blocker):
    lanes = Lanes(2, max_queue_seconds=0.0)
    for _ in range(EXCHANGE_THREADS):
        lanes.submit(blocker.wait, 60, lane=Lane.EXCHANGE)
    queued = lanes.submit(lambda: "answered", lane=Lane.EXCHANGE)
    failing = lanes.submit(lambda: 1 / 0, lane=Lane.EXCHANGE)
    assert until(lambda: lanes.release_stalled() or queued.done())
    assert queued.result() == "answered"
    with pytest.raises(ZeroDivisionError):
        failing.result(30)
    blocker.set()
    lanes.shutdown(wait=True)


def test_a_callback_that_is_queued_for_a_moment_keeps_its_place(lanes, blocker):
    for _ in range(EXCHANGE_THREADS):
        lanes.submit(blocker.wait, 60, lane=Lane.EXCHANGE)
    queued = lanes.submit(lambda: "answered", lane=Lane.EXCHANGE)
    lanes.release_stalled()
    blocker.set()
    assert queued.result(30) == "answered"
