"""HubSpot is slow, closes connections, answers nonsense or asks to wait; messages come twice, late, out of order."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
import redis

from shared.dispatch import INTERACTIVE_QUEUE
from tests.support.fault_deployment import TOKEN_LIFETIME_SECONDS, FaultDeployment
from tests.support.polling import until

#: So long that no busy machine makes a call fail by itself, so short that a test can wait for it.
SETTINGS = {"HTTP_TIMEOUT_SECONDS": "3", "LEASE_SECONDS": "11"}
SLOW_SECONDS = 3.4
#: Fewer faults than make HubSpot count as unavailable; each applies to another connection.
FAULTS = [
    ("slow", "reset", "lost", "cut"),
    ("drip", "html_200", "truncated", "500"),
    ("wrong_types", "empty_200", "502"),
]
COUNT_THROTTLED = "SELECT count(*) FROM tokenkeeper.alerts WHERE kind = 'provider' AND detail->>'state' = 'throttled'"
SWEPT_AT = "SELECT swept_at FROM tokenkeeper.provider"


@pytest.mark.parametrize("kinds", FAULTS, ids=" ".join)
def test_a_fault_of_one_account_delays_no_other_account(deployment: FaultDeployment, kinds: tuple[str, ...]) -> None:
    for hub_id, kind in zip(deployment.hubs, kinds, strict=False):
        deployment.simulator.add_fault(kind, hub_id=hub_id, seconds=SLOW_SECONDS if kind == "slow" else None, times=1)
    before = deployment.make_due()
    deployment.wait_for_new_tokens({hub_id: before[hub_id] for hub_id in deployment.hubs[len(kinds) :]}, seconds=30)
    deployment.wait_for_new_tokens(before)
    assert deployment.hubspot_condition() == "ok"
    deployment.check_recovered()


def test_a_refusal_that_introspection_contradicts_revokes_no_connection(deployment: FaultDeployment) -> None:
    """Introspection says that the refresh token is active, or does not answer."""
    deployment.simulator.add_fault("bad_refresh_token", hub_id=deployment.hubs[0], times=2)
    deployment.simulator.add_fault("bad_hub", hub_id=deployment.hubs[1], times=1)
    deployment.simulator.add_fault(503, where="introspect", hub_id=deployment.hubs[1], times=1)
    before = deployment.make_due()
    until(lambda: "suspected" in deployment.sql.events(deployment.hubs[1]))
    deployment.wait_for_new_tokens(before)
    assert "suspected" in deployment.sql.events(deployment.hubs[0])
    deployment.check_recovered()


def test_a_connection_survives_an_answer_with_a_rotated_refresh_token_that_comes_too_late(
    deployment: FaultDeployment,
) -> None:
    """HubSpot rotated the refresh token, its answer did not arrive, and the old one is valid for a while."""
    deployment.simulator.change_settings(rotation=30)
    for hub_id, kind in zip(deployment.hubs[:3], ("slow", "lost", "cut"), strict=True):
        deployment.simulator.add_fault(kind, hub_id=hub_id, seconds=SLOW_SECONDS if kind == "slow" else None, times=1)
    deployment.wait_for_new_tokens(deployment.make_due())
    deployment.check_recovered()


def test_no_odd_field_of_an_answer_costs_a_rotated_refresh_token(deployment: FaultDeployment) -> None:
    """The old refresh token is invalid at once, so the one in the odd answer is the only one. So at an install."""
    deployment.simulator.change_settings(rotation=0)
    suspected = deployment.count_events("suspected")
    kinds = ("odd_forms", "negative_expires_in", "no_access_token", "truncated")
    for hub_id, kind in zip(deployment.hubs, kinds, strict=False):
        deployment.simulator.add_fault(kind, hub_id=hub_id, times=1)
    deployment.wait_for_new_tokens(deployment.make_due())
    installed, before = deployment.hubs[-1], deployment.tokens()
    deployment.simulator.add_fault("no_access_token", hub_id=installed, grant="code", times=1)
    assert deployment.install(installed).status_code == 303
    deployment.wait_for_new_tokens({installed: before[installed]})
    assert deployment.count_events("suspected") == suspected
    deployment.check_recovered()


def test_rejected_scopes_of_one_account_delay_no_other_and_end_no_connection(deployment: FaultDeployment) -> None:
    rejected = deployment.hubs[0]
    deployment.simulator.add_fault("bad_scopes", hub_id=rejected)
    before = deployment.make_due()
    deployment.wait_for_new_tokens({hub_id: token for hub_id, token in before.items() if hub_id != rejected})
    reason = "SELECT status || ': ' || status_reason FROM hubspot.connections WHERE hub_id = %s"
    until(lambda: "consent again" in (deployment.sql.value(reason, rejected) or ""))
    assert str(deployment.sql.value(reason, rejected)).startswith("active: ")
    assert deployment.hubspot_condition() == "ok"
    deployment.simulator.clear_faults()
    deployment.wait_for_new_tokens({rejected: before[rejected]})
    deployment.check_recovered()


def test_a_429_stops_all_refreshes_until_its_retry_after(deployment: FaultDeployment) -> None:
    alerts = deployment.sql.value(COUNT_THROTTLED)
    deployment.simulator.add_fault(429, hub_id=deployment.hubs[0], retry_after=3, times=1)
    deployment.make_due(deployment.hubs[0])
    until(lambda: deployment.sql.value(COUNT_THROTTLED) > alerts)  # on a busy machine the pause may be over already
    calls, before = deployment.count_refreshes(), deployment.make_due()
    asked = 0
    while deployment.sql.value("SELECT paused_until > clock_timestamp() FROM tokenkeeper.provider"):
        assert asked == 0, "HubSpot was asked before the pause was over"
        asked = deployment.count_refreshes() - calls
        time.sleep(0.05)
    deployment.wait_for_new_tokens(before)
    deployment.check_recovered()


def test_resume_ends_a_pause_and_the_wait_of_the_connection_that_got_the_429(deployment: FaultDeployment) -> None:
    """Its Retry-After is a day."""
    until(lambda: deployment.sql.value("SELECT count(account_info_due_at) = 0 FROM tokenkeeper.connections"))
    deployment.simulator.add_fault(429, hub_id=deployment.hubs[0], retry_after=86_400, times=1)
    deployment.make_due(deployment.hubs[0])
    until(lambda: deployment.hubspot_condition() == "throttled")
    seconds_left = deployment.sql.value(
        "SELECT extract(epoch FROM paused_until - clock_timestamp()) FROM tokenkeeper.provider"
    )
    assert 0 < seconds_left <= 300
    introspections = deployment.count_introspections()
    deployment.sql.set("account_info_due_at = now()")
    before = deployment.make_due(*deployment.hubs[1:]) | {deployment.hubs[0]: deployment.tokens()[deployment.hubs[0]]}
    swept_at = deployment.sql.value(SWEPT_AT)
    until(lambda: deployment.sql.value(SWEPT_AT) > swept_at)
    assert deployment.count_introspections() == introspections, "account information obeys the pause"
    result = deployment.product.tokenkeeper("resume", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {"was_paused": True, "state": "ok", "connections_due": 1}
    deployment.wait_for_new_tokens(before)
    until(lambda: deployment.count_introspections() >= introspections + len(deployment.hubs))
    until(lambda: deployment.newest_process("worker").has_printed("ended the pause of refreshes"))
    deployment.check_recovered()


@pytest.mark.parametrize("error", [-7200, 7200], ids=["behind", "ahead"])
def test_a_wrong_clock_of_hubspot_changes_no_retry_time_and_no_token_lifetime(
    deployment: FaultDeployment, error: float
) -> None:
    """A Retry-After date is compared with HubSpot's own Date; a token's lifetime is counted by our clock."""
    deployment.simulator.change_settings(clock_error=error)
    paused = deployment.hubs[0]
    deployment.simulator.add_fault(503, hub_id=paused, retry_after="+3", times=1)
    started_at, before = time.monotonic(), deployment.make_due()
    old = before.pop(paused)
    deployment.wait_for_new_tokens(before)
    deployment.wait_for_new_tokens({paused: old})
    assert time.monotonic() - started_at > 1.9, "the Retry-After of 3 s, in dates of whole seconds"
    seconds_left = deployment.sql.value("SELECT min(expires_in) FROM hubspot.tokens")
    assert TOKEN_LIFETIME_SECONDS / 2 < seconds_left <= TOKEN_LIFETIME_SECONDS
    deployment.simulator.change_settings(clock_error=0)
    deployment.check_recovered()


def test_a_477_stops_the_refreshes_of_its_account_only(deployment: FaultDeployment) -> None:
    moving = deployment.hubs[0]
    deployment.simulator.add_fault(477, hub_id=moving, retry_after=3, times=1)
    started_at, before = time.monotonic(), deployment.make_due()
    old = before.pop(moving)
    deployment.wait_for_new_tokens(before)
    assert deployment.hubspot_condition() == "ok"
    deployment.wait_for_new_tokens({moving: old})
    assert time.monotonic() - started_at > 2.9, "the Retry-After of 3 s"
    last_refreshed = "SELECT hub_id FROM hubspot.tokens WHERE hub_id = ANY(%s) ORDER BY refreshed_at DESC LIMIT 1"
    assert deployment.sql.value(last_refreshed, [moving, *before]) == moving
    deployment.check_recovered()


@pytest.fixture
def broker(deployment: FaultDeployment) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(deployment.product.environment["REDIS_URL"]) as client:
        yield client


def test_of_installs_delivered_twice_late_and_out_of_order_the_newest_is_stored(
    deployment: FaultDeployment, broker: redis.Redis
) -> None:
    hub_id, events_before = deployment.hubs[0], len(deployment.sql.events(deployment.hubs[0]))
    assert deployment.newest_process("worker").stop() == 0
    for _ in range(3):
        assert deployment.install(hub_id).status_code == 303
    messages: list[bytes] = broker.lrange(INTERACTIVE_QUEUE, 0, -1)  # type: ignore[assignment]  # typed for async too
    assert len(messages) == 3
    broker.rpush(INTERACTIVE_QUEUE, *messages, *reversed(messages))
    deployment.product.worker()
    until(lambda: broker.llen(INTERACTIVE_QUEUE) == 0)
    deployment.check_recovered()
    served = deployment.token(hub_id)
    broker.rpush(INTERACTIVE_QUEUE, *messages)
    until(lambda: broker.llen(INTERACTIVE_QUEUE) == 0)
    time.sleep(0.5)  # the last one may still be in flight
    assert deployment.token(hub_id) == served
    assert deployment.sql.events(hub_id)[events_before:].count("reinstalled") <= 3
