"""Traces of the running product: one install is one trace, and no trace contains a secret."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, quote, urlsplit
from uuid import UUID

import pytest
import requests

from tests.support.deployment import Deployment
from tests.support.otlp_collector import Collector, ReceivedSpan, run_collector
from tests.support.polling import until
from tests.support.product import has_printed


@pytest.fixture
def collector() -> Iterator[Collector]:
    with run_collector() as collector:
        yield collector


@pytest.fixture
def traced_deployment(idle_deployment: Deployment, collector: Collector) -> Deployment:
    idle_deployment.product.environment.update(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="200", LOG_FORMAT="json"
    )
    return idle_deployment.start()


def is_child_of(parent: ReceivedSpan, name: str) -> Callable[[ReceivedSpan], bool]:
    return lambda seen: (seen.name, seen.parent, seen.trace) == (name, parent.id, parent.trace)


def list_secrets(deployment: Deployment, code: str, state: str) -> list[str]:
    """What must never leave the product: secret settings, and what HubSpot issued."""
    names = ("HUBSPOT_CLIENT_SECRET", "TOKEN_KEYS", "SECRET_KEY", "OPERATOR_PASSWORD", "DATABASE_URL", "REDIS_URL")
    row = deployment.row()
    settings = [deployment.product.environment[name] for name in names]
    return [*settings, code, state, row["access_token"], row["encrypted_refresh_token"]]


def test_one_install_is_one_trace_from_the_callback_to_the_row(
    traced_deployment: Deployment, collector: Collector
) -> None:
    with requests.Session() as browser:
        redirect = browser.get(f"{traced_deployment.url}/install", allow_redirects=False, timeout=60)
        callback_url = traced_deployment.simulator.allow(redirect.headers["location"], traced_deployment.hub)
        assert browser.get(callback_url, allow_redirects=False, timeout=60).status_code == 303
    query = {name: values[0] for name, values in parse_qs(urlsplit(callback_url).query).items()}
    until(traced_deployment.token)
    stored = collector.wait_for(lambda seen: seen.name == "install.store")
    callback = collector.wait_for(lambda seen: seen.name == "oauth.callback")
    exchange = collector.wait_for(is_child_of(callback, "hubspot.exchange"))
    enqueued = collector.wait_for(is_child_of(callback, "install.enqueue"))
    assert (stored.trace, stored.parent) == (callback.trace, enqueued.id)
    assert (callback.service, stored.service) == ("tokenkeeper-web", "tokenkeeper-worker")
    assert (callback.parent, callback.attributes["hub_id"], stored.attributes["hub_id"]) == (
        b"",
        traced_deployment.hub,
        traced_deployment.hub,
    )
    assert exchange.attributes.keys() == {"http_status", "correlation_id"}
    assert exchange.attributes["http_status"] == 200
    assert UUID(str(exchange.attributes["correlation_id"])), "HubSpot's support finds a call that worked by it, too"
    assert stored.attributes["outcome"] == "installed"
    # The log leads to the trace.
    traced_deployment.processes_named("worker")[0].wait_until(has_printed(f'"trace_id": "{callback.trace.hex()}"'))

    never_sent = list_secrets(traced_deployment, query["code"], query["state"])
    traced_deployment.make_due()
    until(lambda: traced_deployment.token() != never_sent[-2])
    refresh = collector.wait_for(lambda seen: seen.name == "refresh")
    collector.wait_for(is_child_of(refresh, "hubspot.refresh"))
    about = {"app": "default", "hub_id": traced_deployment.hub}
    assert refresh.attributes == {**about, "outcome": "refreshed", "status": "active"}
    for name in ("sweep", "refresh.claim", "refresh.save"):
        collector.wait_for(lambda seen, name=name: seen.name == name)
    sent_bytes = b"".join(collector.bodies)
    never_sent += list_secrets(traced_deployment, query["code"], query["state"])
    assert not [secret for secret in never_sent for form in (secret, quote(secret, "")) if form.encode() in sent_bytes]


def test_spans_and_log_line_of_a_refusal_have_hubspots_correlation_id(
    traced_deployment: Deployment, collector: Collector
) -> None:
    traced_deployment.connect()
    traced_deployment.simulator.uninstall(traced_deployment.hub)
    traced_deployment.make_due()
    until(lambda: traced_deployment.status() == "revoked")
    refused = collector.wait_for(lambda seen: seen.name == "refresh" and seen.attributes["outcome"] == "invalid_grant")
    call = collector.wait_for(is_child_of(refused, "hubspot.refresh"))
    collector.wait_for(is_child_of(refused, "hubspot.introspect"))
    assert refused.attributes["status"] == "revoked"
    assert call.failed
    correlation = call.attributes["correlation_id"]
    worker = traced_deployment.processes_named("worker")[0].wait_until(has_printed("connection revoked"))
    (line,) = [line for line in worker.output().splitlines() if "connection revoked" in line]
    assert f'"correlation_id": "{correlation}"' in line
    assert f'"hub_id": {traced_deployment.hub}' in line


def test_remaining_spans_are_sent_when_a_process_is_terminated(
    idle_deployment: Deployment, collector: Collector
) -> None:
    idle_deployment.start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="600000").connect()
    assert collector.spans() == []
    assert idle_deployment.processes_named("worker")[0].stop() == 0
    assert collector.find_spans("install.store")
    assert idle_deployment.processes_named("web")[0].stop() == 0
    assert collector.find_spans("oauth.callback")
