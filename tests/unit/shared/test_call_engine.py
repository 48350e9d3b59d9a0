"""The thread of HTTP calls: what it survives, and how calls end that it cannot make."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from time import monotonic, process_time
from typing import Any

import pytest
from structlog.testing import capture_logs

from sandbox.ports import find_free_port
from shared.net.call_engine import MANY_CALLS, CallEngine
from shared.net.http_call import Endpoint, HttpReply
from tests.support.polling import until
from tests.support.raw_http_server import RawServer, http, replies, sends, serving, stays_silent


@pytest.fixture
def engine() -> Iterator[CallEngine]:
    engine = CallEngine(max_idle_connections=1)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def server() -> Iterator[RawServer]:
    with serving(sends(http(200))) as server:
        yield server


def in_a_minute() -> float:
    return monotonic() + 60.0


def test_a_request_that_cannot_be_sent_ends_with_an_error_and_others_are_sent(
    engine: CallEngine, server: RawServer
) -> None:
    malformed = Endpoint("GET", server.url, headers=("X-Forged: 1\r\nX-Other: 2",))
    assert engine.call(malformed, ends_at=in_a_minute()).failure == "malformed_request"
    assert engine.call(Endpoint("GET", server.url), ends_at=in_a_minute()).http_status == 200


def test_a_bug_in_the_handling_of_a_reply_is_logged_and_does_not_end_the_thread(
    engine: CallEngine, server: RawServer
) -> None:
    def fail(_: HttpReply) -> None:
        raise KeyError("a bug")

    with capture_logs() as log:
        engine.submit(Endpoint("GET", server.url), None, in_a_minute(), fail)
        assert engine.call(Endpoint("GET", server.url), ends_at=in_a_minute()).http_status == 200
    assert [line["event"] for line in log] == ["handling a reply raised an exception"]


def test_a_bug_in_the_thread_of_calls_ends_those_in_flight_and_later_ones_are_made(
    engine: CallEngine, server: RawServer
) -> None:
    no_text: Any = 1
    received: list[HttpReply] = []
    with serving(stays_silent) as silent, capture_logs() as log:
        engine.submit(Endpoint("GET", silent.url), None, in_a_minute(), received.append)
        reply = engine.call(Endpoint("GET", server.url, headers=(no_text,)), ends_at=in_a_minute())
        later = engine.call(Endpoint("GET", server.url), ends_at=in_a_minute())
    assert [each.failure for each in (*received, reply)] == ["closed", "closed"]
    assert later.http_status == 200
    assert [line["event"] for line in log] == ["the thread of calls raised an exception; calls in flight are ended"]


def test_a_kept_connection_is_watched_for_one_call_after_the_other_and_while_it_is_idle(server: RawServer) -> None:
    engine, before = CallEngine(max_idle_connections=1), server.connections
    for _ in range(5):
        assert engine.call(Endpoint("GET", server.url), ends_at=in_a_minute()).http_status == 200
    engine.close()
    assert server.connections == before + 1


def test_a_descriptor_that_another_connection_or_a_resolver_has_had_is_watched_again(engine: CallEngine) -> None:
    """Each reply closes its connection, and a name needs descriptors of its own."""
    with serving(replies(200)) as closing:
        for host in ("127.0.0.1", "localhost") * 10:
            url = f"http://{host}:{closing.port}"
            assert engine.call(Endpoint("GET", url), ends_at=in_a_minute()).http_status == 200
    assert closing.connections == 20


def test_a_server_that_closes_idle_connections_costs_no_call_and_no_turns(engine: CallEngine) -> None:
    """Otherwise the thread would be woken by the closed connection again and again."""
    is_to_close = threading.Event()

    def close_later(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(http(200))
        is_to_close.wait(60)
        return False

    with serving(close_later) as closing:
        for _ in range(3):
            assert engine.call(Endpoint("GET", closing.url), ends_at=in_a_minute()).http_status == 200
            is_to_close.set()
            assert closing.hung_up.wait(60)
            before = process_time()
            closing.stopping.wait(0.1)
            assert process_time() - before < 0.05
            is_to_close.clear()
            closing.hung_up.clear()


def test_of_many_calls_in_flight_each_ends_at_its_deadline_and_others_are_answered_meanwhile(
    engine: CallEngine, server: RawServer
) -> None:
    received: list[HttpReply] = []
    closed_url = f"http://127.0.0.1:{find_free_port()}"
    with serving(stays_silent) as silent:
        deadline = monotonic() + 2.0
        for _ in range(MANY_CALLS + 20):
            engine.submit(Endpoint("GET", silent.url), None, deadline, received.append)
        assert engine.call(Endpoint("GET", server.url), ends_at=in_a_minute()).http_status == 200
        assert engine.call(Endpoint("GET", closed_url), ends_at=in_a_minute()).failure == "connection"
        until(lambda: len(received) == MANY_CALLS + 20)
    assert {reply.failure for reply in received} == {"timeout"}


def test_a_body_that_grows_beyond_its_limit_ends_the_call(engine: CallEngine) -> None:
    chunks = b"".join(b"400\r\n" + b"x" * 0x400 + b"\r\n" for _ in range(8))
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    with serving(sends(endless)) as server:
        reply = engine.call(Endpoint("GET", server.url, max_reply_bytes=0x800), ends_at=in_a_minute())
    assert (reply.http_status, reply.failure) == (200, "too_large")
