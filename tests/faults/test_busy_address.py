"""Strangers send invented codes: they wait, while every other page is answered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from sandbox.child_processes import ChildProcess
from tests.support import raw_http_server
from tests.support.databases import Databases
from tests.support.environment import product_environment
from tests.support.polling import until
from tests.support.product import Product
from web.oauth.exchange_limits import MAX_EXCHANGES, REJECTED_CODE_RATE

PROCESSES = 2
#: More than all threads of both processes.
CROWD = 50
#: HubSpot's answer to an invented code comes later than this: a page in this time did not wait for it.
PAGE_SECONDS = 60
GOOD_CODE = "a-code-of-hubspot"
REJECTED = raw_http_server.http(400, {"status": "BAD_AUTH_CODE", "message": "missing or unknown auth code"})


@dataclass
class SlowHubSpot:
    """Accepts the good code at once, and rejects every other one when `answers` is set."""

    answers: threading.Event = field(default_factory=threading.Event)
    rejected: list[bytes] = field(default_factory=list)
    asked: list[bytes] = field(default_factory=list)

    def __call__(self, connection: socket, request: bytes) -> bool:
        if GOOD_CODE.encode() in request:
            connection.sendall(raw_http_server.http(200, raw_http_server.GRANT))
            return True
        self.asked.append(request)
        self.answers.wait(10 * PAGE_SECONDS)
        self.rejected.append(request)
        connection.sendall(REJECTED)
        return True


class Stranger:
    """A browser behind the proxy, at an address of its own. The proxy writes the client's port, too."""

    def __init__(self, url: str, address: str) -> None:
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["X-Forwarded-For"] = address
        self.url = url

    def get(self, path: str) -> requests.Response:
        return self.session.get(f"{self.url}{path}", allow_redirects=False, timeout=PAGE_SECONDS)

    def send_code(self, code: str) -> requests.Response:
        """A whole handshake, as far as web can tell."""
        state = parse_qs(urlsplit(self.get("/install").headers["Location"]).query)["state"][0]
        return self.get(f"/oauth/callback?code={code}&state={state}")


@pytest.fixture
def hubspot() -> Iterator[SlowHubSpot]:
    hubspot = SlowHubSpot()
    yield hubspot
    hubspot.answers.set()


@pytest.fixture
def web(
    databases: Databases, redis_server: Callable[[int], str], hubspot: SlowHubSpot, tmp_path: Path
) -> Iterator[ChildProcess]:
    with databases.create_migrated() as database_url, raw_http_server.serving(hubspot) as server:
        environment = product_environment(
            database_url,
            redis_server(15),
            server.url,
            HTTP_TIMEOUT_SECONDS=str(20 * PAGE_SECONDS),
            LEASE_SECONDS=str(50 * PAGE_SECONDS),
            TRUSTED_PROXIES="1",
        )
        product = Product(environment, tmp_path)
        try:
            yield product.web()
        finally:
            hubspot.answers.set()  # before the server is stopped
            product.stop()


def fill_exchanges(url: str, hubspot: SlowHubSpot, addresses: Callable[[int], str]) -> list[threading.Thread]:
    """Threads that send an invented code each: the crowd, then more until all possible exchanges are in flight."""
    threads: list[threading.Thread] = []

    def send_one_more() -> None:
        number = len(threads)
        stranger = Stranger(url, addresses(number))
        threads.append(threading.Thread(target=stranger.send_code, args=[f"invented-{number}"]))
        threads[-1].start()

    for _ in range(CROWD):
        send_one_more()
    until(lambda: len(hubspot.asked) == PROCESSES * MAX_EXCHANGES or send_one_more())
    return threads


def are_pages_answered(stranger: Stranger) -> bool:
    statuses = [stranger.get(path).status_code for path in ("/healthz", "/", "/readyz", "/install", "/operator")]
    return statuses == [200, 200, 200, 302, 401]


def test_one_address_that_sends_invented_codes_blocks_no_other(web: ChildProcess, hubspot: SlowHubSpot) -> None:
    other = Stranger(web.url, "192.0.2.7:40000")
    assert are_pages_answered(other)
    senders = fill_exchanges(web.url, hubspot, lambda number: f"198.51.100.1:{40_000 + number}")

    assert are_pages_answered(other)
    assert not hubspot.rejected, "HubSpot has answered nothing yet"

    hubspot.answers.set()
    for sender in senders:
        sender.join()
    assert len(hubspot.asked) <= PROCESSES * (REJECTED_CODE_RATE.burst + MAX_EXCHANGES)
    assert other.send_code(GOOD_CODE).status_code == 303


def test_a_crowd_that_sends_invented_codes_delays_installs_alone(web: ChildProcess, hubspot: SlowHubSpot) -> None:
    other = Stranger(web.url, "2001:db8:1::7")
    senders = fill_exchanges(web.url, hubspot, lambda number: f"[2001:db8:{number + 2:x}::1]:40000")

    assert are_pages_answered(other)
    waiting = other.send_code(GOOD_CODE)
    assert waiting.status_code == 503
    assert int(waiting.headers["Refresh"]) >= 1
    assert GOOD_CODE not in waiting.text + str(waiting.headers)
    assert not hubspot.rejected, "HubSpot has answered nothing yet"

    hubspot.answers.set()
    assert until(lambda: other.get(waiting.request.path_url).status_code == 303)
    for sender in senders:
        sender.join()
