"""Clients that are slow, greedy or silent, over real sockets to gunicorn: they wait without blocking other clients."""

from __future__ import annotations

import re
import runpy
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from sandbox.child_processes import ChildProcess
from tests.support.databases import Databases
from tests.support.environment import ROOT, product_environment
from tests.support.http_server import serving
from tests.support.polling import list_readable, until
from tests.support.product import Product, has_printed
from web.server.slow_client_worker import (
    CLOSE_TIMEOUT_SECONDS,
    HEADER_TIMEOUT_SECONDS,
    MAX_HEADER_BYTES,
    MAX_WAITING_PER_ADDRESS,
)

#: More than the 16 threads of both processes.
CROWD = 40
#: Before gunicorn drops the crowd's connections, so that an answer in this time did not wait for that.
ANSWER_SECONDS = HEADER_TIMEOUT_SECONDS - 2
#: Google's. gunicorn's own default is 2.
LONGEST_IDLE_SECONDS_OF_BALANCERS = 600
#: For each process; gunicorn's default is 1000, more sockets than a test may have open.
WORKER_CONNECTIONS = 400
#: For everything else; only a failing test waits this long.
SOCKET_SECONDS = 20
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
OK = b"HTTP/1.1 200 OK"
SHORT_TIMEOUT_SECONDS = 1.0
#: The time limit for a header is 10 seconds; with this configuration a test can wait for it.
SHORT_TIMEOUT_CONFIG = f"""
from web.server.slow_client_worker import SlowClientWorker

class ShortTimeoutWorker(SlowClientWorker):
    header_timeout_seconds = {SHORT_TIMEOUT_SECONDS}

def on_starting(server):
    server.worker_class = ShortTimeoutWorker
"""

#: Both time limits are far above what the test waits for.
PATIENT_SECONDS = 600.0
PATIENT_CONFIG = f"""
from web.server.slow_client_worker import SlowClientWorker

graceful_timeout = {PATIENT_SECONDS:.0f}

class PatientWorker(SlowClientWorker):
    header_timeout_seconds = {PATIENT_SECONDS}

def on_starting(server):
    server.worker_class = PatientWorker
"""

#: gunicorn hides a warning about a file that was not closed; with this configuration it is in the output.
CONFIG = f"""
import runpy
import warnings

globals().update(runpy.run_path("{ROOT / "gunicorn.conf.py"}"))
warnings.simplefilter("always", ResourceWarning)
worker_connections = {WORKER_CONNECTIONS}
"""

Connect = Callable[[bytes], socket.socket]


@pytest.fixture(scope="module")
def web(
    databases: Databases,
    redis_server: Callable[[int], str],
    simulator_process: ChildProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ChildProcess]:
    with databases.create_migrated() as database_url:
        environment = product_environment(database_url, redis_server(15), simulator_process.url)
        product = Product(environment, tmp_path_factory.mktemp("web"))
        config = product.folder / "gunicorn.conf.py"
        config.write_text(CONFIG, encoding="utf-8")
        try:
            yield product.web("--access-logfile=-", f"--config={config}")
        finally:
            product.stop()


@pytest.fixture
def connect(web: ChildProcess) -> Iterator[Connect]:
    with open_connections(web.url) as connect:
        yield connect


@contextmanager
def open_connections(url: str) -> Iterator[Connect]:
    """A function that opens a connection and sends the bytes that it is given. All are closed at the end."""
    address = urlsplit(url)
    with ExitStack() as stack:

        def connect(request: bytes) -> socket.socket:
            connection = socket.create_connection((address.hostname, address.port), timeout=SOCKET_SECONDS)
            stack.enter_context(connection).sendall(request)
            return connection

        yield connect


def read_status_line(connection: socket.socket) -> bytes:
    """Reads one whole response; empty where the server closed the connection instead."""
    response = b""
    with suppress(ConnectionResetError):
        while not is_complete(response) and (received := connection.recv(4096)):
            response += received
    return response.partition(b"\r\n")[0]


def is_complete(response: bytes) -> bool:
    header, end, body = response.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", header)
    return bool(end) and len(body) >= int(length[1] if length else 0)


def read_health_check(connect: Connect) -> bytes:
    """The status line of /healthz. Raises TimeoutError after ANSWER_SECONDS."""
    connection = connect(REQUEST + b"\r\n")
    connection.settimeout(ANSWER_SECONDS)
    return read_status_line(connection)


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"\r\n\r\n",
        b"GET / HT",
        REQUEST + b"X-Slow: ",
        REQUEST + b"X-Large: " + b"a" * 30_000,
        b"\x16\x03\x01\x02\x00",
    ],
    ids=["nothing", "empty lines", "half a line", "half a field", "a large field", "TLS"],
)
def test_clients_with_half_a_header_do_not_block_others(connect: Connect, start: bytes) -> None:
    for _ in range(CROWD):
        connect(start)
    assert read_health_check(connect) == OK


def test_clients_that_do_not_close_their_connection_do_not_block_others(connect: Connect) -> None:
    """gunicorn alone waits two seconds for each."""
    started_at = time.monotonic()
    for _ in range(CROWD):
        assert read_status_line(connect(REQUEST + b"Connection: close\r\n\r\n")) == OK
    assert time.monotonic() - started_at < CROWD * CLOSE_TIMEOUT_SECONDS / 4


@pytest.mark.parametrize("path", [b"/", b"/connections/1/refresh", b"/nowhere"])
def test_clients_that_announce_a_body_and_send_none_do_not_block_others(connect: Connect, path: bytes) -> None:
    for _ in range(CROWD):
        connect(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\nx")
    assert read_health_check(connect) == OK


def test_a_response_after_which_the_connection_is_closed_says_so(connect: Connect) -> None:
    """A proxy would otherwise send its next request on the connection."""
    connection = connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
    response = b""
    while received := connection.recv(4096):
        response += received
    assert b"\r\nconnection: close\r\n" in response.lower()


def test_clients_that_send_half_a_second_request_with_the_first_do_not_block_others(connect: Connect) -> None:
    for _ in range(CROWD):
        assert read_status_line(connect(REQUEST + b"\r\n" + REQUEST)) == OK
    assert read_health_check(connect) == OK


def test_a_header_in_pieces_is_answered_also_on_a_kept_connection(connect: Connect) -> None:
    connection = connect(REQUEST)
    assert read_health_check(connect) == OK
    connection.sendall(b"X: y\r\n\r")
    connection.sendall(b"\n")
    assert read_status_line(connection) == OK
    connection.sendall(REQUEST[:10])
    connection.sendall(REQUEST[10:] + b"\r\n")
    assert read_status_line(connection) == OK


def test_a_client_that_does_not_finish_its_header_is_dropped_in_time_and_costs_no_cpu(
    product: Product, tmp_path: Path
) -> None:
    config = tmp_path / "short_timeout.py"
    config.write_text(SHORT_TIMEOUT_CONFIG, encoding="utf-8")
    web = product.web(f"--config={config}", "--workers=1")  # which has started: another one might still do so
    workers = psutil.Process(web.pid).children()
    with open_connections(web.url) as connect:
        assert read_health_check(connect) == OK
        cpu_before, started_at = cpu_seconds(workers), time.monotonic()
        assert read_status_line(connect(REQUEST)) == b""
        assert time.monotonic() - started_at >= SHORT_TIMEOUT_SECONDS
        assert cpu_seconds(workers) - cpu_before < 0.3


def test_a_client_that_resets_its_connection_in_the_middle_of_a_header_frees_it(connect: Connect) -> None:
    """One address may hold only so many: without the release, the last of them would be refused."""
    for _ in range(3 * MAX_WAITING_PER_ADDRESS):
        reset(connect(REQUEST))
    assert until(lambda: read_health_check(connect) == OK)


def test_a_client_that_does_not_close_after_the_last_response_is_disconnected(connect: Connect) -> None:
    connection = connect(REQUEST + b"Connection: close\r\n\r\n")
    assert read_status_line(connection) == OK
    assert connection.recv(1) == b"", "the server sends no more, but still reads"
    until(lambda: is_reset(connection))


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def is_reset(connection: socket.socket) -> bool:
    try:
        connection.send(b"x")
    except (ConnectionResetError, BrokenPipeError):
        return True
    return False


def test_connections_that_wait_for_their_header_do_not_delay_the_end_of_the_server(
    product: Product, tmp_path: Path
) -> None:
    config = tmp_path / "patient.py"
    config.write_text(PATIENT_CONFIG, encoding="utf-8")
    web = product.web(f"--config={config}")
    with open_connections(web.url) as connect:
        for _ in range(4):
            connect(REQUEST)
        assert read_health_check(connect) == OK
        web.send_signal(signal.SIGTERM)
        assert web.wait(PATIENT_SECONDS / 10) == 0


def cpu_seconds(processes: list[psutil.Process]) -> float:
    return sum(process.cpu_times().user + process.cpu_times().system for process in processes)


def test_a_header_that_is_too_large_is_refused_and_ends_the_connection(connect: Connect) -> None:
    connection = connect(REQUEST + b"X: " + b"a" * MAX_HEADER_BYTES)
    assert read_status_line(connection).startswith(b"HTTP/1.1 431")
    assert connection.recv(1) == b""


@pytest.mark.parametrize("size", [9_000, 48_000])
def test_large_cookies_of_neighbouring_sites_are_accepted(connect: Connect, size: int) -> None:
    cookies = b"; ".join(b"neighbour%d=" % number + b"a" * 4000 for number in range(size // 4000))
    assert read_status_line(connect(REQUEST + b"Cookie: " + cookies + b"\r\n\r\n")) == OK


def test_a_long_link_back_from_hubspot_is_accepted(connect: Connect) -> None:
    query = b"state=x&code=" + b"c" * 6000
    assert b"400" in read_status_line(connect(b"GET /oauth/callback?" + query + b" HTTP/1.1\r\nHost: x\r\n\r\n"))


def test_kept_connections_take_no_thread_and_make_room_for_others(connect: Connect) -> None:
    """One client holds as many as both processes accept: gunicorn alone would then accept no other connection."""
    kept = [connect(REQUEST + b"\r\n") for _ in range(2 * WORKER_CONNECTIONS)]
    assert {read_status_line(connection) for connection in kept} == {OK}
    assert read_health_check(connect) == OK
    # Even where one process accepted them all, because the other one had to wait for its turn.
    assert len(kept) - len(list_readable(kept, 0)) > WORKER_CONNECTIONS / 2, "most of those that it can keep are open"


def test_a_connection_is_kept_for_longer_than_balancers_keep_it() -> None:
    assert runpy.run_path(str(ROOT / "gunicorn.conf.py"))["keepalive"] > LONGEST_IDLE_SECONDS_OF_BALANCERS


def test_one_address_cannot_hold_all_waiting_connections(connect: Connect) -> None:
    crowd = [connect(REQUEST) for _ in range(2 * MAX_WAITING_PER_ADDRESS + 20)]  # two processes
    dropped = list_readable(crowd, ANSWER_SECONDS)
    assert dropped
    assert [read_status_line(connection) for connection in dropped] == [b""] * len(dropped)
    for connection in crowd:
        connection.close()
    until(lambda: read_health_check(connect) == OK)  # the server has noticed: this address may connect again


def test_a_path_cannot_forge_a_line_of_the_access_log(web: ChildProcess, connect: Connect) -> None:
    assert b"404" in read_status_line(connect(b"GET /x%0aforged%1b[2J%22 HTTP/1.1\r\nHost: x\r\n\r\n"))
    until(lambda: '"GET /x%0Aforged%1B%5B2J%22 HTTP/1.1" 404' in web.output())
    assert "\nforged" not in web.output()


def test_a_connect_link_is_not_in_the_access_log(web: ChildProcess, connect: Connect) -> None:
    """It names the customer, and may still be used."""
    assert b"404" in read_status_line(connect(b"GET /connect/eyJhbGciOiJIUzI1NiJ9.e30.sig HTTP/1.1\r\nHost: x\r\n\r\n"))
    until(lambda: '"GET /connect/' in web.output())
    assert "eyJ" not in web.output()


def test_with_tls_in_gunicorn_itself_requests_are_answered(product: Product, certificate: Path) -> None:
    """The slow-client worker cannot read a header that is encrypted: gunicorn's own worker runs instead."""
    web = product.web(f"--certfile={certificate}", f"--keyfile={certificate}", wait=False)
    web.wait_until(has_printed("Booting worker"))
    address = web.url.replace("http:", "https:")
    assert until(lambda: requests.get(f"{address}/healthz", verify=str(certificate), timeout=60).ok)


def test_the_file_of_a_response_is_closed_also_where_the_client_resets_the_connection(web: ChildProcess) -> None:
    for _ in range(CROWD):
        reset_after_request(web.url)
    until(lambda: web.output().count("GET /static/icon.svg") >= CROWD)
    assert "unclosed file" not in web.output()


def test_the_server_of_browser_tests_closes_the_file_of_a_response_too() -> None:
    """An unclosed file fails the test, as every warning does, or another one where it is found later."""
    with serving(product_environment("postgresql://127.0.0.1:1/x", "redis://127.0.0.1:1", "http://127.0.0.1:1")) as url:
        for _ in range(CROWD):
            reset_after_request(url)
        assert requests.get(url, timeout=SOCKET_SECONDS).status_code == 200


def reset_after_request(url: str) -> None:
    """Request a static file, and reset the connection at the beginning of the response."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=SOCKET_SECONDS) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(b"GET /static/icon.svg HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(10)


@pytest.mark.parametrize("line", [b"GE(T", b"GET ", b"GET /\xff", b"GET / HTTP/9.9\r\n"])
def test_a_malformed_request_is_quoted_neither_in_the_response_nor_in_the_log(
    web: ChildProcess, connect: Connect, line: bytes
) -> None:
    """gunicorn alone quotes the line, and it may hold a code."""
    connection = connect(
        line + b" /oauth/callback?x=planted-in-a-line HTTP/1.1\r\nHost: x\r\nbad header: planted\r\n\r\n"
    )
    response = b""
    while received := connection.recv(4096):
        response += received
    assert response.startswith(b"HTTP/1.1 4")
    assert b"planted" not in response
    assert "planted" not in web.output()


@pytest.mark.parametrize("header", [b"Script_Name: /evil", b"Path_Info: /evil", b"X-Forwarded-Proto: https"])
def test_headers_of_a_proxy_are_not_trusted_even_from_this_machine(connect: Connect, header: bytes) -> None:
    assert read_status_line(connect(REQUEST + header + b"\r\n\r\n")) == OK
