"""Sends one request and brings one reply, or says in one word why there is none."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import requests
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import DecodeError
from urllib3.util import Retry

from shared import tracing
from shared.domain.errors import TemporarilyUnavailable
from shared.hubspot.response_parsing import Reply, find_correlation_id
from shared.net.deadline import deadline_passed
from shared.net.http_adapter import TRANSPORT_ERRORS, DeadlineAdapter

#: Bytes of a body, unpacked. HubSpot's replies have less than one thousandth of it.
LARGEST_BODY = 1024 * 1024
#: Whether to try again is decided elsewhere: a code must not be sent twice, and a refresh is due again later.
NO_RETRIES = Retry(total=False, redirect=False, respect_retry_after_header=False)


class _TooLarge(OSError):
    """The body is larger than LARGEST_BODY."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method and a URL of HubSpot's, prepared once: that is most of the work of sending a request."""

    method: str
    pool: HTTPConnectionPool = field(repr=False)
    target: str
    headers: Mapping[str, str] = field(repr=False)


class Transport:
    """One pooled session: no proxies or passwords from the environment, no redirects, no cookies, no retries.

    Requests go straight to the pool of the session's adapter. The layers above it (cookies, hooks, redirects, a request
    and a response object per call) do nothing for us and cost two thirds of the CPU of a call.
    """

    def __init__(self, connections: int) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._adapter = DeadlineAdapter(pool_maxsize=connections, pool_block=False)
        self._session.mount("http://", self._adapter)
        self._session.mount("https://", self._adapter)
        self._pools: list[HTTPConnectionPool] = []
        # Replies are small; unpacking them would cost more than their bytes.
        self._session.headers.update(
            {"User-Agent": f"tokenkeeper/{version('tokenkeeper')}", "Accept-Encoding": "identity"}
        )

    def endpoint(self, method: str, url: str, **headers: str) -> Endpoint:
        """Raises ValueError for a URL that is none."""
        request = self._session.prepare_request(requests.Request(method, url, headers=headers))
        fixed = {name: value for name, value in request.headers.items() if name != "Content-Length"}
        pool = self._adapter.poolmanager.connection_from_url(str(request.url))
        self._pools.append(pool)
        return Endpoint(method, pool, request.path_url, fixed)

    def send(
        self,
        endpoint: Endpoint,
        body: bytes | None,
        headers: Mapping[str, str] | None = None,
        secrets: tuple[str, ...] = (),
    ) -> Reply:
        """To be called inside a `deadline`. `secrets` are those in the request: a reply may echo them.

        Raises TemporarilyUnavailable with one of our codes, never the library's text: it may hold URLs and bodies.
        """
        try:
            return self._talk(endpoint, body, {**endpoint.headers, **(headers or {})}, secrets)
        except TRANSPORT_ERRORS as error:
            why = _in_a_word(error)
        # Out here, so that what was caught, and the request in it, does not hang on as this one's context.
        raise TemporarilyUnavailable(why)

    def close(self) -> None:
        self._session.close()
        for pool in self._pools:  # the session only forgets them
            pool.close()

    def _talk(self, endpoint: Endpoint, body: bytes | None, headers: dict[str, str], secrets: tuple[str, ...]) -> Reply:
        raw = endpoint.pool.urlopen(
            endpoint.method,
            endpoint.target,
            body=body,
            headers=headers,
            retries=NO_RETRIES,
            redirect=False,
            assert_same_host=False,
            timeout=None,
            preload_content=False,
            decode_content=True,
        )
        tracing.set_attributes(http_status=raw.status, correlation_id=find_correlation_id(raw.headers, secrets, {}))
        return Reply(raw.status, raw.headers, _body(raw), secrets)


def _body(raw: Any) -> bytes:
    """The whole body, or an error and the connection closed."""
    read = False
    try:
        if (raw.length_remaining or 0) > LARGEST_BODY:
            raise _TooLarge
        body: bytes = raw.read(LARGEST_BODY + 1)
        if len(body) > LARGEST_BODY:
            raise _TooLarge
        read = True
    finally:
        raw.release_conn() if read else raw.close()
    return body


def _in_a_word(error: BaseException) -> str:
    chain = tuple(_chain(error))
    words: tuple[tuple[type[BaseException], str], ...] = (
        (_TooLarge, "too_large"),
        (TimeoutError, "timeout"),
        (ssl.SSLError, "tls"),
        (socket.gaierror, "name_resolution"),
        (DecodeError, "encoding"),
    )
    for kind, word in words:
        if any(isinstance(link, kind) for link in chain):
            return word
    return "timeout" if deadline_passed() else "connection"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
