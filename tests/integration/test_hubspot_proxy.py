"""HUBSPOT_PROXY: calls to HubSpot through a real proxy, by CONNECT, with a password, and when it refuses."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.domain.errors import TemporarilyUnavailable
from shared.domain.identity import DEFAULT_APP
from shared.hubspot.client import HubSpot
from shared.hubspot.transport import Transport
from shared.settings import Settings
from tests.support.http_proxy import HttpProxy
from tests.support.raw_http_server import GRANT, http, sends, serving

NOW = datetime(2026, 11, 27, tzinfo=UTC)
USER, PASSWORD = "keeper", "p@ss:word/ü"
QUOTED = "keeper:p%40ss%3Aword%2F%C3%BC"


@contextmanager
def make_client(url: str, proxy: str) -> Iterator[HubSpot]:
    environment = {"HUBSPOT_API_URL": url, "HUBSPOT_PROXY": proxy, "HUBSPOT_CLIENT_SECRET": "client-secret"}
    settings = Settings.from_env({"HTTP_TIMEOUT_SECONDS": "20", **environment}, needs=())
    transport = Transport(max_idle_connections=2, proxy=settings.hubspot_proxy)
    yield HubSpot.for_app(settings.apps[DEFAULT_APP], settings, transport)
    transport.close()


def refresh(client: HubSpot) -> Any:
    return client.refresh("na1-refresh", NOW)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_call_over_https_goes_through_a_tunnel_that_the_proxy_cannot_read(scheme: str, tls: ssl.SSLContext) -> None:
    with (
        HttpProxy(USER, PASSWORD, tls if scheme == "https" else None) as proxy,
        serving(sends(http(200, GRANT)), tls) as hubspot,
        make_client(hubspot.url, f"{scheme}://{QUOTED}@{proxy.address}") as client,
    ):
        assert refresh(client).access_token == "CIaccess"
        assert refresh(client).access_token == "CIaccess"
        assert [request.split()[:2] for request in proxy.requests] == [[b"CONNECT", b"127.0.0.1:%d" % hubspot.port]], (
            "the tunnel is kept open"
        )
        assert not any(b"proxy-authorization" in request.lower() for request in hubspot.requests)


def test_a_call_over_plain_http_is_sent_by_the_proxy() -> None:
    with (
        HttpProxy(USER, PASSWORD) as proxy,
        serving(sends(http(200, GRANT))) as hubspot,
        make_client(hubspot.url, f"http://{QUOTED}@{proxy.address}") as client,
    ):
        assert refresh(client).access_token == "CIaccess"
        assert proxy.requests == [b"POST %s/oauth/2026-09/token HTTP/1.1" % hubspot.url.encode()]
        assert b"refresh_token=na1-refresh" in hubspot.requests[0]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "https://127.0.0.1:9"])
def test_a_proxy_that_refuses_the_password_is_named(url: str) -> None:
    with HttpProxy(USER, PASSWORD) as proxy, make_client(url, f"http://keeper:wrong@{proxy.address}") as client:
        with pytest.raises(TemporarilyUnavailable) as raised:
            refresh(client)
        assert raised.value.code == "proxy"
        assert len(proxy.requests) == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_does_not_answer_is_named(scheme: str) -> None:
    with socket.socket() as unused:  # bound, so that no other process listens there
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with (
            make_client("https://127.0.0.1:9", f"{scheme}://{address}") as client,
            pytest.raises(TemporarilyUnavailable) as raised,
        ):
            refresh(client)
    assert raised.value.code == "proxy"


def test_a_proxy_with_an_untrusted_certificate_gets_no_password(self_signed_tls: ssl.SSLContext) -> None:
    with (
        HttpProxy(USER, PASSWORD, self_signed_tls) as proxy,
        make_client("https://127.0.0.1:9", f"https://{QUOTED}@{proxy.address}") as client,
    ):
        with pytest.raises(TemporarilyUnavailable) as raised:
            refresh(client)
        assert (raised.value.code, proxy.requests) == ("proxy", [])


def test_the_proxys_password_is_a_secret_in_every_spelling() -> None:
    settings = Settings.from_env({"HUBSPOT_PROXY": f"http://{QUOTED}@proxy:3128"}, needs=())
    assert {PASSWORD, QUOTED.partition(":")[2]} <= set(settings.list_secrets())
    assert PASSWORD not in repr(settings)
    assert "p%40ss" not in repr(settings)
