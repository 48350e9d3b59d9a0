"""Traces of a product that runs: one install is one trace, and no secret is in any byte of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, quote, urlsplit
from uuid import UUID

import pytest
import requests

from tests.journeys.world import World
from tests.support.otlp_collector import Collector, Seen, collecting
from tests.support.polling import until


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@pytest.fixture
def traced(world: World, collector: Collector) -> World:
    world.product.environment.update(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="200", LOG_FORMAT="json"
    )
    return world.started()


def child_of(parent: Seen, name: str) -> Callable[[Seen], bool]:
    return lambda seen: (seen.name, seen.parent, seen.trace) == (name, parent.id, parent.trace)


def secrets(world: World, code: str, state: str) -> list[str]:
    """What must never leave: settings, and what HubSpot handed out."""
    named = ("HUBSPOT_CLIENT_SECRET", "TOKEN_KEYS", "SECRET_KEY", "OPERATOR_PASSWORD", "DATABASE_URL", "REDIS_URL")
    row = world.row()
    found = [world.product.environment[name] for name in named]
    return [*found, code, state, row["access_token"], row["encrypted_refresh_token"]]


def test_one_install_is_one_trace_from_the_callback_to_the_row(traced: World, collector: Collector) -> None:
    with requests.Session() as browser:
        asked = browser.get(f"{traced.home}/install", allow_redirects=False, timeout=30)
        back = traced.simulator.allow(asked.headers["location"], traced.hub)
        assert browser.get(back, allow_redirects=False, timeout=30).status_code == 303
    sent = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
    until(traced.token)
    stored = collector.wait_for(lambda seen: seen.name == "install.store")
    callback = collector.wait_for(lambda seen: seen.name == "oauth.callback")
    exchange = collector.wait_for(child_of(callback, "hubspot.exchange"))
    enqueued = collector.wait_for(child_of(callback, "install.enqueue"))
    assert (stored.trace, stored.parent) == (callback.trace, enqueued.id)
    assert (callback.service, stored.service) == ("tokenkeeper-web", "tokenkeeper-worker")
    assert (callback.parent, callback.attributes["hub_id"], stored.attributes["hub_id"]) == (
        b"",
        traced.hub,
        traced.hub,
    )
    assert exchange.attributes.keys() == {"http_status", "correlation_id"}
    assert exchange.attributes["http_status"] == 200
    assert UUID(str(exchange.attributes["correlation_id"])), "HubSpot's support finds a call that worked by it, too"
    assert stored.attributes["outcome"] == "installed"
    assert f'"trace_id": "{callback.trace.hex()}"' in traced.named("worker")[0].output(), "the log leads to the trace"

    held = secrets(traced, sent["code"], sent["state"])
    traced.due_now()
    until(lambda: traced.token() != held[-2])
    refresh = collector.wait_for(lambda seen: seen.name == "refresh")
    collector.wait_for(child_of(refresh, "hubspot.refresh"))
    assert refresh.attributes == {"hub_id": traced.hub, "outcome": "refreshed", "status": "active"}
    for name in ("sweep", "refresh.claim", "refresh.save"):
        collector.wait_for(lambda seen, name=name: seen.name == name)
    everything = b"".join(collector.bodies)
    held += secrets(traced, sent["code"], sent["state"])
    assert not [secret for secret in held for form in (secret, quote(secret, "")) if form.encode() in everything]


def test_a_refusal_is_found_by_hubspots_correlation_id(traced: World, collector: Collector) -> None:
    traced.connected()
    traced.simulator.uninstall(traced.hub)
    traced.due_now()
    until(lambda: traced.status() == "revoked")
    refused = collector.wait_for(lambda seen: seen.name == "refresh" and seen.attributes["outcome"] == "invalid_grant")
    asked = collector.wait_for(child_of(refused, "hubspot.refresh"))
    collector.wait_for(child_of(refused, "hubspot.introspect"))
    assert refused.attributes["status"] == "revoked"
    assert asked.failed
    correlation = asked.attributes["correlation_id"]
    (line,) = [line for line in traced.named("worker")[0].output().splitlines() if "connection revoked" in line]
    assert f'"correlation_id": "{correlation}"' in line
    assert f'"hub_id": {traced.hub}' in line


def test_what_is_left_is_sent_when_a_process_is_told_to_go(world: World, collector: Collector) -> None:
    world.started(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="600000").connected()
    assert collector.spans() == []
    assert world.named("worker")[0].stop() == 0
    assert collector.named("install.store")
    assert world.named("web")[0].stop() == 0
    assert collector.named("oauth.callback")
