"""From install to fresh token, on real processes."""

from __future__ import annotations

import signal
import time

import psutil
import redis

from tests.journeys.world import HUB, World, until


def test_an_install_is_readable_in_sql_within_a_second_and_identified_soon_after(world: World) -> None:
    world.started()
    assert world.install().status_code == 303
    answered = time.monotonic()
    token = until(world.token)
    assert time.monotonic() - answered < 1
    assert world.live(token)
    domain = "SELECT hub_domain FROM hubspot.connections WHERE hub_domain IS NOT NULL"
    until(lambda: world.sql.rows(domain))
    assert world.sql.events() == ["installed"]


def test_a_token_is_replaced_before_it_ends_refresh_after_refresh_until_it_is_revoked(world: World) -> None:
    world.simulator.settings(lifetime=4)
    world.started()
    seen = [world.connected()]
    while len(seen) < 4:
        token = world.token()
        assert token is not None, "there was a moment without a token"
        assert world.live(token), "a token was served that HubSpot refuses"
        if token != seen[-1]:
            seen.append(token)
    world.simulator.uninstall(HUB)
    until(lambda: world.status() == "revoked")
    assert world.token() is None
    assert world.sql.events() == ["installed", "refresh_failed", "suspected", "revoked"]
    assert world.never_two_at_once()


def test_a_suspect_is_served_while_its_token_lives(world: World) -> None:
    world.started()
    token = world.connected()
    world.simulator.fault("bad_refresh_token", where="token", hub_id=HUB)
    world.simulator.fault(503, where="introspect")
    world.due_now()
    until(lambda: world.status() == "suspect")
    assert world.token() == token
    world.simulator.clear_faults()
    world.due_now()
    until(lambda: world.status() == "active")
    assert world.token() != token


def test_a_re_install_brings_a_revoked_connection_back(world: World) -> None:
    world.started()
    world.connected()
    world.simulator.uninstall(HUB)
    world.due_now()
    until(lambda: world.status() == "revoked")
    assert world.live(world.connected())
    assert world.sql.events()[-1] == "reinstalled"


def test_a_re_install_during_a_refresh_wins_and_the_late_answer_changes_nothing(world: World) -> None:
    world.started()
    world.connected()
    world.simulator.fault("slow", where="token", grant="refresh", hub_id=HUB, seconds=1.2, times=1)
    world.due_now()
    until(lambda: world.simulator.stats()["in_flight"] == 1)
    world.install()
    until(lambda: "reinstalled" in world.sql.events())
    installed = world.token()
    until(lambda: world.sql.row()["lease_until"] is None)
    assert world.token() == installed
    assert world.never_two_at_once()


def test_a_worker_killed_in_mid_refresh_loses_nothing(world: World) -> None:
    world.started()
    world.connected()
    world.simulator.fault("slow", where="token", grant="refresh", hub_id=HUB, seconds=1.5, times=1)
    world.due_now()
    until(lambda: world.simulator.stats()["in_flight"] == 1)
    world.named("worker")[0].kill(signal.SIGKILL)
    world.product.worker()
    before = world.sql.row()["refreshed_at"]
    until(lambda: world.sql.row()["refreshed_at"] != before)
    assert world.status() == "active"
    assert world.live(world.token() or "")
    assert world.never_two_at_once()


def test_told_to_stop_a_worker_saves_what_is_in_flight(world: World) -> None:
    world.started()
    old = world.connected()
    world.simulator.settings(rotation=0)
    world.simulator.fault("slow", where="token", grant="refresh", hub_id=HUB, seconds=1.5, times=1)
    world.due_now()
    until(lambda: world.simulator.stats()["in_flight"] == 1)
    assert world.named("worker")[0].stop() == 0
    token = world.token()
    assert token not in {None, old}
    assert world.sql.row()["lease_until"] is None
    world.product.worker()
    world.due_now()
    until(lambda: world.token() != token)
    assert world.status() == "active"


def test_a_pool_process_told_to_stop_saves_what_is_in_flight(world: World) -> None:
    world.started()
    old = world.connected()
    world.simulator.settings(rotation=0)
    world.simulator.fault("slow", where="token", grant="refresh", hub_id=HUB, seconds=1.5, times=1)
    world.due_now()
    until(lambda: world.simulator.stats()["in_flight"] == 1)
    for child in psutil.Process(world.named("worker")[0].pid).children():
        child.send_signal(signal.SIGTERM)
    until(lambda: world.token() != old)
    token = world.token()
    world.due_now()
    until(lambda: world.token() != token)
    assert world.status() == "active"


def test_a_wiped_redis_costs_nothing_but_time(world: World) -> None:
    world.started()
    token = world.connected()
    with redis.Redis.from_url(world.product.environment["REDIS_URL"]) as broker:
        broker.flushdb()
    world.due_now()
    until(lambda: world.token() != token)


def test_two_beats_and_three_workers_never_refresh_one_hub_twice_at_once(world: World) -> None:
    world.simulator.settings(lifetime=4, latency=0.2)
    hubs = world.simulator.install_many(40)
    lines = "hub_id,refresh_token\n" + "".join(f"{hub},{token}\n" for hub, token in hubs.items())
    assert world.product.tokenkeeper("import", "-", stdin=lines).returncode == 0
    world.started(workers=3, beats=2, web=False)
    until(lambda: len(world.tokens()) == 40)
    ending = time.monotonic() + 12
    while time.monotonic() < ending:
        tokens = world.tokens()
        assert len(tokens) == 40
        assert world.live(*tokens.values())
        time.sleep(0.1)
    assert world.never_two_at_once()
    stats = world.simulator.stats()
    assert min(row["refreshes"] for row in stats["by_hub"].values()) >= 3
