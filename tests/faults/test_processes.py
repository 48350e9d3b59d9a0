"""Processes of ours die: told to, or not asked."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.support.fleet import FIRST_HUB, Fleet
from tests.support.polling import until


def test_a_killed_pool_process_costs_only_time(fleet: Fleet) -> None:
    fleet.simulator.add_fault("slow", grant="refresh", seconds=0.7, times=12)
    before = fleet.due_and_under_way()
    for child in fleet.children("worker"):
        psutil.Process(child).kill()
    fleet.replaced(before)
    fleet.well_again()


def test_pool_processes_told_to_go_save_what_only_they_know(fleet: Fleet) -> None:
    """HubSpot rotates refresh tokens, with no grace: an answer that is lost costs the account."""
    fleet.simulator.change_settings(rotation=0)
    fleet.simulator.add_fault("slow", grant="refresh", seconds=0.7, times=12)
    before = fleet.due_and_under_way()
    for child in fleet.children("worker"):
        psutil.Process(child).terminate()
    fleet.replaced(before)
    fleet.well_again()


def test_a_worker_told_to_stop_saves_what_only_it_knows(fleet: Fleet) -> None:
    fleet.simulator.change_settings(rotation=0)
    fleet.simulator.add_fault("slow", grant="refresh", seconds=0.7, times=12)
    fleet.due_and_under_way()
    assert fleet.newest("worker").stop() == 0
    assert fleet.sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE lease_until > now()") == 0
    fleet.world.product.worker()
    fleet.well_again()


def test_a_killed_worker_loses_at_most_what_was_in_flight_and_none_in_silence(fleet: Fleet) -> None:
    """The worst case: rotation with no grace. Whose answer died with the worker is told, and can be installed again."""
    at_risk = fleet.hubs[:3]
    fleet.simulator.change_settings(rotation=0)
    fleet.simulator.add_fault("slow", grant="refresh", seconds=0.7, times=3)
    before = fleet.due_and_under_way(*at_risk)
    fleet.newest("worker").kill(signal.SIGKILL)
    fleet.world.product.worker()
    until(lambda: all(fleet.world.status(hub) == "revoked" or fleet.world.token(hub) != before[hub] for hub in at_risk))
    lost = [hub_id for hub_id in at_risk if fleet.world.status(hub_id) == "revoked"]
    for hub_id in lost:
        assert fleet.sql.events(hub_id)[-2:] == ["suspected", "revoked"]
    fleet.well_again(but=lost)
    for hub_id in lost:
        assert fleet.world.live(fleet.world.connected(hub_id))
    assert fleet.watch.ended <= set(at_risk)


def test_a_killed_main_process_leaves_no_children_behind(fleet: Fleet) -> None:
    fleet.simulator.add_fault("slow", grant="refresh", seconds=0.7, times=12)
    before = fleet.due_and_under_way()
    children = fleet.children("worker")
    fleet.newest("worker").send_signal(signal.SIGKILL)
    fleet.world.product.worker()
    fleet.replaced(before)
    until(lambda: not any(psutil.pid_exists(child) for child in children))
    fleet.well_again()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "told to stop"])
def test_without_a_beat_nothing_is_lost_and_the_next_one_goes_on(fleet: Fleet, signum: signal.Signals) -> None:
    fleet.newest("beat").kill(signum)
    fleet.newest("beat").wait()
    time.sleep(1.5)  # what the last sweep licensed is over
    before = fleet.due()
    time.sleep(0.5)
    assert fleet.world.tokens() == before
    fleet.world.product.beat(wait=False)
    fleet.replaced(before)
    fleet.well_again()


def test_one_of_two_beats_may_die_and_nobody_notices(fleet: Fleet) -> None:
    second = fleet.world.product.beat()
    second.kill()
    before = fleet.due()
    fleet.world.product.running.remove(second)
    fleet.replaced(before, seconds=5)
    fleet.well_again()


def test_a_killed_gunicorn_worker_is_replaced(fleet: Fleet) -> None:
    for child in fleet.children("web"):
        psutil.Process(child).kill()
    until(lambda: len(fleet.children("web")) == 2)
    fleet.world.connected(FIRST_HUB)
    fleet.well_again()


def test_gunicorn_told_to_stop_finishes_an_install_first(fleet: Fleet) -> None:
    fleet.simulator.add_fault("slow", grant="code", seconds=0.8, times=1)
    with ThreadPoolExecutor(1) as browser:
        answer = browser.submit(fleet.world.install, FIRST_HUB)
        until(lambda: fleet.simulator.get_stats()["in_flight"])
        assert fleet.newest("web").stop() == 0
        assert answer.result(10).status_code == 303
    fleet.world.product.running.remove(fleet.newest("web"))
    fleet.world.product.web()
    fleet.well_again()


def test_gunicorn_killed_in_mid_install_stores_nothing_and_the_next_try_works(fleet: Fleet) -> None:
    fleet.simulator.add_fault("slow", grant="code", seconds=0.8, times=1)
    with ThreadPoolExecutor(1) as browser:
        answer = browser.submit(fleet.world.install, FIRST_HUB)
        until(lambda: fleet.simulator.get_stats()["in_flight"])
        fleet.newest("web").kill(signal.SIGKILL)
        assert isinstance(answer.exception(10), OSError)
    fleet.world.product.running.remove(fleet.newest("web"))
    fleet.world.product.web()
    before = fleet.world.token(FIRST_HUB)
    assert fleet.world.install(FIRST_HUB).status_code == 303
    until(lambda: fleet.world.token(FIRST_HUB) != before)
    fleet.well_again()
