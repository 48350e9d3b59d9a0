"""Sends requests and returns replies, for code that waits for them and for code that must not.

Logic that calls HubSpot is a generator of calls ("steps"), so that one text of it serves both: a request of a person
waits for each reply, and the refresh loop keeps hundreds of calls in flight from one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import urlsplit

from shared import tracing
from shared.domain.errors import TemporarilyUnavailable
from shared.hubspot.response_parsing import Reply, find_correlation_id
from shared.net.call_engine import CallEngine
from shared.net.http_call import Endpoint, HttpReply

T = TypeVar("T")


class Call(NamedTuple):
    """One request that steps wait for."""

    endpoint: Endpoint
    body: bytes | None  #: None: a request without one
    ends_at: float  #: its deadline, by time.monotonic()

    def __repr__(self) -> str:
        """Without the body, which has tokens."""
        return f"Call({self.endpoint!r})"


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
            reply = self._engine.call(call.endpoint, call.body, ends_at=call.ends_at)

    def start(self, steps: Steps[T], on_result: Callable[[T], None], on_error: Callable[[Exception], None]) -> None:
        """Run steps beside others, without a thread that waits. Their end is told in the engine's thread."""
        _StartedSteps(self._engine, steps, on_result, on_error).resume(None)

    def close(self) -> None:
        self._engine.close()


class _StartedSteps(Generic[T]):
    """An object: a function that hands itself on is a reference cycle, which only a collection of garbage frees."""

    __slots__ = ("_engine", "_on_error", "_on_result", "_steps")

    def __init__(
        self,
        engine: CallEngine,
        steps: Steps[T],
        on_result: Callable[[T], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._engine = engine
        self._steps = steps
        self._on_result = on_result
        self._on_error = on_error

    def resume(self, reply: Any) -> None:
        try:
            call = self._steps.send(reply)
            self._engine.submit(call.endpoint, call.body, call.ends_at, self.resume)
        except StopIteration as end:
            self._on_result(end.value)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller must learn of it
            self._on_error(error)


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
    if headers:
        endpoint = replace(endpoint, headers=(*endpoint.headers, *_to_lines(headers)))
    reply = yield Call(endpoint, body, ends_at)
    if tracing.is_recording():
        correlation_id = find_correlation_id(reply.headers, secrets, {})
        tracing.set_attributes(http_status=reply.http_status or None, correlation_id=correlation_id)
    if reply.failure is not None:
        raise TemporarilyUnavailable(reply.failure)
    return Reply(reply.http_status, reply.headers, reply.body, secrets)


def _to_lines(headers: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}: {value}" for name, value in headers.items())
