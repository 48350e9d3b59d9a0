"""Traces: free and unloaded where nobody asks for them, and without a secret where somebody does."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from shared import tracing
from shared.domain.errors import InvalidGrant
from shared.spans import Kind
from tests.support.otlp_collector import Collector, collecting
from tests.support.processes import ROOT, inherited

SECRET = "planted-secret-in-an-error"
CORRELATION = "0f6a0f3a-7a4a-4b9e-9f5d-3d1f2f6c8a11"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """The SDK's threads draw from `random`: in another test of this process, Hypothesis takes that for the test's."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive(), thread


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as made:
        monkeypatch.setenv(ENDPOINT, made.url)  # the SDK reads it by itself
        tracing.configure("tokenkeeper-test", {ENDPOINT: made.url})
        yield made
        tracing.close()


def test_nobody_asks_and_nothing_is_loaded() -> None:
    code = (
        "import sys; from shared import tracing; tracing.configure('x', {})\n"
        "with tracing.span('a', hub_id=1) as span: span.set(b=2); tracing.note(c=3)\n"
        "print(tracing.headers(), tracing.trace_id(), [name for name in sys.modules if 'opentelemetry' in name])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert said == "{} None []\n"


@pytest.mark.parametrize(
    ("environ", "wanted"),
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
def test_a_collectors_address_is_what_asks_for_traces(environ: dict[str, str], wanted: bool) -> None:
    assert tracing.wanted(environ) is wanted


def test_spans_lie_in_each_other_and_say_what_they_are_told(collector: Collector) -> None:
    with tracing.span("outer", Kind.SERVER, hub_id=7, nothing=None) as outer:
        with tracing.span("inner"):
            tracing.note(rows=3)
        outer.set(outcome="done")
    tracing.close()
    (outside,), (inside,) = collector.named("outer"), collector.named("inner")
    assert outside.attributes == {"hub_id": 7, "outcome": "done"}
    assert (inside.attributes, inside.parent, inside.trace) == ({"rows": 3}, outside.id, outside.trace)
    assert (outside.parent, outside.kind, outside.failed) == (b"", 2, False)
    assert {span.service for span in collector.spans()} == {"tokenkeeper-test"}
    assert set(collector.paths) == {"/v1/traces"}


def test_a_message_carries_the_trace_to_another_thread(collector: Collector) -> None:
    def take(headers: dict[str, str]) -> None:
        with tracing.span("taken", Kind.CONSUMER, headers):
            pass

    with tracing.span("sent"):
        message = tracing.headers()
        trace_id = tracing.trace_id()
    thread = threading.Thread(target=take, args=(message,))
    thread.start()
    thread.join()
    tracing.close()
    (sent,), (taken,) = collector.named("sent"), collector.named("taken")
    assert (taken.trace, taken.parent) == (sent.trace, sent.id)
    assert trace_id == sent.trace.hex()


@pytest.mark.parametrize("headers", [None, {}, {"traceparent": "rubbish"}, {"other": "1"}])
def test_a_message_without_a_trace_begins_one(collector: Collector, headers: dict[str, str] | None) -> None:
    with tracing.span("taken", Kind.CONSUMER, headers):
        pass
    tracing.close()
    assert collector.named("taken")[0].parent == b""


def test_an_error_is_told_by_its_type_and_codes_and_never_by_its_text(collector: Collector) -> None:
    @tracing.traced("call")
    def call(error: Exception, password: str) -> None:
        raise error

    for error in (ValueError(SECRET), InvalidGrant("BAD_REFRESH_TOKEN", http_status=400, correlation_id=CORRELATION)):
        with pytest.raises(type(error)):
            call(error, SECRET)
    tracing.close()
    first, second = collector.named("call")
    assert first.attributes == {"outcome": "ValueError"}
    assert second.attributes == {
        "outcome": "InvalidGrant",
        "code": "BAD_REFRESH_TOKEN",
        "http_status": 400,
        "correlation_id": CORRELATION,
    }
    assert first.failed
    assert not [body for body in collector.bodies if SECRET.encode() in body]


def test_the_services_name_is_whatever_the_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "our-keeper")
        tracing.configure("tokenkeeper-test", {ENDPOINT: collector.url})
        with tracing.span("one"):
            pass
        tracing.close()
    assert collector.named("one")[0].service == "our-keeper"


def test_a_collector_that_is_away_holds_up_nobody() -> None:
    """The SDK would try again for a minute."""
    code = (
        "import os; from shared import tracing; tracing.configure('x', os.environ)\n"
        "for _ in range(10_000):\n"
        "    with tracing.span('lost'): pass\n"
        "tracing.close(); print(tracing.headers())"
    )
    environ = {**inherited(), ENDPOINT: "http://127.0.0.1:1"}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environ, timeout=30)
    assert ran.stdout.endswith("{}\n")


def test_asked_for_but_not_installed_is_told_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from shared import tracing; tracing.configure('x', {'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://c:4318'})\n"
        "with tracing.span('a'): pass"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert "pip install 'tokenkeeper[otel]'" in ran.stdout + ran.stderr
