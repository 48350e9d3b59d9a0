"""Sends requests and returns replies, for code that waits for them and for code that must not.

Logic that calls HubSpot is a generator of calls ("steps"), so that one text of it serves both: a request of a person
waits for each reply, and the refresh loop keeps hundreds of calls in flight from one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import urlsplit

from shared import tracing
from shared.domain.errors import TemporarilyUnavailable
from shared.hubspot.response_parsing import Reply, find_correlation_id
from shared.net.call_engine import CallEngine
from shared.net.http_call import MAX_BODY_BYTES, HttpReply, HttpRequest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Endpoint:
    method: str
    url: str
    headers: tuple[str, ...] = field(repr=False)  #: complete lines
    max_reply_bytes: int = MAX_BODY_BYTES  #: this and the next one as in HttpRequest
    is_public_only: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One request that steps wait for. `ends_at`: its deadline, by time.monotonic()."""

    request: HttpRequest
    ends_at: float


#: Logic that waits for calls: it yields a Call, is resumed with its reply, and returns a T or raises.
Steps = Generator[Call, HttpReply, T]


class Transport:
    """One per process, for the clients of all its apps."""

    def __init__(self, max_idle_connections: int, proxy: str = "") -> None:
        """`proxy`: the URL of an egress proxy, with its user and password; empty: none."""
        self._engine = CallEngine(max_idle_connections, proxy)
        self._user_agent = f"User-Agent: tokenkeeper/{version('tokenkeeper')}"

    def prepare_endpoint(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> Endpoint:
        """Raises ValueError for a malformed URL."""
        if not urlsplit(url).hostname:
            raise ValueError("a URL without a host")
        return Endpoint(method, url, (self._user_agent, *_to_lines(headers or {})))

    def run(self, steps: Steps[T]) -> T:
        """Run steps to their end, each call after the other. Raises what they raise."""
        reply: Any = None
        while True:
            try:
                call = steps.send(reply)
            except StopIteration as end:
                result: T = end.value
                return result
            reply = self._engine.call(call.request, call.ends_at - monotonic())

    def start(self, steps: Steps[T], on_result: Callable[[T], None], on_error: Callable[[Exception], None]) -> None:
        """Run steps beside others, without a thread that waits. Their end is told in the engine's thread."""

        def resume(reply: Any) -> None:
            try:
                call = steps.send(reply)
            except StopIteration as end:
                on_result(end.value)
            except Exception as error:  # noqa: BLE001  whatever it is, the caller must learn of it
                on_error(error)
            else:
                self._engine.submit(call.request, call.ends_at - monotonic(), resume)

        resume(None)

    def close(self) -> None:
        self._engine.close()


def send(
    endpoint: Endpoint,
    body: bytes | None,
    ends_at: float,
    headers: Mapping[str, str] | None = None,
    secrets: tuple[str, ...] = (),
) -> Steps[Reply]:
    """`ends_at` as in a Call. `secrets` are those in the request: a reply may echo them.

    Raises TemporarilyUnavailable with a code.
    """
    lines = (*endpoint.headers, *_to_lines(headers)) if headers else endpoint.headers
    request = HttpRequest(endpoint.method, endpoint.url, lines, body, endpoint.max_reply_bytes, endpoint.is_public_only)
    reply = yield Call(request, ends_at)
    tracing.set_attributes(
        http_status=reply.http_status or None, correlation_id=find_correlation_id(reply.headers, secrets, {})
    )
    return _to_reply(reply, secrets)


def _to_reply(reply: HttpReply, secrets: tuple[str, ...]) -> Reply:
    if reply.failure is not None:
        raise TemporarilyUnavailable(reply.failure)
    return Reply(reply.http_status, reply.headers, reply.body, secrets)


def _to_lines(headers: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}: {value}" for name, value in headers.items())
