"""The gunicorn worker where only a full process, a failing page or an unusual kernel leads.

tests/integration/test_slow_clients.py holds the rest, with a whole gunicorn.
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

import pytest
from gunicorn.config import Config

from tests.support.polling import list_readable, until
from web.server.slow_client_worker import FREE_CONNECTIONS, SlowClientWorker

MAX_CONNECTIONS = 2
SOCKET_SECONDS = 30.0

Connect = Callable[[], socket.socket]


class AccessLog(logging.Logger):
    def access(self, *_: object) -> None:
        """As gunicorn's own logger, which writes to the terminal."""


class FailingListener:
    def __init__(self, error_number: int) -> None:
        self._error_number = error_number

    def accept(self) -> None:
        raise OSError(self._error_number, "accept")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def worker(listener: socket.socket) -> Iterator[SlowClientWorker]:
    """Its main loop does not run: a test does what that would do."""
    config = Config()
    config.set("worker_connections", FREE_CONNECTIONS + MAX_CONNECTIONS)
    worker = SlowClientWorker(1, os.getppid(), [listener], None, 30, config, AccessLog("test"))
    worker.tpool, worker.poller = worker.get_thread_pool(), selectors.DefaultSelector()
    worker.method_queue.init()
    worker.poller.register(worker.method_queue.fileno(), selectors.EVENT_READ, worker.method_queue.run_callbacks)
    yield worker
    worker.tpool.shutdown(wait=True)
    for key in list(worker.poller.get_map().values()):
        if isinstance(key.fileobj, socket.socket):
            key.fileobj.close()
    worker.method_queue.close()
    worker.poller.close()
    worker.tmp.close()


@pytest.fixture
def connect(worker: SlowClientWorker, listener: socket.socket) -> Iterator[Connect]:
    """Opens a connection, lets the worker accept it, and returns the client's end."""
    with ExitStack() as stack:

        def connect() -> socket.socket:
            client = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=SOCKET_SECONDS))
            worker.accept(listener)
            return client

        yield connect


def handle_events(worker: SlowClientWorker) -> None:
    worker.wait_for_and_dispatch_events(0.1)


def test_a_new_connection_beyond_the_limit_replaces_the_one_that_waits_for_its_header_the_longest(
    connect: Connect, worker: SlowClientWorker
) -> None:
    clients = [connect() for _ in range(MAX_CONNECTIONS + 1)]
    assert list_readable(clients, SOCKET_SECONDS) == clients[:1]
    assert clients[0].recv(1) == b""
    assert worker.nr_conns == MAX_CONNECTIONS


@pytest.mark.parametrize("error_number", [errno.EMFILE, errno.ENFILE])
def test_where_no_file_is_left_for_a_new_connection_an_idle_one_is_closed(
    connect: Connect, worker: SlowClientWorker, error_number: int
) -> None:
    client = connect()
    worker.accept(FailingListener(error_number))
    assert client.recv(1) == b""
    assert worker.nr_conns == 0


def test_a_client_that_has_gone_before_it_is_accepted_is_no_error_and_a_broken_listener_is_one(
    worker: SlowClientWorker,
) -> None:
    worker.accept(FailingListener(errno.ECONNABORTED))
    with pytest.raises(OSError, match="accept"):
        worker.accept(FailingListener(errno.EBADF))


def test_a_connection_whose_page_failed_after_its_headers_is_counted_as_closed(
    connect: Connect, worker: SlowClientWorker
) -> None:
    """Gunicorn closes it: it cannot send an error any more."""

    def fail_in_the_body(_: object, start_response: Callable[..., object]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        yield b"1"
        raise ZeroDivisionError

    worker.wsgi = fail_in_the_body
    client = connect()
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    client.shutdown(socket.SHUT_WR)  # gunicorn waits for that
    until(lambda: handle_events(worker) or worker.nr_conns == 0)
    response = b"".join(iter(lambda: client.recv(4096), b""))
    assert response.endswith(b"\r\n\r\n1")


def test_a_socket_that_is_reported_as_readable_and_is_not_stays_open(
    connect: Connect, worker: SlowClientWorker
) -> None:
    """Linux may discard what has arrived: see the bugs in select(2)."""

    def report_all_as_readable() -> None:
        for key in list(worker.poller.get_map().values()):
            key.data(key.fileobj)

    client = connect()
    report_all_as_readable()
    assert list_readable([client], 0) == []
    client.sendall(b"malformed\r\n\r\n")
    until(lambda: handle_events(worker) or list_readable([client], 0))
    assert client.recv(4096).startswith(b"HTTP/1.1 400")
    until(lambda: handle_events(worker) or list_readable([client], 0))
    assert client.recv(1) == b"", "now the worker waits for the client to close"
    report_all_as_readable()
    assert worker.nr_conns == 1
    client.close()
    until(lambda: handle_events(worker) or worker.nr_conns == 0)
