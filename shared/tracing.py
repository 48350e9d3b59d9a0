"""Traces, where OpenTelemetry's own variables ask for them; where they do not, nothing of it is even loaded.

Every span is written by hand. Libraries that instrument Flask, requests or SQL by themselves put into their spans what
must not leave the process: the callback's query with code and state, and the values of statements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import wraps
from typing import ParamSpec, Self, TypeVar

import structlog

from shared.spans import Kind, Span, Tracer, Value

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

SWITCHES = ("OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER")
#: Any of them says that there is a collector.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class _Nothing:
    """A span that nobody collects."""

    def set(self, **_attributes: Value) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass


_NOTHING = _Nothing()
_tracer: Tracer | None = None


def configure(service: str, environ: Mapping[str, str]) -> None:
    """In each process for itself, after the fork: what sends spans is a thread.

    `service` is its name where OTEL_SERVICE_NAME gives none.
    """
    global _tracer  # noqa: PLW0603  one process, one tracer
    if not wanted(environ):
        return
    try:
        from shared import otel  # noqa: PLC0415  5 MB and half a second
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        log.warning("traces are asked for, but OpenTelemetry is not installed: pip install 'tokenkeeper[otel]'")
        return
    _tracer = otel.Tracer(service)


def wanted(environ: Mapping[str, str]) -> bool:
    said = {name: environ.get(name, "").strip().lower() for name in (*ENDPOINTS, *SWITCHES)}
    off = said["OTEL_SDK_DISABLED"] == "true" or said["OTEL_TRACES_EXPORTER"] == "none"
    return not off and any(said[name] for name in ENDPOINTS)


def span(
    name: str, kind: Kind = Kind.INTERNAL, parent: Mapping[str, str] | None = None, **attributes: Value
) -> AbstractContextManager[Span]:
    """A part of the work. `parent`: headers of the message that asked for it; else the span around this one.

    What is raised inside ends it as an error, by its type: texts of errors may hold anything.
    """
    return _NOTHING if _tracer is None else _tracer.span(name, kind, parent, attributes)


def traced(name: str, kind: Kind = Kind.INTERNAL) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Each call is a span; none of its arguments is in it."""

    def decorate(call: Callable[P, T]) -> Callable[P, T]:
        @wraps(call)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
            if _tracer is None:
                return call(*args, **kwargs)
            with span(name, kind):
                return call(*args, **kwargs)

        return wrapped

    return decorate


def note(**attributes: Value) -> None:
    """On the span that this is in, if any."""
    if _tracer is not None:
        _tracer.note(attributes)


def headers() -> dict[str, str]:
    """For a message: W3C's trace context, so that whoever takes it goes on with this trace."""
    return {} if _tracer is None else _tracer.headers()


def trace_id() -> str | None:
    """For a log line; None outside of any span."""
    return None if _tracer is None else _tracer.trace_id()


def close() -> None:
    """Send what is left, within seconds; a collector that is away holds up nobody's end."""
    global _tracer
    tracer, _tracer = _tracer, None
    if tracer is not None:
        tracer.close()
