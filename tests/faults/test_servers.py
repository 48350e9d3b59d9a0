"""PostgreSQL and Redis go away, come back, or hang. HubSpot rotates refresh tokens all the while."""

from __future__ import annotations

import time

import pytest

from tests.faults.fleet import Fleet
from tests.journeys.world import until


@pytest.fixture(autouse=True)
def rotation(fleet: Fleet) -> None:
    """A refresh token dies as soon as it was used: an answer that is not saved costs the account."""
    fleet.simulator.settings(rotation=0)


def test_postgres_stopped_while_hubspot_answers_costs_no_answer(fleet: Fleet) -> None:
    fleet.simulator.fault("slow", grant="refresh", seconds=0.6, times=12)
    calls = fleet.calls()
    before = fleet.due_and_under_way(at_least=len(fleet.hubs))
    fleet.servers.postgres.stop()
    until(lambda: fleet.under_way() == 0)
    time.sleep(0.5)  # whoever tries to save now fails
    fleet.servers.postgres.start()
    fleet.replaced(before)
    assert fleet.calls() == calls + len(before), "an answer was thrown away, and asked for again"
    fleet.well_again()


def test_postgres_stopped_at_once_and_restarted(fleet: Fleet) -> None:
    fleet.simulator.fault("slow", grant="refresh", seconds=0.6, times=12)
    before = fleet.due_and_under_way()
    fleet.servers.crash_postgres()
    fleet.servers.postgres.start()
    fleet.replaced(before)
    fleet.well_again()


def test_connections_to_postgres_cut_again_and_again(fleet: Fleet) -> None:
    fleet.simulator.settings(latency=0.1)
    cut, ending = 0, time.monotonic() + 2
    while time.monotonic() < ending:
        before = fleet.due()
        cut += fleet.cut_connections()
        time.sleep(0.1)
    assert cut > 0
    fleet.replaced(before)
    fleet.well_again()


def test_redis_killed_and_back_with_nothing_in_it(fleet: Fleet) -> None:
    before = fleet.due()
    fleet.servers.kill_valkey()
    time.sleep(1)
    fleet.servers.valkey.start()
    fleet.replaced(before)
    fleet.well_again()


def test_redis_flushed_again_and_again(fleet: Fleet) -> None:
    for _ in range(5):
        before = fleet.due()
        fleet.servers.flush()
        time.sleep(0.2)
    fleet.replaced(before)
    fleet.well_again()


def test_redis_frozen_for_a_while(fleet: Fleet) -> None:
    with fleet.servers.frozen_valkey():
        before = fleet.due()
        time.sleep(3)
    fleet.replaced(before)
    fleet.well_again()


def test_postgres_and_redis_gone_together(fleet: Fleet) -> None:
    fleet.simulator.fault("slow", grant="refresh", seconds=0.6, times=12)
    before = fleet.due_and_under_way()
    fleet.servers.stop()
    time.sleep(1)
    fleet.servers.postgres.start()
    fleet.servers.valkey.start()
    fleet.replaced(before)
    fleet.well_again()
