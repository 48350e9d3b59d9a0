"""Spans by OpenTelemetry's SDK, sent by OTLP over HTTP. `shared.tracing` imports this only where traces are asked for.

The SDK itself reads its variables: endpoint, headers, sampler, service name, batch sizes, limits.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.domain.errors import ProviderError
from shared.tracing import Span, SpanKind, Value

KINDS = {kind: trace.SpanKind[kind.name] for kind in SpanKind}
T = TypeVar("T")

#: The SDK would try for a minute to reach a collector that does not answer.
SHUTDOWN_SECONDS = 3.0
#: The SDK's name of a service that the variables do not name.
UNNAMED_SERVICE = "unknown_service"


class RecordedSpan(Span):
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def set_attributes(self, **attributes: Value) -> None:
        _set(self._span, attributes)


class Tracer:
    def __init__(self, service: str) -> None:
        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME, UNNAMED_SERVICE)).startswith(UNNAMED_SERVICE):
            resource = resource.merge(Resource({SERVICE_NAME: service}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("tokenkeeper")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def start_span(
        self, name: str, kind: SpanKind, parent: Mapping[str, str] | None, attributes: Mapping[str, Value]
    ) -> Iterator[Span]:
        parent_context = self._propagator.extract(parent, context.Context()) if parent else None
        with self._tracer.start_as_current_span(
            name, parent_context, KINDS[kind], record_exception=False, set_status_on_exception=False
        ) as span:
            _set(span, attributes)
            try:
                yield RecordedSpan(span)
            except BaseException as error:
                _mark_failed(span, error)
                raise

    def trace_steps(self, name: str, kind: SpanKind, steps: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        span = self._tracer.start_span(name, kind=KINDS[kind])
        value: Any = None
        try:
            while True:
                with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                    try:
                        yielded = steps.send(value)
                    except StopIteration as end:
                        result: T = end.value
                        return result
                    except BaseException as error:
                        _mark_failed(span, error)
                        raise
                value = yield yielded
        finally:
            steps.close()
            span.end()

    def set_attributes(self, attributes: Mapping[str, Value]) -> None:
        _set(trace.get_current_span(), attributes)

    def get_trace_headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        self._propagator.inject(headers)
        return headers

    def get_trace_id(self) -> str | None:
        span_context = trace.get_current_span().get_span_context()
        return trace.format_trace_id(span_context.trace_id) if span_context.is_valid else None

    def shut_down(self) -> None:
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(SHUTDOWN_SECONDS)


def _mark_failed(span: trace.Span, error: BaseException) -> None:
    evidence = error.evidence() if isinstance(error, ProviderError) else {}
    _set(span, {**evidence, "outcome": type(error).__name__})
    span.set_status(StatusCode.ERROR)


def _set(span: trace.Span, attributes: Mapping[str, Value]) -> None:
    span.set_attributes({name: value for name, value in attributes.items() if value is not None})
