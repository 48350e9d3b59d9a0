"""An OpenTelemetry collector that receives spans by OTLP over HTTP and stores them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

WAIT_SECONDS = 30


@dataclass(frozen=True)
class ReceivedSpan:
    service: str
    name: str
    kind: int
    trace: bytes
    id: bytes
    parent: bytes
    attributes: dict[str, Any]
    failed: bool


@dataclass
class Collector:
    url: str
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def spans(self) -> list[ReceivedSpan]:
        return [span for body in list(self.bodies) for span in _parse_spans(body)]

    def find_spans(self, name: str) -> list[ReceivedSpan]:
        return [span for span in self.spans() if span.name == name]

    def wait_for(self, condition: Callable[[ReceivedSpan], bool]) -> ReceivedSpan:
        deadline = time.monotonic() + WAIT_SECONDS
        while not (span := next(filter(condition, self.spans()), None)):
            assert time.monotonic() < deadline, f"no such span arrived: {sorted({span.name for span in self.spans()})}"
            time.sleep(0.05)
        return span


@contextmanager
def run_collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.paths.append(self.path)
            collector.bodies.append(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _parse_spans(body: bytes) -> Iterator[ReceivedSpan]:
    export = ExportTraceServiceRequest()
    export.ParseFromString(body)
    for resource_spans in export.resource_spans:
        service = _convert_attributes(resource_spans.resource.attributes).get("service.name", "")
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield ReceivedSpan(
                    service=service,
                    name=span.name,
                    kind=span.kind,
                    trace=span.trace_id,
                    id=span.span_id,
                    parent=span.parent_span_id,
                    attributes=_convert_attributes(span.attributes),
                    failed=span.status.code == span.status.STATUS_CODE_ERROR,
                )


def _convert_attributes(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
