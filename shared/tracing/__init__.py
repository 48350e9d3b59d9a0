"""Traces, where OpenTelemetry's own variables ask for them; otherwise OpenTelemetry is not even imported.

Every span is written by hand. Libraries that instrument Flask, requests or SQL by themselves record what must not leave
the process: the callback's query with code and state, and the values in statements. Why not `opentelemetry-api`, which
does nothing without its SDK: docs/adr/0020-spans-cost-nothing-unless-collected.md.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from enum import Enum
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar

import structlog

if TYPE_CHECKING:
    from shared.tracing.otel import Tracer

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Yielded = TypeVar("Yielded")
Sent = TypeVar("Sent")
Value = str | int | float | bool | None  #: an attribute without a value is left out

#: Any of them says that there is a collector.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class SpanKind(Enum):
    """Which side of a call a span is: OpenTelemetry's names."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"
    PRODUCER = "producer"
    CONSUMER = "consumer"


class Span:
    """One that is not recorded. `shared.tracing.otel` has the one that is."""

    def set_attributes(self, **attributes: Value) -> None:
        """Never a secret, and of what others wrote only what may also be logged."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass


_UNRECORDED = Span()
_tracer: Tracer | None = None


def configure(service: str, environ: Mapping[str, str]) -> None:
    """Call it in each process, after the fork: spans are sent by a thread.

    `service` is the process's name where OTEL_SERVICE_NAME gives none.
    """
    global _tracer  # noqa: PLW0603  one process, one tracer
    if not is_enabled(environ):
        return
    try:
        from shared.tracing import otel  # noqa: PLC0415  5 MB and half a second
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        log.warning("traces are asked for, but OpenTelemetry is not installed: pip install 'tokenkeeper[otel]'")
        return
    _tracer = otel.Tracer(service)


def is_enabled(environ: Mapping[str, str]) -> bool:
    """A collector's address is set, and nothing switches traces off."""

    def read(name: str) -> str:
        return environ.get(name, "").strip().lower()

    if read("OTEL_SDK_DISABLED") == "true" or read("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(read(name) for name in ENDPOINTS)


def is_recording() -> bool:
    """Whether attributes are worth finding out."""
    return _tracer is not None


def start_span(
    name: str, kind: SpanKind = SpanKind.INTERNAL, parent: Mapping[str, str] | None = None, **attributes: Value
) -> AbstractContextManager[Span]:
    """`parent` is the headers of the message that asked for this work; without it, the span around this one.

    An exception ends it as an error, by the exception's type alone: its text may hold a secret.
    """
    return _UNRECORDED if _tracer is None else _tracer.start_span(name, kind, parent, attributes)


def trace_calls(name: str, kind: SpanKind = SpanKind.INTERNAL) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator: each call is a span, without the call's arguments."""

    def decorate(call: Callable[P, T]) -> Callable[P, T]:
        @wraps(call)
        def call_in_span(*args: P.args, **kwargs: P.kwargs) -> T:
            if _tracer is None:
                return call(*args, **kwargs)
            with start_span(name, kind):
                return call(*args, **kwargs)

        return call_in_span

    return decorate


def trace_steps(
    name: str, kind: SpanKind = SpanKind.INTERNAL
) -> Callable[[Callable[P, Generator[Yielded, Sent, T]]], Callable[P, Generator[Yielded, Sent, T]]]:
    """A decorator for a generator that waits for others between its steps: each run of it is a span.

    The span is the current one while a step runs, in whichever thread, and in no other code.
    """

    def decorate(make_steps: Callable[P, Generator[Yielded, Sent, T]]) -> Callable[P, Generator[Yielded, Sent, T]]:
        @wraps(make_steps)
        def make_traced_steps(*args: P.args, **kwargs: P.kwargs) -> Generator[Yielded, Sent, T]:
            steps = make_steps(*args, **kwargs)
            return steps if _tracer is None else _tracer.trace_steps(name, kind, steps)

        return make_traced_steps

    return decorate


def set_attributes(**attributes: Value) -> None:
    """On the span around this call, if there is one."""
    if _tracer is not None:
        _tracer.set_attributes(attributes)


def get_trace_headers() -> dict[str, str]:
    """W3C's trace context for a message, so that the process which takes it continues this trace."""
    return {} if _tracer is None else _tracer.get_trace_headers()


def get_trace_id() -> str | None:
    """For a log line. None outside of any span."""
    return None if _tracer is None else _tracer.get_trace_id()


def shut_down() -> None:
    """Send the remaining spans, for at most `otel.SHUTDOWN_SECONDS`."""
    global _tracer
    tracer, _tracer = _tracer, None
    if tracer is not None:
        tracer.shut_down()
