"""Spans by OpenTelemetry's SDK, sent by OTLP over HTTP. Loaded by `shared.tracing`, and only where it is wanted.

The SDK reads its variables by itself: endpoint, headers, sampler, service name, batch sizes, limits.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.domain.errors import ProviderError
from shared.spans import Kind, Value

KINDS = {kind: SpanKind[kind.name] for kind in Kind}
#: Seconds in which the last spans must have gone out at a process's end.
PARTING = 3.0
#: What the SDK calls a service that nobody named.
UNNAMED = "unknown_service"


class Span:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def set(self, **attributes: Value) -> None:
        _put(self._span, attributes)

    def failed(self, error: BaseException) -> None:
        if isinstance(error, ProviderError):
            self.set(**error.evidence())
        self.set(outcome=type(error).__name__)
        self._span.set_status(StatusCode.ERROR)


class Tracer:
    def __init__(self, service: str) -> None:
        self._provider = TracerProvider(resource=_resource(service), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("tokenkeeper")
        self._context = TraceContextTextMapPropagator()

    @contextmanager
    def span(
        self, name: str, kind: Kind, parent: Mapping[str, str] | None, attributes: Mapping[str, Value]
    ) -> Iterator[Span]:
        around = self._context.extract(parent, context.Context()) if parent else None
        with self._tracer.start_as_current_span(
            name, around, KINDS[kind], record_exception=False, set_status_on_exception=False
        ) as started:
            span = Span(started)
            span.set(**attributes)
            try:
                yield span
            except BaseException as error:
                span.failed(error)
                raise

    def note(self, attributes: Mapping[str, Value]) -> None:
        _put(trace.get_current_span(), attributes)

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        self._context.inject(carrier)
        return carrier

    def trace_id(self) -> str | None:
        around = trace.get_current_span().get_span_context()
        return trace.format_trace_id(around.trace_id) if around.is_valid else None

    def close(self) -> None:
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(PARTING)


def _put(span: trace.Span, attributes: Mapping[str, Value]) -> None:
    span.set_attributes({name: value for name, value in attributes.items() if value is not None})


def _resource(service: str) -> Resource:
    """As the variables say; what they leave unnamed is `service`."""
    said = Resource.create()
    named = not str(said.attributes.get(SERVICE_NAME, UNNAMED)).startswith(UNNAMED)
    return said if named else said.merge(Resource({SERVICE_NAME: service}))
