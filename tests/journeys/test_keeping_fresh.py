"""From install to fresh token, on real processes."""

from __future__ import annotations

import signal
import time

import psutil
import redis

from tests.journeys.world import World
from tests.support.polling import until


def test_an_install_is_readable_in_sql_within_a_second_and_identified_soon_after(visit: World) -> None:
    assert visit.install().status_code == 303
    answered = time.monotonic()
    token = until(visit.token)
    assert time.monotonic() - answered < 1
    assert visit.live(token)
    until(lambda: visit.sql.value("SELECT hub_domain FROM hubspot.connections WHERE hub_id = %s", visit.hub))
    assert visit.events() == ["installed"]


def test_a_token_is_replaced_before_it_ends_refresh_after_refresh_until_it_is_revoked(visit: World) -> None:
    visit.simulator.change_settings(visit.hub, lifetime=4)
    seen = [visit.connected()]
    while len(seen) < 4:
        token = visit.token()
        assert token is not None, "there was a moment without a token"
        assert visit.live(token), "a token was served that HubSpot refuses"
        if token != seen[-1]:
            seen.append(token)
    visit.simulator.uninstall(visit.hub)
    until(lambda: visit.status() == "revoked")
    assert visit.token() is None
    assert visit.events() == ["installed", "refresh_failed", "suspected", "revoked"]
    assert visit.never_two_at_once()


def test_a_suspect_is_served_while_its_token_lives(visit: World) -> None:
    token = visit.connected()
    visit.simulator.add_fault("bad_refresh_token", where="token", hub_id=visit.hub)
    visit.simulator.add_fault(503, where="introspect")
    visit.due_now()
    until(lambda: visit.status() == "suspect")
    assert visit.token() == token
    visit.simulator.clear_faults()
    visit.due_now()
    until(lambda: visit.status() == "active")
    assert visit.token() != token


def test_a_re_install_brings_a_revoked_connection_back(visit: World) -> None:
    visit.connected()
    visit.simulator.uninstall(visit.hub)
    visit.due_now()
    until(lambda: visit.status() == "revoked")
    assert visit.live(visit.connected())
    assert visit.events()[-1] == "reinstalled"


def test_a_re_install_during_a_refresh_wins_and_the_late_answer_changes_nothing(visit: World) -> None:
    visit.connected()
    visit.simulator.add_fault("slow", where="token", grant="refresh", hub_id=visit.hub, seconds=1.2, times=1)
    visit.due_now()
    until(visit.calling)
    visit.install()
    until(lambda: "reinstalled" in visit.events())
    installed = visit.token()
    until(lambda: visit.row()["lease_until"] is None)
    assert visit.token() == installed
    assert visit.never_two_at_once()


def test_a_worker_killed_in_mid_refresh_loses_nothing(visit: World) -> None:
    visit.connected()
    visit.simulator.add_fault("slow", where="token", grant="refresh", hub_id=visit.hub, seconds=1.5, times=1)
    visit.due_now()
    until(visit.calling)
    visit.named("worker")[-1].kill(signal.SIGKILL)
    visit.product.worker()
    before = visit.row()["refreshed_at"]
    until(lambda: visit.row()["refreshed_at"] != before)
    assert visit.status() == "active"
    assert visit.live(visit.token() or "")
    assert visit.never_two_at_once()


def test_told_to_stop_a_worker_saves_what_is_in_flight(visit: World) -> None:
    old = visit.connected()
    visit.simulator.change_settings(visit.hub, rotation=0)
    visit.simulator.add_fault("slow", where="token", grant="refresh", hub_id=visit.hub, seconds=1.5, times=1)
    visit.due_now()
    until(visit.calling)
    assert visit.named("worker")[-1].stop() == 0
    token = visit.token()
    assert token not in {None, old}
    assert visit.row()["lease_until"] is None
    visit.product.worker()
    visit.due_now()
    until(lambda: visit.token() != token)
    assert visit.status() == "active"


def test_a_pool_process_told_to_stop_saves_what_is_in_flight(visit: World) -> None:
    old = visit.connected()
    visit.simulator.change_settings(visit.hub, rotation=0)
    visit.simulator.add_fault("slow", where="token", grant="refresh", hub_id=visit.hub, seconds=1.5, times=1)
    visit.due_now()
    until(visit.calling)
    for child in psutil.Process(visit.named("worker")[-1].pid).children():
        child.send_signal(signal.SIGTERM)
    until(lambda: visit.token() != old)
    token = visit.token()
    visit.due_now()
    until(lambda: visit.token() != token)
    assert visit.status() == "active"


def test_a_wiped_redis_costs_nothing_but_time(visit: World) -> None:
    token = visit.connected()
    with redis.Redis.from_url(visit.product.environment["REDIS_URL"]) as broker:
        broker.flushdb()
    visit.due_now()
    until(lambda: visit.token() != token)


def test_two_beats_and_three_workers_never_refresh_one_hub_twice_at_once(world: World) -> None:
    world.simulator.change_settings(lifetime=4, latency=0.2)
    hubs = world.simulator.install_many(40)
    lines = "hub_id,refresh_token\n" + "".join(f"{hub},{token}\n" for hub, token in hubs.items())
    assert world.product.tokenkeeper("import", "-", stdin=lines).returncode == 0
    world.started(workers=3, beats=2, web=False)
    until(lambda: len(world.tokens()) == 40)
    ending = time.monotonic() + 9
    while time.monotonic() < ending:
        tokens = world.tokens()
        assert len(tokens) == 40
        assert world.live(*tokens.values())
        time.sleep(0.1)
    assert world.never_two_at_once()
    stats = world.simulator.get_stats()
    assert min(row["refreshes"] for row in stats["by_hub"].values()) >= 3
