"""The product's own processes are stopped or killed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest
import requests

from tests.faults.held_refreshes import PATIENT, end_leases_in, holding_refreshes, terminate
from tests.support.fault_deployment import FIRST_HUB_ID, FaultDeployment
from tests.support.polling import until

SETTINGS = PATIENT


def test_after_a_pool_process_is_killed_every_connection_is_refreshed(deployment: FaultDeployment) -> None:
    with holding_refreshes(deployment, at_least=3) as before:
        for child in deployment.child_pids("worker"):
            psutil.Process(child).kill()
    end_leases_in(deployment, 0)
    deployment.wait_for_new_tokens(before)
    deployment.check_recovered()


def test_a_terminated_pool_process_saves_its_results_first(deployment: FaultDeployment) -> None:
    """HubSpot rotates refresh tokens without a grace period: a lost answer ends the connection."""
    deployment.simulator.change_settings(rotation=0)
    with holding_refreshes(deployment, at_least=3) as before:
        for child in deployment.child_pids("worker"):
            terminate(psutil.Process(child))
    deployment.wait_for_new_tokens(before)
    deployment.check_recovered()


def test_a_terminated_worker_saves_its_results_first(deployment: FaultDeployment) -> None:
    deployment.simulator.change_settings(rotation=0)
    worker = deployment.newest_process("worker")
    with holding_refreshes(deployment, at_least=3):
        terminate(worker)
    assert worker.wait() == 0
    assert deployment.sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE lease_until > now()") == 0
    deployment.product.worker()
    deployment.check_recovered()


def test_a_killed_worker_loses_at_most_the_calls_in_flight_and_each_loss_is_in_the_history(
    deployment: FaultDeployment,
) -> None:
    """Rotation without a grace period: a connection whose answer was lost is revoked, and can be installed again."""
    at_risk = deployment.hubs[:3]
    deployment.simulator.change_settings(rotation=0)
    with holding_refreshes(deployment, *at_risk) as before:
        deployment.newest_process("worker").kill(signal.SIGKILL)
    end_leases_in(deployment, 0)
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
    children = deployment.child_pids("worker")
    with holding_refreshes(deployment, at_least=3) as before:
        deployment.newest_process("worker").send_signal(signal.SIGKILL)
    until(lambda: not any(psutil.pid_exists(child) for child in children))
    end_leases_in(deployment, 0)
    deployment.product.worker()
    deployment.wait_for_new_tokens(before)
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


@contextmanager
def holding_an_install(deployment: FaultDeployment) -> Iterator[Future[requests.Response]]:
    """Web has sent the code of an install to HubSpot, which does not answer before the end of the block."""
    begun = count_exchanges(deployment)
    fault = deployment.simulator.add_fault("held", grant="code")
    with ThreadPoolExecutor(1) as browser:
        try:
            answer = browser.submit(deployment.install, FIRST_HUB_ID)
            until(lambda: count_exchanges(deployment) > begun)
            yield answer
        finally:
            deployment.simulator.clear_faults(fault)


def count_exchanges(deployment: FaultDeployment) -> int:
    return sum(row["exchanges"] for row in deployment.simulator.get_stats()["by_hub"].values())


def test_a_terminated_gunicorn_finishes_an_install_first(deployment: FaultDeployment) -> None:
    web = deployment.newest_process("web")
    with holding_an_install(deployment) as answer:
        terminate(web)
    assert answer.result(60).status_code == 303
    assert web.wait() == 0
    deployment.product.running.remove(deployment.newest_process("web"))
    deployment.product.web()
    deployment.check_recovered()


def test_an_install_can_be_repeated_after_gunicorn_was_killed_during_it(deployment: FaultDeployment) -> None:
    with holding_an_install(deployment) as answer:
        deployment.newest_process("web").kill(signal.SIGKILL)
        assert isinstance(answer.exception(60), OSError)
    deployment.product.running.remove(deployment.newest_process("web"))
    deployment.product.web()
    before = deployment.token(FIRST_HUB_ID)
    assert deployment.install(FIRST_HUB_ID).status_code == 303
    until(lambda: deployment.token(FIRST_HUB_ID) != before)
    deployment.check_recovered()
