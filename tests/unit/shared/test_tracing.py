"""Traces: OpenTelemetry is not even imported unless a collector is named, and no span holds a secret."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import structlog

from shared import logs, tracing
from shared.domain.errors import InvalidGrant
from shared.tracing import SpanKind
from tests.support.environment import ROOT, inherited_environment
from tests.support.hubspot import ScriptedHubSpot
from tests.support.otlp_collector import Collector, run_collector
from tests.support.refresh_attempts import CALL_TIMEOUT_SECONDS, make_claimed_row, refresh_row

SECRET = "planted-secret-in-an-error"
CORRELATION = "0f6a0f3a-7a4a-4b9e-9f5d-3d1f2f6c8a11"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture(autouse=True)
def wait_for_threads_to_end() -> Iterator[None]:
    """The SDK's threads use `random`: in a later test of this process, Hypothesis would report that as the test's."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive(), thread


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with run_collector() as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)  # for the SDK itself
        tracing.configure("tokenkeeper-test", {ENDPOINT: collector.url})
        yield collector
        tracing.shut_down()


def send_spans() -> None:
    """As at the end of a process, which does not wait for long: on a busy machine the spans arrive later."""
    before = set(threading.enumerate())
    tracing.shut_down()
    for thread in set(threading.enumerate()) - before:
        thread.join(60)


@pytest.fixture
def restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers, root.level, logging.raiseExceptions
    yield
    root.handlers, root.level, logging.raiseExceptions = before
    structlog.reset_defaults()


def test_without_a_collector_spans_do_nothing_and_opentelemetry_is_not_imported() -> None:
    code = (
        "import sys; from shared import tracing; tracing.configure('x', {})\n"
        "with tracing.start_span('a', hub_id=1) as span: span.set_attributes(b=2); tracing.set_attributes(c=3)\n"
        "print(tracing.get_trace_headers(), tracing.get_trace_id())\n"
        "print([name for name in sys.modules if 'opentelemetry' in name])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert output == "{} None\n[]\n"


@pytest.mark.parametrize(
    ("environ", "is_enabled"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({ENDPOINT: "http://collector:4318", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({ENDPOINT: "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({ENDPOINT: "http://collector:4318", "OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_SERVICE_NAME": "keeper"}, False),
    ],
)
def test_traces_are_enabled_by_a_collectors_address_unless_switched_off(
    environ: dict[str, str], is_enabled: bool
) -> None:
    assert tracing.is_enabled(environ) is is_enabled


def test_a_span_inside_another_is_its_child_and_both_carry_their_attributes(collector: Collector) -> None:
    with tracing.start_span("outer", SpanKind.SERVER, hub_id=7, nothing=None) as outer:
        with tracing.start_span("inner"):
            tracing.set_attributes(rows=3)
        outer.set_attributes(outcome="done")
    send_spans()
    (outside,), (inside,) = collector.find_spans("outer"), collector.find_spans("inner")
    assert outside.attributes == {"hub_id": 7, "outcome": "done"}
    assert (inside.attributes, inside.parent, inside.trace) == ({"rows": 3}, outside.id, outside.trace)
    assert (outside.parent, outside.kind, outside.failed) == (b"", 2, False)
    assert {span.service for span in collector.spans()} == {"tokenkeeper-test"}
    assert set(collector.paths) == {"/v1/traces"}


def test_a_messages_headers_continue_the_trace_in_another_thread(collector: Collector) -> None:
    def process_message(headers: dict[str, str]) -> None:
        with tracing.start_span("process", SpanKind.CONSUMER, headers):
            pass

    with tracing.start_span("send"):
        headers = tracing.get_trace_headers()
        trace_id = tracing.get_trace_id()
    thread = threading.Thread(target=process_message, args=(headers,))
    thread.start()
    thread.join()
    send_spans()
    (sender,), (receiver,) = collector.find_spans("send"), collector.find_spans("process")
    assert (receiver.trace, receiver.parent) == (sender.trace, sender.id)
    assert trace_id == sender.trace.hex()


@pytest.mark.parametrize("headers", [None, {}, {"traceparent": "rubbish"}, {"other": "1"}])
def test_a_message_without_trace_headers_begins_a_new_trace(
    collector: Collector, headers: dict[str, str] | None
) -> None:
    with tracing.start_span("process", SpanKind.CONSUMER, headers):
        pass
    send_spans()
    assert collector.find_spans("process")[0].parent == b""


def test_an_exception_is_recorded_by_its_type_and_codes_and_never_by_its_text(collector: Collector) -> None:
    @tracing.trace_calls("call")
    def call(error: Exception, password: str) -> None:
        raise error

    for error in (ValueError(SECRET), InvalidGrant("BAD_REFRESH_TOKEN", http_status=400, correlation_id=CORRELATION)):
        with pytest.raises(type(error)):
            call(error, SECRET)
    send_spans()
    first, second = collector.find_spans("call")
    assert first.attributes == {"outcome": "ValueError"}
    assert second.attributes == {
        "outcome": "InvalidGrant",
        "code": "BAD_REFRESH_TOKEN",
        "http_status": 400,
        "correlation_id": CORRELATION,
    }
    assert first.failed
    assert not [body for body in collector.bodies if SECRET.encode() in body]


@pytest.mark.usefixtures("restore_logging")
def test_a_log_line_inside_a_span_names_its_trace(collector: Collector, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    log = structlog.get_logger("own")
    with tracing.start_span("outer"):
        log.info("inside")
    log.info("outside")
    send_spans()
    inside, outside = (json.loads(line) for line in capsys.readouterr().err.splitlines()[:2])
    assert inside["trace_id"] == collector.find_spans("outer")[0].trace.hex()
    assert "trace_id" not in outside


def test_otel_service_name_overrides_the_services_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with run_collector() as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "other-name")
        tracing.configure("tokenkeeper-test", {ENDPOINT: collector.url})
        with tracing.start_span("one"):
            pass
        send_spans()
    assert collector.find_spans("one")[0].service == "other-name"


def test_a_collector_that_does_not_answer_does_not_delay_the_end_of_a_process() -> None:
    """The SDK alone would try again for a minute."""
    code = (
        "import os; from shared import tracing; tracing.configure('x', os.environ)\n"
        "for _ in range(10_000):\n"
        "    with tracing.start_span('lost'): pass\n"
        "tracing.shut_down(); print(tracing.get_trace_headers())"
    )
    environ = {**inherited_environment(), ENDPOINT: "http://127.0.0.1:1"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environ, timeout=55)
    assert result.stdout.endswith("{}\n")


def test_a_missing_sdk_is_reported_and_the_process_continues() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from shared import tracing; tracing.configure('x', {'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://c:4318'})\n"
        "with tracing.start_span('a'): pass"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert "pip install 'tokenkeeper[otel]'" in result.stdout + result.stderr


def test_a_module_that_is_missing_beside_opentelemetry_is_an_error_and_not_reported_as_a_missing_sdk() -> None:
    code = (
        "import sys; sys.modules['shared.tracing.otel'] = None\n"
        "from shared import tracing; tracing.configure('x', {'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://c:4318'})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, env=inherited_environment()
    )
    assert result.returncode == 1
    assert "ModuleNotFoundError" in result.stderr
    assert "tokenkeeper[otel]" not in result.stdout + result.stderr


def test_the_span_of_a_refresh_says_where_hubspot_was_not_called(collector: Collector) -> None:
    refresh_row(ScriptedHubSpot(), make_claimed_row(lease_seconds=CALL_TIMEOUT_SECONDS))
    send_spans()
    (span,) = collector.find_spans("refresh")
    assert span.attributes["outcome"] == "not_called"
