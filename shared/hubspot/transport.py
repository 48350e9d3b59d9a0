"""Sends one request and returns one reply, or raises TemporarilyUnavailable with a code."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import requests
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import DecodeError, ProxyError
from urllib3.util import Retry

from shared import tracing
from shared.domain.errors import TemporarilyUnavailable
from shared.hubspot.response_parsing import Reply, find_correlation_id
from shared.net.deadline import deadline_passed
from shared.net.http_adapter import TRANSPORT_ERRORS, DeadlineAdapter

#: Of a body, decompressed. HubSpot's replies have less than a thousandth of it.
MAX_BODY_BYTES = 1024 * 1024
#: A code must not be sent twice, and a refresh is due again later.
#: How http.client begins the message of an OSError after a proxy's refusal of CONNECT.
TUNNEL_FAILED = "Tunnel connection failed"
NO_RETRIES = Retry(total=False, redirect=False, respect_retry_after_header=False)


class _TooLarge(OSError):
    """The body is larger than MAX_BODY_BYTES."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method and a URL, prepared once: that is most of the work of sending a request."""

    method: str
    pool: HTTPConnectionPool = field(repr=False)
    target: str
    headers: Mapping[str, str] = field(repr=False)


class Transport:
    """Pooled connections: no proxies or passwords from the environment, no redirects, no cookies, no retries.

    Requests go straight to the pool of the session's adapter. The layers above it (cookies, hooks, redirects, a request
    and a response object per call) are not needed here and cost two thirds of the CPU of a call.
    """

    def __init__(self, max_idle_connections: int, proxy: str = "") -> None:
        """`proxy`: the URL of an egress proxy, with its user and password; empty: none."""
        self._proxy = proxy
        self._session = requests.Session()
        self._session.trust_env = False
        self._adapter = DeadlineAdapter(pool_maxsize=max_idle_connections, pool_block=False)
        self._session.mount("http://", self._adapter)
        self._session.mount("https://", self._adapter)
        self._pools: list[HTTPConnectionPool] = []
        # Replies are small: decompressing them costs more than their bytes.
        self._session.headers.update(
            {"User-Agent": f"tokenkeeper/{version('tokenkeeper')}", "Accept-Encoding": "identity"}
        )

    def prepare_endpoint(self, method: str, url: str, **headers: str) -> Endpoint:
        """Raises ValueError for a malformed URL."""
        request = self._session.prepare_request(requests.Request(method, url, headers=headers))
        fixed = {name: value for name, value in request.headers.items() if name != "Content-Length"}
        manager = self._adapter.proxy_manager_for(self._proxy) if self._proxy else self._adapter.poolmanager
        pool = manager.connection_from_url(str(request.url))
        self._pools.append(pool)
        target = request.path_url
        if self._proxy and pool.scheme == "http":  # no tunnel: the proxy reads the request itself
            target, fixed = str(request.url), {**fixed, **self._adapter.proxy_headers(self._proxy)}
        return Endpoint(method, pool, target, fixed)

    def send(
        self,
        endpoint: Endpoint,
        body: bytes | None,
        headers: Mapping[str, str] | None = None,
        secrets: tuple[str, ...] = (),
    ) -> Reply:
        """Call it inside a `deadline`. `secrets` are those in the request: a reply may echo them.

        Raises TemporarilyUnavailable with a code, never with the library's message: that may contain URLs and bodies.
        """
        try:
            raw = endpoint.pool.urlopen(
                endpoint.method,
                endpoint.target,
                body=body,
                headers={**endpoint.headers, **(headers or {})},
                retries=NO_RETRIES,
                redirect=False,
                assert_same_host=False,
                timeout=None,
                preload_content=False,
                decode_content=True,
            )
            if raw.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
                raw.close()
                raise ProxyError("it refuses user and password", OSError())
            tracing.set_attributes(http_status=raw.status, correlation_id=find_correlation_id(raw.headers, secrets, {}))
            return Reply(raw.status, raw.headers, _read_body(raw), secrets)
        except TRANSPORT_ERRORS as error:
            code = _classify(error)
        # Raised outside of the `except`, so that the caught error and the request in it are not its context.
        raise TemporarilyUnavailable(code)

    def close(self) -> None:
        self._session.close()
        for pool in self._pools:  # the session only forgets them
            pool.close()


def _read_body(raw: Any) -> bytes:
    """The whole body; where it cannot be read, the connection is closed."""
    is_complete = False
    try:
        if (raw.length_remaining or 0) > MAX_BODY_BYTES:
            raise _TooLarge
        body: bytes = raw.read(MAX_BODY_BYTES + 1)
        if len(body) > MAX_BODY_BYTES:
            raise _TooLarge
        is_complete = True
    finally:
        raw.release_conn() if is_complete else raw.close()
    return body


def _classify(error: BaseException) -> str:
    """A code for what was raised, by its whole chain of causes."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(link)
        link = link.__cause__ or link.__context__
    if any(isinstance(each, ProxyError) or TUNNEL_FAILED in str(each) for each in chain):
        return "proxy"
    codes: tuple[tuple[type[BaseException], str], ...] = (
        (_TooLarge, "too_large"),
        (TimeoutError, "timeout"),
        (ssl.SSLError, "tls"),
        (socket.gaierror, "name_resolution"),
        (DecodeError, "encoding"),
    )
    for kind, code in codes:
        if any(isinstance(each, kind) for each in chain):
            return code
    return "timeout" if deadline_passed() else "connection"
