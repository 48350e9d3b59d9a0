"""HubSpot is slow, breaks off, answers nonsense, asks for patience; messages come twice, late and out of order."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis

from shared.dispatch import INTERACTIVE_QUEUE, Dispatch
from tests.support.fleet import LIFETIME, Fleet
from tests.support.polling import until

#: Fewer than make HubSpot as a whole count as unwell; each hits another connection.
KINDS = [
    ("slow", "reset", "lost", "cut"),
    ("drip", "html_200", "truncated", "500"),
    ("wrong_types", "empty_200", "502"),
]


@pytest.mark.parametrize("kinds", KINDS, ids=" ".join)
def test_one_accounts_trouble_is_nobody_elses(fleet: Fleet, kinds: tuple[str, ...]) -> None:
    for hub_id, kind in zip(fleet.hubs, kinds, strict=False):
        fleet.simulator.add_fault(kind, hub_id=hub_id, seconds=1.4 if kind == "slow" else None, times=1)
    before = fleet.due()
    fleet.replaced({hub_id: before[hub_id] for hub_id in fleet.hubs[len(kinds) :]}, seconds=5)
    fleet.replaced(before)
    assert fleet.condition() == "ok"
    fleet.well_again()


def test_a_refusal_that_hubspot_takes_back_costs_nothing(fleet: Fleet) -> None:
    """The second witness says that the refresh token is alive, or does not answer."""
    fleet.simulator.add_fault("bad_refresh_token", hub_id=fleet.hubs[0], times=2)
    fleet.simulator.add_fault("bad_hub", hub_id=fleet.hubs[1], times=1)
    fleet.simulator.add_fault(503, where="introspect", hub_id=fleet.hubs[1], times=1)
    before = fleet.due()
    until(lambda: "suspected" in fleet.sql.events(fleet.hubs[1]))
    fleet.replaced(before)
    assert "suspected" in fleet.sql.events(fleet.hubs[0])
    fleet.well_again()


def test_rotated_refresh_tokens_survive_an_answer_that_comes_too_late(fleet: Fleet) -> None:
    """HubSpot rotated, we never heard of it, and the old refresh token lives on for a while."""
    fleet.simulator.change_settings(rotation=30)
    for hub_id, kind in zip(fleet.hubs[:3], ("slow", "lost", "cut"), strict=True):
        fleet.simulator.add_fault(kind, hub_id=hub_id, seconds=1.4 if kind == "slow" else None, times=1)
    fleet.replaced(fleet.due())
    fleet.well_again()


def test_a_429_stops_everybody_until_its_time_is_over(fleet: Fleet) -> None:
    fleet.simulator.add_fault(429, hub_id=fleet.hubs[0], retry_after=3, times=1)
    fleet.due(fleet.hubs[0])
    until(lambda: fleet.condition() == "throttled")
    before, calls, begun = fleet.due(), fleet.calls(), time.monotonic()
    while time.monotonic() < begun + 2.5:
        assert fleet.calls() == calls, "somebody was asked before the pause was over"
        time.sleep(0.05)
    fleet.replaced(before)
    fleet.well_again()


@pytest.mark.parametrize("error", [-7200, 7200], ids=["behind", "ahead"])
def test_hubspots_clock_may_be_wrong(fleet: Fleet, error: float) -> None:
    """Its dates are held against its own: a pause of three seconds is one, and a token's life is counted here."""
    fleet.simulator.change_settings(clock_error=error)
    paused = fleet.hubs[0]
    fleet.simulator.add_fault(503, hub_id=paused, retry_after="+3", times=1)
    begun, before = time.monotonic(), fleet.due()
    old = before.pop(paused)
    fleet.replaced(before, seconds=5)
    fleet.replaced({paused: old}, seconds=15)
    assert time.monotonic() - begun > 1.9  # dates are whole seconds
    left = fleet.sql.value("SELECT min(expires_in) FROM hubspot.tokens")
    assert LIFETIME / 2 < left <= LIFETIME
    fleet.simulator.change_settings(clock_error=0)
    fleet.well_again()


def test_a_477_stops_that_account_alone(fleet: Fleet) -> None:
    moving = fleet.hubs[0]
    fleet.simulator.add_fault(477, hub_id=moving, retry_after=3, times=1)
    begun, before = time.monotonic(), fleet.due()
    old = before.pop(moving)
    fleet.replaced(before, seconds=2)
    assert fleet.world.token(moving) == old
    fleet.replaced({moving: old})
    assert time.monotonic() - begun > 2.9
    fleet.well_again()


def test_messages_twice_and_late_start_no_refresh_of_their_own(fleet: Fleet) -> None:
    dispatch = Dispatch.from_url(fleet.world.product.environment["REDIS_URL"])
    fleet.simulator.change_settings(latency=0.2)
    calls, before = fleet.calls(), fleet.due()
    dispatch.refresh(30, expires_seconds=60)
    dispatch.refresh(5, expires_seconds=-60)
    fleet.replaced(before)
    assert fleet.calls() == calls + len(before)
    fleet.well_again()


@pytest.fixture
def broker(fleet: Fleet) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(fleet.world.product.environment["REDIS_URL"]) as client:
        yield client


def test_installs_twice_late_and_in_the_wrong_order_leave_the_newest(fleet: Fleet, broker: redis.Redis) -> None:
    hub_id, known = fleet.hubs[0], len(fleet.sql.events(fleet.hubs[0]))
    assert fleet.newest("worker").stop() == 0
    for _ in range(3):
        assert fleet.world.install(hub_id).status_code == 303
    messages: list[bytes] = broker.lrange(INTERACTIVE_QUEUE, 0, -1)  # type: ignore[assignment]  # it has async twins
    assert len(messages) == 3
    broker.rpush(INTERACTIVE_QUEUE, *messages, *reversed(messages))
    fleet.world.product.worker()
    until(lambda: broker.llen(INTERACTIVE_QUEUE) == 0)
    fleet.well_again()
    served = fleet.world.token(hub_id)
    broker.rpush(INTERACTIVE_QUEUE, *messages)
    until(lambda: broker.llen(INTERACTIVE_QUEUE) == 0)
    time.sleep(0.5)  # the last one may still be under way
    assert fleet.world.token(hub_id) == served
    assert fleet.sql.events(hub_id)[known:].count("reinstalled") <= 3
