"""Random requests to web: none is a server error, and no response or log line contains a secret.

A part runs with all tests; `make fuzz` sends FUZZ_REQUESTS to the application, and a tenth of them over sockets to
gunicorn.
"""

from __future__ import annotations

import base64
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import jwt
import pytest
from cryptography.fernet import Fernet
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder, run_wsgi_app

from sandbox.child_processes import ChildProcess
from shared.db.lifecycle.installs import NewInstall
from shared.settings import Settings
from shared.token_cipher import TokenCipher
from tests.security.audit import LINK_KEY, MARKED
from tests.security.marked_simulator import run_marked_simulator
from tests.security.markers import Mark, Search, new_mark
from tests.security.random_requests import FAMOUS, RandomRequests, Visit, latin, well_made
from tests.support.builders import HUB
from tests.support.databases import Databases
from tests.support.environment import product_environment
from tests.support.product import Product
from tests.support.stores import SCHEDULE
from web.app import create_app
from web.oauth.marketplace.state import MarketplaceStates
from web.startup import make_services

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "2200"))
#: Without a fixed seed: each run tries other claims, and prints those that fail.
FUZZ = settings(
    max_examples=max(REQUESTS // 8, 100),
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
PATHS = [
    "/",
    "/install",
    "/oauth/callback",
    "/installs/6e9d9c4e-0000-4000-8000-000000000000",
    "/installs/6e9d9c4e-0000-4000-8000-000000000000/status",
    "/operator",
    "/operator/revocations/confirm",
    "/operator/revocations/dismiss",
    "/connections",
    f"/connections/{HUB}",
    f"/connections/{HUB}/refresh",
    f"/connections/{HUB}/disconnect",
    "/metrics",
    "/healthz",
    "/readyz",
    "/static/style.css",
    "/static/live.js",
    "/nowhere",
]
PRODUCT = "https://product.example"
#: gunicorn's answers to a protocol that it does not support.
UNSUPPORTED_STATUSES = {"501", "505"}


@dataclass
class Target:
    app: Flask
    environment: dict[str, str]
    search: Search
    valid_values: dict[str, str]
    paths: list[str]
    link_key: str


@pytest.fixture(scope="module")
def target(databases: Databases, redis_server: Callable[[int], str]) -> Iterator[Target]:
    marks = {kind: new_mark(kind) for kind in MARKED}
    access, refresh, code = (marks[kind] for kind in MARKED[:3])
    with (
        databases.create_migrated() as database_url,
        run_marked_simulator(access, refresh, code, f"client-{marks['client secret'].text}") as hubspot,
    ):
        environment = product_environment(
            database_url, redis_server(15), hubspot.base_url, **_make_marked_settings(marks)
        )
        product_settings = Settings.from_env(environment)
        services = make_services(product_settings)
        services.installs.add(
            NewInstall(
                hub_id=HUB,
                granted_at=services.clock(),
                encrypted_refresh_token=TokenCipher(product_settings.token_keys).encrypt_refresh_token(
                    HUB, f"na1-{refresh.text}"
                ),
                due_at=SCHEDULE.due_at,
                install_id="6e9d9c4e-0000-4000-8000-000000000001",
                access_token=f"CI{access.text}",
                expires_in=1800,
                scopes=("oauth",),
            )
        )
        app = create_app(services)
        valid_values, paths = _collect_valid_values(app, hubspot.allow, environment["OPERATOR_PASSWORD"])
        link = valid_values["link"] = _make_link(_make_link_key(marks))
        valid_values["marketplace_state"] = MarketplaceStates(services.cipher, services.secret_key).issue(
            "default", None, None, services.clock()
        )
        paths = [*paths, f"/connect/{link}", "/marketplace", "/marketplace/default"]
        search = Search(marks.values())
        yield Target(app, environment, search, valid_values, [*PATHS, *paths], _make_link_key(marks))


def _make_marked_settings(marks: dict[str, Mark]) -> dict[str, str]:
    key = Fernet.generate_key().decode()
    return {
        "HUBSPOT_CLIENT_SECRET": f"client-{marks['client secret'].text}",
        "TOKEN_KEYS": f"{key[:8]}{marks['token key'].text}{key[16:]}",
        "SECRET_KEY": f"secret-key-{marks['secret key'].text}",
        "OPERATOR_PASSWORD": f"password-{marks[MARKED[6]].text}",
        "ALERT_WEBHOOK_SECRET": f"whsec_{'A' * 24}{marks[MARKED[7]].text}",
        "CONNECT_LINK_KEYS": _make_link_key(marks),
        "RETURN_TO_ORIGINS": PRODUCT,
        "MARKETPLACE_SIGN_IN_URL": f"{PRODUCT}/sign-in",
        "ALERT_WEBHOOK_URL": f"http://127.0.0.1:1/{marks[MARKED[8]].text}",
    }


def _make_link_key(marks: dict[str, Mark]) -> str:
    return f"key-of-connect-links-of-the-test-{marks[LINK_KEY].text}"


def _make_link(key: str, **claims: Any) -> str:
    content = {"customer": "acme", "exp": int(time.time()) + 3000, "jti": "link-1", "return_to": f"{PRODUCT}/done"}
    return jwt.encode(content | claims, key, algorithm="HS256")


def _collect_valid_values(
    app: Flask, allow: Callable[[str, int], str], password: str
) -> tuple[dict[str, str], list[str]]:
    """Parameters and cookies of a successful handshake and a CSRF token; the paths of the install's page."""
    browser = app.test_client()
    parameters = parse_qs(urlsplit(allow(browser.get("/install").headers["Location"], HUB)).query)
    values_by_name = {name: values[0] for name, values in parameters.items()}
    response = browser.get("/oauth/callback", query_string=values_by_name)
    assert response.status_code == 303
    page = browser.get(f"/connections/{HUB}", auth=("operator", password)).text
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert token
    values_by_name["csrf_token"] = token[1]
    values_by_name |= {cookie.key: cookie.value for cookie in browser._cookies.values()}
    path = response.headers["Location"]
    return values_by_name, [path, f"{path}/status"]


_addresses = count()


def _send(target: Target, visit: Visit) -> tuple[int, bytes]:
    """Send each request from another address, because the rate limit refuses more than a hundred of one address."""
    environ = EnvironBuilder(method=visit.method, data=visit.body).get_environ()
    address = socket.inet_ntoa((0x0A000000 + next(_addresses)).to_bytes(4, "big"))
    environ |= {"PATH_INFO": visit.path, "QUERY_STRING": visit.query, "REMOTE_ADDR": address}
    for name, value in visit.headers:
        key = name.upper().replace("-", "_")
        environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    if visit.signed_in:
        login = f"operator:{target.environment['OPERATOR_PASSWORD']}".encode()
        environ["HTTP_AUTHORIZATION"] = f"Basic {base64.b64encode(login).decode()}"
    body, status, headers = run_wsgi_app(target.app, environ, buffered=True)
    return int(status[:3]), f"{headers}\n".encode() + b"".join(body)


def make_random_requests(target: Target) -> tuple[int, RandomRequests]:
    """The seed, which repeats them, and the requests. Each run tries others."""
    seed = time.time_ns()
    return seed, RandomRequests(Random(seed), target.paths, target.valid_values)


@pytest.mark.timeout(3000)
def test_no_request_is_a_server_error_or_returns_a_secret(target: Target) -> None:
    seed, requests = make_random_requests(target)
    statuses: Counter[int] = Counter()
    for visit in well_made(target.valid_values):  # to be sure that some requests pass all checks
        assert _send(target, visit)[0] == 303, visit
    for visit in (requests.make() for _ in range(REQUESTS)):
        status, content = _send(target, visit)
        statuses[status] += 1
        assert status < 500, (seed, visit)
        assert not target.search.find("response", content), (seed, visit)
    assert {200, 404, 405} <= statuses.keys(), statuses


CLAIMS = ("customer", "exp", "jti", "name", "return_to", "hub_id", "app", "scopes", "move", "nbf", "iat", "crit", "x")
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(FAMOUS)
    | st.text(max_size=250)
    | st.sampled_from((f"{PRODUCT}/x?status=a#b", "https://evil.example/", "default", "link-1")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.timeout(3000)
def test_no_claim_of_a_genuine_link_is_a_server_error_or_returns_a_secret(target: Target) -> None:
    statuses: dict[int, int] = {}

    @FUZZ
    @given(st.dictionaries(st.sampled_from(CLAIMS), JSON_VALUES, max_size=4), st.booleans())
    def fuzz(claims: dict[str, Any], in_marketplace: bool) -> None:
        link = _make_link(target.link_key, **claims)
        query = f"step=authorize&returnUrl=https://app.hubspot.com/&link={link}" if in_marketplace else ""
        path = "/marketplace" if in_marketplace else f"/connect/{link}"
        status, content = _send(target, Visit("GET", path, query, [], b""))
        statuses[status] = statuses.get(status, 0) + 1
        assert status < 500, claims
        assert not target.search.find("response", content), claims
        assert b'href="https://evil' not in content

    fuzz()
    assert {200, 400} <= statuses.keys(), statuses


def serialize(visit: Visit) -> bytes:
    address = quote(visit.path, safe="/%") + (f"?{visit.query}" if visit.query else "")
    lines = [f"{visit.method} {address} HTTP/1.1", "Host: x", f"Content-Length: {len(visit.body)}"]
    lines += [f"{name}: {value}" for name, value in visit.headers]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + visit.body


PIECES = (b"", b"\r\n", b"\n", b"\0", b" ", b":", b"HTTP/9.9", b"\xff", b"Transfer-Encoding: chunked\r\n")


def corrupt(request: bytes, requests: RandomRequests) -> bytes:
    """The bytes of a request, with some changed, lost, doubled and inserted."""
    random = requests.random
    for _ in range(random.randint(0, 4)):
        at = random.randint(0, min(len(request), 600))
        piece = random.choice(PIECES) if random.random() < 0.5 else requests.make_bytes(4)
        request = request[:at] + piece + request[at + (len(piece) % 3) :]
    return request


@pytest.fixture(scope="module")
def web(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChildProcess]:
    product = Product(target.environment, tmp_path_factory.mktemp("fuzz"))
    try:
        yield product.web("--access-logfile=-", "--log-level=debug", LOG_LEVEL="debug")
    finally:
        product.stop()


@pytest.mark.timeout(3000)
def test_no_bytes_are_a_server_error_of_gunicorn_or_return_a_secret(target: Target, web: ChildProcess) -> None:
    port = urlsplit(web.url).port or 0
    seed, requests = make_random_requests(target)
    random, statuses = requests.random, Counter[str]()
    for _ in range(max(REQUESTS // 10, 100)):
        request = corrupt(serialize(requests.make()), requests) if random.random() < 0.5 else requests.make_bytes(300)
        response = _send_raw(port, request)
        status = latin(response[9:12])
        statuses[status] += 1
        assert not status.startswith("5") or status in UNSUPPORTED_STATUSES, (seed, request, response[:300])
        assert not target.search.find("response", response), (seed, request)
    assert len(statuses) >= 3, statuses
    assert _send_raw(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 200")
    # A code that the client itself puts into the path is in the access log; HubSpot puts it into the query.
    assert {finding.kind for finding in target.search.find("log", web.output())} <= {"code"}
    assert "Traceback" not in web.output()


def _send_raw(port: int, request: bytes) -> bytes:
    """The whole response. The sending side of the connection is closed after the request."""
    response = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65_536):
                response += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
    return response
