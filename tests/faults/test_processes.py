"""The product's own processes are stopped or killed."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.support.fault_deployment import FIRST_HUB_ID, FaultDeployment
from tests.support.polling import until


def test_after_a_pool_process_is_killed_every_connection_is_refreshed(deployment: FaultDeployment) -> None:
    deployment.simulator.add_fault("slow", grant="refresh", seconds=0.7, times=12)
    before = deployment.make_due_and_await_calls()
    for child in deployment.child_pids("worker"):
        psutil.Process(child).kill()
    deployment.wait_for_new_tokens(before)
    deployment.check_recovered()


def test_a_terminated_pool_process_saves_its_results_first(deployment: FaultDeployment) -> None:
    """HubSpot rotates refresh tokens without a grace period: a lost answer ends the connection."""
    deployment.simulator.change_settings(rotation=0)
    deployment.simulator.add_fault("slow", grant="refresh", seconds=0.7, times=12)
    before = deployment.make_due_and_await_calls()
    for child in deployment.child_pids("worker"):
        psutil.Process(child).terminate()
    deployment.wait_for_new_tokens(before)
    deployment.check_recovered()


def test_a_terminated_worker_saves_its_results_first(deployment: FaultDeployment) -> None:
    deployment.simulator.change_settings(rotation=0)
    deployment.simulator.add_fault("slow", grant="refresh", seconds=0.7, times=12)
    deployment.make_due_and_await_calls()
    assert deployment.newest_process("worker").stop() == 0
    assert deployment.sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE lease_until > now()") == 0
    deployment.product.worker()
    deployment.check_recovered()


def test_a_killed_worker_loses_at_most_the_calls_in_flight_and_each_loss_is_in_the_history(
    deployment: FaultDeployment,
) -> None:
    """Rotation without a grace period: a connection whose answer was lost is revoked, and can be installed again."""
    at_risk = deployment.hubs[:3]
    deployment.simulator.change_settings(rotation=0)
    deployment.simulator.add_fault("slow", grant="refresh", seconds=0.7, times=3)
    before = deployment.make_due_and_await_calls(*at_risk)
    deployment.newest_process("worker").kill(signal.SIGKILL)
    deployment.product.worker()
    until(lambda: all(deployment.status(hub) == "revoked" or deployment.token(hub) != before[hub] for hub in at_risk))
    lost = [hub_id for hub_id in at_risk if deployment.status(hub_id) == "revoked"]
    for hub_id in lost:
        assert deployment.sql.events(hub_id)[-2:] == ["suspected", "revoked"]
    deployment.check_recovered(except_for=lost)
    for hub_id in lost:
        assert deployment.are_live(deployment.connect(hub_id))
    assert deployment.watcher.ended_hub_ids <= set(at_risk)


def test_a_killed_main_process_leaves_no_children_behind(deployment: FaultDeployment) -> None:
    deployment.simulator.add_fault("slow", grant="refresh", seconds=0.7, times=12)
    before = deployment.make_due_and_await_calls()
    children = deployment.child_pids("worker")
    deployment.newest_process("worker").send_signal(signal.SIGKILL)
    deployment.product.worker()
    deployment.wait_for_new_tokens(before)
    until(lambda: not any(psutil.pid_exists(child) for child in children))
    deployment.check_recovered()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_without_a_beat_the_workers_sweep_until_the_next_beat_does(
    deployment: FaultDeployment, signum: signal.Signals
) -> None:
    deployment.newest_process("beat").kill(signum)
    deployment.newest_process("beat").wait()
    until(lambda: deployment.sql.value("SELECT swept_without_beat_since FROM tokenkeeper.provider"))
    deployment.wait_for_new_tokens(deployment.make_due())
    deployment.product.beat(wait=False)
    until(lambda: not deployment.sql.value("SELECT swept_without_beat_since FROM tokenkeeper.provider"))
    deployment.check_recovered()


def test_when_one_of_two_beats_is_killed_the_other_keeps_tokens_fresh(deployment: FaultDeployment) -> None:
    second = deployment.product.beat()
    second.kill()
    before = deployment.make_due()
    deployment.product.running.remove(second)
    deployment.wait_for_new_tokens(before)
    deployment.check_recovered()


def test_a_killed_gunicorn_worker_is_replaced(deployment: FaultDeployment) -> None:
    for child in deployment.child_pids("web"):
        psutil.Process(child).kill()
    until(lambda: len(deployment.child_pids("web")) == 2)
    deployment.connect(FIRST_HUB_ID)
    deployment.check_recovered()


def test_a_terminated_gunicorn_finishes_an_install_first(deployment: FaultDeployment) -> None:
    deployment.simulator.add_fault("slow", grant="code", seconds=0.8, times=1)
    with ThreadPoolExecutor(1) as browser:
        answer = browser.submit(deployment.install, FIRST_HUB_ID)
        until(lambda: deployment.simulator.get_stats()["in_flight"])
        assert deployment.newest_process("web").stop() == 0
        assert answer.result(10).status_code == 303
    deployment.product.running.remove(deployment.newest_process("web"))
    deployment.product.web()
    deployment.check_recovered()


def test_an_install_can_be_repeated_after_gunicorn_was_killed_during_it(deployment: FaultDeployment) -> None:
    deployment.simulator.add_fault("slow", grant="code", seconds=0.8, times=1)
    with ThreadPoolExecutor(1) as browser:
        answer = browser.submit(deployment.install, FIRST_HUB_ID)
        until(lambda: deployment.simulator.get_stats()["in_flight"])
        deployment.newest_process("web").kill(signal.SIGKILL)
        assert isinstance(answer.exception(10), OSError)
    deployment.product.running.remove(deployment.newest_process("web"))
    deployment.product.web()
    before = deployment.token(FIRST_HUB_ID)
    assert deployment.install(FIRST_HUB_ID).status_code == 303
    until(lambda: deployment.token(FIRST_HUB_ID) != before)
    deployment.check_recovered()
