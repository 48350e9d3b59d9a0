"""Clients that are slow, greedy or silent, over real sockets: they wait at the door, and hold up nobody."""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from sandbox.child_processes import ChildProcess
from tests.support.databases import Databases
from tests.support.environment import product_environment
from tests.support.polling import until
from tests.support.product import Product, has_printed
from web.server.slow_client_worker import HEAD_SECONDS, MOST_OF_ONE_ADDRESS

#: More than the 16 threads of both processes.
CROWD = 40
ASK = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"

Opened = Callable[[bytes], socket.socket]


@pytest.fixture(scope="module")
def web(
    databases: Databases,
    redis_server: Callable[[int], str],
    simulator_process: ChildProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ChildProcess]:
    with databases.migrated() as database_url:
        environment = product_environment(database_url, redis_server(15), simulator_process.url)
        product = Product(environment, tmp_path_factory.mktemp("door"))
        try:
            yield product.web(GUNICORN_CMD_ARGS="--access-logfile=-")
        finally:
            product.stop()


@pytest.fixture
def opened(web: ChildProcess) -> Iterator[Opened]:
    """A connection that has sent so much."""
    address = urlsplit(web.url)
    with ExitStack() as stack:

        def connect(sent: bytes) -> socket.socket:
            made = stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=20))
            made.sendall(sent)
            return made

        yield connect


def answered(connection: socket.socket) -> bytes:
    """The first line of an answer, which is read whole; empty where it was hung up on."""
    said = b""
    with suppress(ConnectionResetError):
        while not whole(said) and (more := connection.recv(4096)):
            said += more
    return said.partition(b"\r\n")[0]


def whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return bool(end) and len(body) >= int(length[1] if length else 0)


def soon_answered(opened: Opened) -> float:
    """Seconds until the health check answers."""
    begun = time.monotonic()
    assert answered(opened(ASK + b"\r\n")) == b"HTTP/1.1 200 OK"
    return time.monotonic() - begun


@pytest.mark.parametrize(
    "start",
    [b"", b"\r\n\r\n", b"GET / HT", ASK + b"X-Slow: ", ASK + b"X-Large: " + b"a" * 30_000, b"\x16\x03\x01\x02\x00"],
)
def test_a_crowd_with_half_a_head_holds_up_nobody(opened: Opened, start: bytes) -> None:
    for _ in range(CROWD):
        opened(start)
    assert soon_answered(opened) < 2


def test_nor_do_clients_that_never_say_goodbye(opened: Opened) -> None:
    begun = time.monotonic()
    for _ in range(CROWD):
        assert answered(opened(ASK + b"Connection: close\r\n\r\n")) == b"HTTP/1.1 200 OK"
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("path", [b"/", b"/connections/1/refresh", b"/nowhere"])
def test_nor_those_who_announce_a_body_and_send_none(opened: Opened, path: bytes) -> None:
    for _ in range(CROWD):
        opened(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\nx")
    assert soon_answered(opened) < 2


def test_nor_a_second_request_that_is_half_there_with_the_first(opened: Opened) -> None:
    for _ in range(CROWD):
        assert answered(opened(ASK + b"\r\n" + ASK)) == b"HTTP/1.1 200 OK"
    assert soon_answered(opened) < 2


def test_a_head_in_pieces_is_answered_and_the_wait_costs_no_cpu(web: ChildProcess, opened: Opened) -> None:
    connection = opened(ASK)
    workers = psutil.Process(web.pid).children()
    before = sum(each.cpu_times().user + each.cpu_times().system for each in workers)
    time.sleep(1)
    assert sum(each.cpu_times().user + each.cpu_times().system for each in workers) - before < 0.3
    connection.sendall(b"X: y\r\n\r")
    connection.sendall(b"\n")
    assert answered(connection) == b"HTTP/1.1 200 OK"
    connection.sendall(ASK[:10])
    connection.sendall(ASK[10:] + b"\r\n")
    assert answered(connection) == b"HTTP/1.1 200 OK"


def test_who_is_too_slow_or_talks_too_much_is_hung_up_on(opened: Opened) -> None:
    greedy = opened(ASK + b"X: " + b"a" * 70_000)
    assert answered(greedy) == b""
    slow, begun = opened(ASK), time.monotonic()
    assert answered(slow) == b""
    assert HEAD_SECONDS - 1 < time.monotonic() - begun < HEAD_SECONDS + 3


def test_one_address_does_not_fill_the_doorway(opened: Opened) -> None:
    crowd = [opened(ASK) for _ in range(2 * MOST_OF_ONE_ADDRESS + 20)]  # two processes
    readable, _, _ = select.select(crowd, [], [], 5)
    assert readable
    assert [answered(connection) for connection in readable] == [b""] * len(readable)


def test_a_path_forges_no_line_of_the_access_log(web: ChildProcess, opened: Opened) -> None:
    assert b"404" in answered(opened(b"GET /x%0aforged%1b[2J%22 HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert soon_answered(opened) < 2
    assert '"GET /x%0Aforged%1B%5B2J%22 HTTP/1.1" 404' in web.output()
    assert "\nforged" not in web.output()


def test_where_gunicorn_speaks_tls_itself_the_doorman_stands_aside(product: Product, certificate: Path) -> None:
    """He would wait for words that he could read."""
    web = product.web(wait=False, GUNICORN_CMD_ARGS=f"--certfile={certificate} --keyfile={certificate}")
    web.wait_until(has_printed("Booting worker"))
    address = web.url.replace("http:", "https:")
    assert until(lambda: requests.get(f"{address}/healthz", verify=str(certificate), timeout=5).ok)


@pytest.mark.parametrize("line", [b"GE(T", b"GET ", b"GET /\xff", b"GET / HTTP/9.9\r\n"])
def test_what_makes_no_sense_is_said_back_to_nobody(web: ChildProcess, opened: Opened, line: bytes) -> None:
    """gunicorn would quote the line, and there may be a code in it."""
    connection = opened(
        line + b" /oauth/callback?x=planted-in-a-line HTTP/1.1\r\nHost: x\r\nbad header: planted\r\n\r\n"
    )
    answer = b""
    while piece := connection.recv(4096):
        answer += piece
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"planted" not in answer
    assert "planted" not in web.output()


@pytest.mark.parametrize("header", [b"Script_Name: /evil", b"Path_Info: /evil", b"X-Forwarded-Proto: https"])
def test_no_header_moves_us_elsewhere_not_even_from_this_machine(opened: Opened, header: bytes) -> None:
    assert answered(opened(ASK + header + b"\r\n\r\n")) == b"HTTP/1.1 200 OK"
