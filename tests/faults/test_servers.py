"""PostgreSQL and Redis go away, come back, or hang. HubSpot rotates refresh tokens all the while."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import pytest
import requests

from tests.support.fleet import Fleet
from tests.support.polling import until
from tests.support.product import has_printed
from tests.support.slow_proxy import SlowProxy


@pytest.fixture(autouse=True)
def rotation(fleet: Fleet) -> None:
    """A refresh token dies as soon as it was used: an answer that is not saved costs the account."""
    fleet.simulator.change_settings(rotation=0)


def test_postgres_stopped_while_hubspot_answers_costs_no_answer(fleet: Fleet) -> None:
    fleet.simulator.add_fault("slow", grant="refresh", seconds=0.6, times=12)
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
    fleet.simulator.add_fault("slow", grant="refresh", seconds=0.6, times=12)
    before = fleet.due_and_under_way()
    fleet.servers.crash_postgres()
    fleet.servers.postgres.start()
    fleet.replaced(before)
    fleet.well_again()


def test_connections_to_postgres_cut_again_and_again(fleet: Fleet) -> None:
    fleet.simulator.change_settings(latency=0.1)
    cut, ending = 0, time.monotonic() + 2
    while time.monotonic() < ending:
        before = fleet.due()
        cut += fleet.cut_connections()
        time.sleep(0.1)
    assert cut > 0
    fleet.replaced(before)
    fleet.well_again()


def test_postgres_frozen_for_longer_than_a_lease(fleet: Fleet) -> None:
    """Somebody claims anew before what HubSpot answered is saved: the rotated refresh token is kept all the same.

    Until that one is saved, both witnesses call the old one dead, and rightly: what is revoked by that is taken back.
    """
    fleet.simulator.add_fault("slow", grant="refresh", seconds=0.6, times=12)
    before = fleet.due_and_under_way(at_least=len(fleet.hubs))
    with fleet.servers.frozen_postgres():
        begun = time.monotonic()
        ready = requests.get(f"{fleet.world.home}/readyz", timeout=10)
        assert (ready.status_code, ready.json()["postgres"]) == (503, "no answer")
        assert time.monotonic() - begun < 3
        time.sleep(8)
    fleet.replaced(before)
    for hub_id in fleet.watch.ended:
        assert fleet.sql.events(hub_id)[-1] == "recovered"
    fleet.watch.ended.clear()
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


def test_redis_slow(fleet: Fleet) -> None:
    """Each word takes a fifth of a second, there and back: installs and refreshes arrive all the same."""
    broker = urlsplit(fleet.servers.valkey.url())
    with SlowProxy("127.0.0.1", int(broker.port or 0), seconds=0.2) as proxy:
        url = broker._replace(netloc=f"{broker.username or ''}:{broker.password}@127.0.0.1:{proxy.port}").geturl()
        slow = {"REDIS_URL": url}
        for name in ("worker", "beat", "web"):
            assert fleet.newest(name).stop() == 0
            fleet.world.product.running.remove(fleet.newest(name))
        fleet.world.started(**slow)
        old = fleet.world.token(fleet.hubs[0])
        assert fleet.world.install(fleet.hubs[0]).status_code == 303
        until(lambda: fleet.world.token(fleet.hubs[0]) != old)
        fleet.replaced(fleet.due())
        assert proxy.carried > 0
        fleet.well_again()
        for name in ("worker", "beat", "web"):
            assert fleet.newest(name).stop() == 0
            fleet.world.product.running.remove(fleet.newest(name))
    fleet.world.started()


def test_worker_and_beat_started_before_redis_wait_for_it(fleet: Fleet) -> None:
    for name in ("worker", "beat"):
        assert fleet.newest(name).stop() == 0
        fleet.world.product.running.remove(fleet.newest(name))
    fleet.servers.kill_valkey()
    before = fleet.due()
    waiting = [fleet.world.product.worker(wait=False), fleet.world.product.beat(wait=False)]
    for running in waiting:
        running.wait_until(has_printed("the broker at REDIS_URL does not answer yet"))
    fleet.servers.valkey.start()
    fleet.replaced(before)
    assert [running.status for running in waiting] == [None, None]
    fleet.well_again()


def test_postgres_and_redis_gone_together(fleet: Fleet) -> None:
    fleet.simulator.add_fault("slow", grant="refresh", seconds=0.6, times=12)
    before = fleet.due_and_under_way()
    fleet.servers.stop()
    time.sleep(1)
    fleet.servers.postgres.start()
    fleet.servers.valkey.start()
    fleet.replaced(before)
    fleet.well_again()
