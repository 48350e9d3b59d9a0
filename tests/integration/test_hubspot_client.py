"""The HubSpot client over real sockets, against servers that misbehave and the simulator."""

from __future__ import annotations

import gc
import gzip
import json
import random
import socket
import ssl
import threading
import tracemalloc
import weakref
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any
from urllib.parse import parse_qs

import pytest

from sandbox.simulator.control import DEMO_CLIENT_ID, DEMO_CLIENT_SECRET
from shared.domain.errors import (
    CodeRejected,
    InvalidClient,
    InvalidGrant,
    ProviderError,
    TemporarilyUnavailable,
    Throttled,
    UnknownRefusal,
)
from shared.domain.grant import UNKNOWN_LIFETIME_SECONDS, Grant
from shared.hubspot.client import HubSpot
from shared.hubspot.transport import Transport
from shared.settings.hubspot_app import HubSpotApp
from tests.support.polling import until
from tests.support.raw_http_server import GRANT, Answer, RawServer, drips, http, resets, sends, serving, stays_silent
from tests.support.simulator import CALLBACK, HUB, SimulatorFixture, parse_redirect, run_simulator

NOW = datetime(2026, 11, 23, tzinfo=UTC)
TIMEOUT_SECONDS = 0.4
#: Of a test that expects another end: no busy machine takes so long.
LONG_TIMEOUT_SECONDS = 20.0
#: What a busy machine may add. The answers in these tests do not end by themselves.
GRACE_SECONDS = 20.0
SECRETS = ("client-secret-1", "client-secret-2")


def make_client(url: str, transport: Transport, *, timeout: float = LONG_TIMEOUT_SECONDS, **but: Any) -> HubSpot:
    """`but`: fields of HubSpotApp."""
    app = HubSpotApp("default", DEMO_CLIENT_ID, SECRETS[:1], ("oauth",), redirect_uri=CALLBACK)
    return HubSpot(replace(app, **but), transport, api_url=url, app_url=url, timeout=timeout)


@contextmanager
def a_client(url: str, *, max_idle_connections: int = 5, **but: Any) -> Iterator[HubSpot]:
    """`but`: fields of HubSpotApp, and `timeout`."""
    with a_transport(max_idle_connections) as transport:
        yield make_client(url, transport, **but)


@contextmanager
def a_transport(max_idle_connections: int = 5) -> Iterator[Transport]:
    transport = Transport(max_idle_connections)
    yield transport
    transport.close()


def refusal_of(call: Callable[[], object]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        call()
    return caught.value


def refresh_and_fail(answer: Answer) -> tuple[ProviderError, bool]:
    """The error, and whether the client closed the connection after it. The answer ends by itself."""
    with serving(answer) as server, a_client(server.url) as hubspot:
        return refusal_of(lambda: hubspot.refresh("na1-refresh", NOW)), server.hung_up.wait(30)


def refresh_until_timeout(answer: Answer, tls: ssl.SSLContext | None = None) -> tuple[ProviderError, float, bool]:
    """The same of an answer that does not end, and how long the call took."""
    with serving(answer, tls) as server, a_client(server.url, timeout=TIMEOUT_SECONDS) as hubspot:
        start = monotonic()
        error = refusal_of(lambda: hubspot.refresh("na1-refresh", NOW))
        return error, monotonic() - start, server.hung_up.wait(30)


class Scripted:
    """Answers each request with the next answer; the last one is repeated."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)

    def __call__(self, connection: socket.socket, _: bytes) -> bool:
        connection.sendall(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])
        return True


def form_of(request: bytes) -> dict[str, str]:
    fields = parse_qs(request.partition(b"\r\n\r\n")[2].decode())
    return {name: values[0] for name, values in fields.items()}


# ---- requests


def test_a_request_is_one_form_with_the_secrets_in_its_body() -> None:
    with serving(sends(http(200, GRANT))) as server, a_client(server.url) as hubspot:
        hubspot.refresh("na1-refresh &=", NOW)
    head, _, _ = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /oauth/2026-09/token HTTP/1.1\r\n")
    assert b"Content-Type: application/x-www-form-urlencoded" in head
    assert b"User-Agent: tokenkeeper/" in head
    assert b"secret" not in head
    assert form_of(server.requests[0]) == {
        "grant_type": "refresh_token",
        "refresh_token": "na1-refresh &=",
        "client_id": DEMO_CLIENT_ID,
        "client_secret": SECRETS[0],
    }


def test_a_grant_is_dated_by_the_given_clock() -> None:
    with serving(sends(http(200, GRANT))) as server, a_client(server.url) as hubspot:
        assert hubspot.refresh("na1-refresh", NOW).expires_at == NOW + timedelta(seconds=1800)


def test_proxies_and_cookies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with serving(sends(http(200, GRANT, "Set-Cookie: a=b"))) as server, a_client(server.url) as hubspot:
        hubspot.refresh("na1-refresh", NOW)
        hubspot.refresh("na1-refresh", NOW)
    assert b"ookie" not in server.requests[1]
    assert server.connections == 1


def test_a_redirect_is_never_followed() -> None:
    with serving(sends(http(307, b"", "Location: /elsewhere"))) as server, a_client(server.url) as hubspot:
        assert refusal_of(lambda: hubspot.refresh("na1-refresh", NOW)).code == "redirect"
    assert len(server.requests) == 1


def test_no_request_is_retried_by_the_client() -> None:
    with serving(sends(http(503, b"", "Retry-After: 0"))) as server, a_client(server.url) as hubspot:
        for call in (lambda: hubspot.refresh("r", NOW), lambda: hubspot.uninstall("a")):
            assert refusal_of(call).retry_after == 0
    assert len(server.requests) == 2


def test_unusual_characters_in_a_code_are_a_provider_error_and_not_a_crash() -> None:
    with a_client("http://127.0.0.1:9") as hubspot:
        for call in (lambda: hubspot.exchange("\ud800", NOW), lambda: hubspot.uninstall("a\r\nb: c")):
            assert isinstance(refusal_of(call), TemporarilyUnavailable)


# ---- several client secrets

BAD_SECRET = http(400, {"status": "BAD_CLIENT_SECRET", "error": "invalid_client"})


def secrets_sent(server: RawServer) -> list[str]:
    return [form_of(request)["client_secret"] for request in server.requests]


def test_after_a_refused_secret_the_next_one_is_tried_and_then_preferred() -> None:
    answer = Scripted(BAD_SECRET, http(200, GRANT))
    with serving(answer) as server, a_client(server.url, client_secrets=SECRETS) as hubspot:
        hubspot.refresh("na1-refresh", NOW)
        hubspot.refresh("na1-refresh", NOW)
    assert secrets_sent(server) == [SECRETS[0], SECRETS[1], SECRETS[1]]


def test_where_all_secrets_are_refused_the_error_is_invalid_client() -> None:
    with serving(sends(BAD_SECRET)) as server, a_client(server.url, client_secrets=SECRETS) as hubspot:
        assert isinstance(refusal_of(lambda: hubspot.refresh("na1-refresh", NOW)), InvalidClient)
    assert secrets_sent(server) == list(SECRETS)


def test_without_a_secret_nothing_is_sent_and_the_error_is_invalid_client() -> None:
    with serving(sends(http(200, GRANT))) as server, a_client(server.url, client_secrets=()) as hubspot:
        error = refusal_of(lambda: hubspot.refresh("na1-refresh", NOW))
    assert (type(error), error.code, server.requests) == (InvalidClient, "no_client_secret", [])


def test_an_invalid_grant_is_not_tried_with_another_secret() -> None:
    answer = sends(http(400, {"status": "BAD_REFRESH_TOKEN"}))
    with serving(answer) as server, a_client(server.url, client_secrets=SECRETS) as hubspot:
        assert isinstance(refusal_of(lambda: hubspot.refresh("na1-refresh", NOW)), InvalidGrant)
    assert len(server.requests) == 1


def test_a_code_is_sent_again_only_where_hubspot_refused_the_secret_before_it_looked_at_the_code() -> None:
    for first, sent in ((BAD_SECRET, 2), (http(401, {"error": "invalid_client"}), 1), (http(503), 1), (b"", 1)):
        answer = Scripted(first or b"HTTP/1.1 200 So\r\nContent-Length: 9\r\n\r\n", http(200, GRANT))
        timeout = LONG_TIMEOUT_SECONDS if first else TIMEOUT_SECONDS  # for a body that never comes
        with serving(answer) as server, a_client(server.url, client_secrets=SECRETS, timeout=timeout) as hubspot:
            if sent == 2:
                assert hubspot.exchange("na1-code", NOW).hub_id == 7
            else:
                refusal_of(partial(hubspot.exchange, "na1-code", NOW))
        assert len(server.requests) == sent


def test_attempts_with_all_secrets_share_the_timeout_of_one_call() -> None:
    def slow(connection: socket.socket, _: bytes) -> bool:
        connection.settimeout(TIMEOUT_SECONDS * 0.7)
        try:
            return bool(connection.recv(1))
        except TimeoutError:
            connection.sendall(BAD_SECRET)
            return True

    with (
        serving(slow) as server,
        a_client(server.url, client_secrets=(*SECRETS, "client-secret-3"), timeout=TIMEOUT_SECONDS) as hubspot,
    ):
        start = monotonic()
        assert refusal_of(lambda: hubspot.refresh("na1-refresh", NOW)).code == "timeout"
        assert monotonic() - start < TIMEOUT_SECONDS + GRACE_SECONDS


# ---- the hub and the refresh token of an install


def test_after_an_exchange_without_a_hub_introspection_is_asked_for_it() -> None:
    bare = {name: value for name, value in GRANT.items() if name not in ("hub_id", "scopes")}
    answer = Scripted(http(200, bare), http(200, {"active": True, "hub_id": 9, "scopes": ["tickets"]}))
    with serving(answer) as server, a_client(server.url) as hubspot:
        grant = hubspot.exchange("na1-code", NOW)
    assert (grant.hub_id, grant.scopes) == (9, ("tickets",))
    assert form_of(server.requests[1])["token"] == "CIaccess"


def test_after_an_exchange_for_a_user_level_app_introspection_is_asked_for_the_user_that_the_reply_lacks() -> None:
    answer = Scripted(http(200, GRANT), http(200, {"active": True, "hub_id": 9, "user_id": 42}))
    with serving(answer) as server, a_client(server.url, is_user_level=True) as hubspot:
        grant = hubspot.exchange("na1-code", NOW)
    assert (grant.hub_id, grant.user_id) == (GRANT["hub_id"], 42)
    assert form_of(server.requests[1])["token"] == "CIaccess"

    with (
        serving(sends(http(200, {**GRANT, "user_id": 43}))) as server,
        a_client(server.url, is_user_level=True) as users,
    ):
        assert users.exchange("na1-code", NOW).user_id == 43
    assert len(server.requests) == 1, "the reply had it"
    with serving(sends(http(200, {**GRANT, "user_id": 43}))) as server, a_client(server.url) as accounts:
        assert accounts.exchange("na1-code", NOW).user_id is None, "for an account-level app it identifies nothing"


def test_a_grant_whose_user_hubspot_does_not_say_now_is_kept() -> None:
    answer = Scripted(http(200, GRANT), http(503, {}))
    with serving(answer) as server, a_client(server.url, is_user_level=True) as hubspot:
        grant = hubspot.exchange("na1-code", NOW)
    assert (grant.hub_id, grant.user_id, grant.access_token) == (GRANT["hub_id"], None, "CIaccess")


def test_a_grant_whose_account_hubspot_does_not_say_now_is_an_error() -> None:
    answer = Scripted(http(200, {**GRANT, "hub_id": None}), http(503, {}))
    with serving(answer) as server, a_client(server.url) as hubspot:
        assert isinstance(refusal_of(lambda: hubspot.exchange("na1-code", NOW)), TemporarilyUnavailable)


def test_an_exchange_without_refresh_token_or_hub_names_what_is_missing() -> None:
    no_refresh_token = {name: value for name, value in GRANT.items() if name != "refresh_token"}
    with serving(sends(http(200, no_refresh_token))) as server, a_client(server.url) as hubspot:
        assert refusal_of(lambda: hubspot.exchange("na1-code", NOW)).code == "no_refresh_token"
    answer = Scripted(http(200, {**GRANT, "hub_id": None}), http(200, {"active": True}))
    with serving(answer) as server, a_client(server.url) as hubspot:
        assert refusal_of(lambda: hubspot.exchange("na1-code", NOW)).code == "no_hub_id"


def test_an_exchange_without_an_access_token_brings_the_refresh_token_and_its_account() -> None:
    answer = Scripted(http(200, {**GRANT, "access_token": 5, "hub_id": None}), http(200, {"active": True, "hub_id": 9}))
    with serving(answer) as server, a_client(server.url) as hubspot:
        grant = hubspot.exchange("na1-code", NOW)
    assert (grant.hub_id, grant.refresh_token, grant.access_token, grant.expires_in) == (9, "na1-refresh", None, None)
    assert form_of(server.requests[1])["token_type_hint"] == "refresh_token"


@pytest.mark.parametrize(
    ("introspection", "seconds"),
    [
        (http(200, {"active": True, "expires_in": 1790}), 1790),
        (http(200, {"active": True}), UNKNOWN_LIFETIME_SECONDS),
        (http(503), UNKNOWN_LIFETIME_SECONDS),
    ],
    ids=["it says", "it does not say", "it does not answer"],
)
def test_introspection_is_asked_how_long_an_access_token_of_unknown_lifetime_lives(
    introspection: bytes, seconds: int
) -> None:
    for call in ("exchange", "refresh"):
        answer = Scripted(http(200, {**GRANT, "expires_in": "soon"}), introspection)
        with serving(answer) as server, a_client(server.url) as hubspot:
            grant = getattr(hubspot, call)("na1-code-or-token", NOW)
        assert grant.expires_in == seconds
        assert [form_of(request).get("token") for request in server.requests] == [None, "CIaccess"]
        if call == "refresh":
            assert grant.is_lifetime_known is (seconds == 1790)


# ---- timeouts

SLOW: dict[str, Answer] = {
    "no answer": stays_silent,
    "a byte of the status line now and then": drips(b"HTTP/1.1 200 O", b"K"),
    "headers without end": drips(b"HTTP/1.1 200 So\r\n", b"A"),
    "a body without end": drips(b"HTTP/1.1 200 So\r\nContent-Length: 5000\r\n\r\n", b" "),
    "a chunked body without end": drips(b"HTTP/1.1 200 So\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "wait for it": drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("answer", SLOW.values(), ids=SLOW.keys())
def test_a_slow_answer_ends_with_the_timeout_of_the_call(answer: Answer) -> None:
    error, took, hung_up = refresh_until_timeout(answer)
    assert (type(error), error.code) == (TemporarilyUnavailable, "timeout")
    assert took < TIMEOUT_SECONDS + GRACE_SECONDS
    assert hung_up


@pytest.mark.parametrize("answer", SLOW.values(), ids=SLOW.keys())
def test_a_slow_answer_over_tls_ends_with_the_timeout_of_the_call(answer: Answer, tls: ssl.SSLContext) -> None:
    error, took, hung_up = refresh_until_timeout(answer, tls)
    assert (type(error), error.code) == (TemporarilyUnavailable, "timeout")
    assert took < TIMEOUT_SECONDS + GRACE_SECONDS
    assert hung_up


def test_a_stalled_tls_handshake_ends_with_the_timeout_of_the_call() -> None:
    with (
        serving(stays_silent) as server,
        a_client(server.url.replace("http:", "https:"), timeout=TIMEOUT_SECONDS) as hubspot,
    ):
        start = monotonic()
        assert refusal_of(lambda: hubspot.refresh("na1-refresh", NOW)).code == "timeout"
        assert monotonic() - start < TIMEOUT_SECONDS + GRACE_SECONDS
        assert server.hung_up.wait(30)


def test_every_call_on_a_kept_connection_has_its_own_timeout() -> None:
    def answer_slowly(connection: socket.socket, _: bytes) -> bool:
        connection.settimeout(TIMEOUT_SECONDS * 0.6)
        try:
            return bool(connection.recv(1))
        except TimeoutError:
            connection.sendall(http(200, GRANT))
            return True

    def count_connections_of_three_calls() -> int:
        """0 where a busy machine has sent an answer after the timeout of its call."""
        with (
            serving(answer_slowly) as server,
            a_client(server.url, timeout=TIMEOUT_SECONDS) as hubspot,
            suppress(TemporarilyUnavailable),
        ):
            for _ in range(3):
                hubspot.refresh("na1-refresh", NOW)
            return server.connections
        return 0

    assert until(count_connections_of_three_calls) == 1


def test_an_answer_after_the_timeout_is_not_read_as_the_next_answer() -> None:
    def late(connection: socket.socket, request: bytes) -> bool:
        token = form_of(request)["refresh_token"]
        if token == "slow":
            stays_silent(connection, request)
        connection.sendall(http(200, {**GRANT, "access_token": token}))
        return True

    with serving(late) as server, a_transport() as transport:
        impatient, patient = (
            make_client(server.url, transport, timeout=each) for each in (TIMEOUT_SECONDS, LONG_TIMEOUT_SECONDS)
        )
        assert refusal_of(lambda: impatient.refresh("slow", NOW)).code == "timeout"
        assert patient.refresh("quick", NOW).access_token == "quick"
    assert server.connections == 2


# ---- bodies and bytes

BIG = b" " * (2 * 1024 * 1024)
COMPRESS = {"gzip": gzip.compress, "deflate": zlib.compress}
UNREADABLE: dict[str, tuple[Answer, str]] = {
    "large": (sends(http(200, BIG)), "too_large"),
    "large, chunked": (
        sends(b"HTTP/1.1 200 So\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n" + BIG + b"\r\n0\r\n\r\n"),
        "too_large",
    ),
    "large, until closed": (sends(b"HTTP/1.1 200 So\r\n\r\n" + BIG, stay=False), "too_large"),
    "cut short": (sends(b"HTTP/1.1 200 So\r\nContent-Length: 99\r\n\r\n{", stay=False), "connection"),
    "bad chunks": (sends(b"HTTP/1.1 200 So\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", stay=False), "connection"),
    "reset": (resets, "connection"),
    "closed": (sends(b"", stay=False), "connection"),
    "no HTTP": (sends(b"\x16\x03\x01 hello\r\n\r\n", stay=False), "connection"),
    # libcurl's limits: 100 kB for one header, 300 kB for all of them
    "a long header": (sends(http(200, GRANT, "A: " + "b" * 110_000)), "too_large"),
    "long headers": (sends(http(200, GRANT, *["A: " + "b" * 90_000] * 4)), "connection"),
    "many headers": (sends(http(200, GRANT, *["A: b"] * 20_000)), "too_large"),
}


@pytest.mark.parametrize(("answer", "code"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_unreadable_answer_has_an_error_code_and_its_connection_is_closed(answer: Answer, code: str) -> None:
    error, hung_up = refresh_and_fail(answer)
    assert (type(error), error.code) == (TemporarilyUnavailable, code)
    assert hung_up


@pytest.mark.parametrize("packing", COMPRESS)
def test_a_compression_bomb_is_decompressed_up_to_the_body_limit_only(packing: str) -> None:
    answer = sends(http(200, COMPRESS[packing](BIG * 32), f"Content-Encoding: {packing}"))
    with serving(answer) as server, a_client(server.url) as hubspot:
        tracemalloc.start()
        error = refusal_of(lambda: hubspot.refresh("na1-refresh", NOW))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (type(error), error.code) == (TemporarilyUnavailable, "too_large")
    assert peak < 16 * 1024 * 1024


def test_a_wrongly_compressed_answer_has_an_error_code() -> None:
    with serving(sends(http(200, b"no gzip", "Content-Encoding: gzip"))) as server, a_client(server.url) as hubspot:
        assert refusal_of(lambda: hubspot.refresh("na1-refresh", NOW)).code == "encoding"


def test_any_malformed_answer_is_a_grant_or_an_error_with_a_code() -> None:
    chance = random.Random(20261123)
    good = http(200, GRANT, "Transfer-Encoding: identity", "Retry-After: 5")

    def answer_malformed(connection: socket.socket, _: bytes) -> bool:
        answer = bytearray(good[: chance.choice((len(good), chance.randrange(len(good))))])
        for _turn in range(chance.randrange(4)):
            answer[chance.randrange(len(answer) or 1) : chance.randrange(len(answer) or 1)] = chance.randbytes(2)
        connection.sendall(answer)
        return False

    with serving(answer_malformed) as server, a_client(server.url) as hubspot:
        for _ in range(300):
            with suppress(ProviderError):
                assert hubspot.refresh("na1-refresh", NOW).access_token


def test_bytes_after_an_answer_are_not_read_as_the_next_answer() -> None:
    def twice(connection: socket.socket, request: bytes) -> bool:
        right = http(200, {**GRANT, "access_token": form_of(request)["refresh_token"]})
        connection.sendall(right + http(200, {**GRANT, "access_token": "of-another-account"}))
        return True

    with serving(twice) as server, a_client(server.url) as hubspot:
        for token in ("first", "second", "third"):
            assert hubspot.refresh(token, NOW).access_token == token


def test_an_answer_that_is_compressed_without_being_asked_for_is_decompressed() -> None:
    body = gzip.compress(http(200, GRANT).partition(b"\r\n\r\n")[2])
    with serving(sends(http(200, body, "Content-Encoding: gzip"))) as server, a_client(server.url) as hubspot:
        assert hubspot.refresh("na1-refresh", NOW).hub_id == 7


def test_an_error_does_not_hold_the_request_as_its_context() -> None:
    rubbish = sends(b"rubbish\r\n", stay=False)
    errors = [refresh_and_fail(resets)[0], refresh_until_timeout(stays_silent)[0], refresh_and_fail(rubbish)[0]]
    for error in errors:
        assert error.__cause__ is None
        assert error.__context__ is None
        assert vars(error).keys() == {"code", "http_status", "retry_after", "correlation_id"}


def test_a_refused_connection_has_the_code_connection() -> None:
    with socket.socket() as unused:  # bound, so that no other process listens there
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with a_client(f"http://127.0.0.1:{port}") as hubspot:
            assert refusal_of(lambda: hubspot.refresh("na1-refresh", NOW)).code == "connection"


def test_after_an_address_that_does_not_answer_the_next_one_is_tried() -> None:
    # The server listens on 127.0.0.1 only, and localhost may be ::1 first.
    with serving(sends(http(200, GRANT))) as server, a_client(f"http://localhost:{server.port}") as hubspot:
        assert hubspot.refresh("na1-refresh", NOW).hub_id == 7


def test_fields_after_the_body_do_not_make_an_answer_one_without_a_status_nor_count_as_its_headers() -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(body), body) for body in (json.dumps(GRANT).encode(), b" "))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nX-Sum: first\r\n\r\n"
    with serving(sends(head + chunks + b"0\r\nX-Sum: 1\r\n\r\n")) as server, a_client(server.url) as hubspot:
        for _ in range(2):
            assert hubspot.refresh("na1-refresh", NOW).refresh_token == GRANT["refresh_token"]
        assert server.connections == 1
    empty = b"HTTP/1.1 429 No\r\nTransfer-Encoding: chunked\r\nRetry-After: 7\r\n\r\n0\r\nX-Sum: 1\r\n\r\n"
    error, _ = refresh_and_fail(sends(empty, stay=False))
    assert isinstance(error, Throttled)


# ---- connections


def test_a_host_that_lets_no_thread_begin_costs_the_calls_of_that_moment_only() -> None:
    """They end with an error, so that the refresh loop does not wait for them."""
    ended: list[Grant | Exception] = []
    with serving(sends(http(200, GRANT))) as server, a_client(server.url) as hubspot:
        usual_bytes = threading.stack_size(2**46)  # more than a process can have
        try:
            hubspot.start(hubspot.refresh_steps("na1-refresh", NOW), ended.append, ended.append)
        finally:
            threading.stack_size(usual_bytes)
        assert [str(error) for error in ended] == ["can't start new thread"]
        assert hubspot.refresh("na1-refresh", NOW).refresh_token == GRANT["refresh_token"]


def test_a_connection_that_the_server_closed_is_replaced_without_an_error() -> None:
    with serving(sends(http(200, GRANT), stay=False)) as server, a_client(server.url) as hubspot:
        for _ in range(3):
            hubspot.refresh("na1-refresh", NOW)
            assert server.hung_up.wait(30)
            server.hung_up.clear()
    assert server.connections == 3


def test_fifty_threads_share_a_client_and_each_gets_its_own_answers() -> None:
    def echo(connection: socket.socket, request: bytes) -> bool:
        connection.sendall(http(200, {**GRANT, "access_token": form_of(request)["refresh_token"]}))
        return True

    tokens = [f"token-{number}" for number in range(500)]
    with (
        serving(echo) as server,
        a_client(server.url, max_idle_connections=50) as hubspot,
        ThreadPoolExecutor(50) as threads,
    ):
        grants = list(threads.map(lambda token: hubspot.refresh(token, NOW), tokens))
    assert [grant.access_token for grant in grants] == tokens
    assert server.connections <= 50


# ---- TLS


def test_a_refresh_beside_others_leaves_nothing_to_the_garbage_collector() -> None:
    ended: list[Grant | Exception] = []
    with serving(sends(http(200, GRANT))) as server, a_client(server.url) as hubspot:
        steps = hubspot.refresh_steps("na1-refresh", NOW)
        find_steps = weakref.ref(steps)
        gc.disable()
        try:
            hubspot.start(steps, ended.append, ended.append)
            del steps
            until(lambda: find_steps() is None)
        finally:
            gc.enable()
    assert [type(result) for result in ended] == [Grant]


def test_a_tls_connection_is_kept_open(tls: ssl.SSLContext) -> None:
    with serving(sends(http(200, GRANT)), tls) as server, a_client(server.url) as hubspot:
        for _ in range(3):
            assert hubspot.refresh("na1-refresh", NOW).hub_id == 7
    assert server.connections == 1


def test_no_request_is_sent_to_a_server_with_an_untrusted_certificate(self_signed_tls: ssl.SSLContext) -> None:
    with serving(sends(http(200, GRANT)), self_signed_tls) as server, a_client(server.url) as hubspot:
        assert refusal_of(lambda: hubspot.refresh("na1-refresh", NOW)).code == "tls"
    assert server.requests == []


def test_no_request_is_sent_to_a_server_with_the_certificate_of_another_host(tls: ssl.SSLContext) -> None:
    answer = sends(http(200, GRANT))
    with serving(answer, tls) as server, a_client(f"https://localhost:{server.port}") as hubspot:
        assert refusal_of(lambda: hubspot.refresh("na1-refresh", NOW)).code == "tls"
    assert server.requests == []


# ---- the simulator


@pytest.fixture
def simulator() -> Iterator[SimulatorFixture]:
    with run_simulator() as simulator:
        yield simulator


@contextmanager
def connect_to(simulator: SimulatorFixture, **but: Any) -> Iterator[HubSpot]:
    with a_client(simulator.url, **({"client_secrets": (DEMO_CLIENT_SECRET,)} | but)) as hubspot:
        yield hubspot


@pytest.mark.parametrize("api_version", ["v3", "2026-03", "2026-09"])
def test_a_connection_can_be_exchanged_refreshed_introspected_and_revoked(
    simulator: SimulatorFixture, api_version: str
) -> None:
    with connect_to(simulator, api_version=api_version) as hubspot:
        back = parse_redirect(simulator.control.allow(hubspot.authorize_url("a state"), HUB))
        assert back["state"] == "a state"
        granted = hubspot.exchange(back["code"], NOW)
        refresh_token = str(granted.refresh_token)
        assert granted.hub_id == HUB
        assert isinstance(refusal_of(lambda: hubspot.exchange(back["code"], NOW)), CodeRejected)

        fresh = hubspot.refresh(refresh_token, NOW)
        assert simulator.control.check_tokens([fresh.access_token])[0].is_live
        seen = hubspot.introspect(fresh.access_token, "access_token")
        assert (seen.active, seen.hub_id) == (True, HUB)
        assert seen.hub_domain
        account = hubspot.read_account(fresh.access_token)
        assert (account.hub_id, account.name, account.region) == (HUB, "Northwind Bakery", "na1")
        assert hubspot.introspect(refresh_token, "refresh_token").active

        hubspot.revoke(refresh_token)
        assert isinstance(refusal_of(lambda: hubspot.refresh(refresh_token, NOW)), InvalidGrant)
        assert not hubspot.introspect(refresh_token, "refresh_token").active


@pytest.mark.parametrize("api_version", ["v3", "2026-03", "2026-09"])
def test_an_uninstall_revokes_the_refresh_token(simulator: SimulatorFixture, api_version: str) -> None:
    refresh_token = simulator.control.install(HUB)
    with connect_to(simulator, api_version=api_version) as hubspot:
        hubspot.uninstall(hubspot.refresh(refresh_token, NOW).access_token)
        assert isinstance(refusal_of(lambda: hubspot.refresh(refresh_token, NOW)), InvalidGrant)
        assert isinstance(refusal_of(lambda: hubspot.uninstall("unknown")), UnknownRefusal)


def test_a_rotated_client_secret_needs_no_restart(simulator: SimulatorFixture) -> None:
    refresh_token = simulator.control.install(HUB)
    with connect_to(simulator, client_secrets=(DEMO_CLIENT_SECRET, "the-new-secret")) as hubspot:
        hubspot.refresh(refresh_token, NOW)
        simulator.control.change_settings(client_secrets=["the-new-secret"])
        assert hubspot.refresh(refresh_token, NOW).hub_id == HUB
        code = parse_redirect(simulator.control.allow(hubspot.authorize_url("s"), HUB))["code"]
        assert hubspot.exchange(code, NOW).hub_id == HUB
    with connect_to(simulator) as hubspot:
        assert isinstance(refusal_of(lambda: hubspot.refresh(refresh_token, NOW)), InvalidClient)


def test_the_consent_page_offers_the_preselected_hub(simulator: SimulatorFixture) -> None:
    with connect_to(simulator) as hubspot:
        back = parse_redirect(simulator.control.allow(hubspot.authorize_url("s", hub_id=HUB), HUB))
        assert hubspot.exchange(back["code"], NOW).hub_id == HUB


def test_a_429_carries_its_retry_after(simulator: SimulatorFixture) -> None:
    refresh_token = simulator.control.install(HUB)
    simulator.control.add_fault("429", times=1, retry_after=7)
    with connect_to(simulator) as hubspot:
        error = refusal_of(lambda: hubspot.refresh(refresh_token, NOW))
        assert (type(error), error.retry_after) == (Throttled, 7.0)
        assert simulator.url not in str(error)
        assert hubspot.refresh(refresh_token, NOW).hub_id == HUB
