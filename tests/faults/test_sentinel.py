"""Redis with Sentinel: the primary is killed and the replica takes over, without an operator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from sandbox.child_processes import ChildProcess
from tests.faults.held_refreshes import PATIENT
from tests.support.fault_deployment import FIRST_HUB_ID, FaultDeployment, start_fault_deployment
from tests.support.polling import until
from tests.support.sentinels import Sentinels


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    sentinels = Sentinels(tmp_path_factory.mktemp("sentinels"))
    try:
        sentinels.start()
        yield sentinels
    finally:
        sentinels.stop()


@pytest.fixture(scope="module")
def started_deployment(
    sentinels: Sentinels, simulator_process: ChildProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultDeployment]:
    logs = tmp_path_factory.mktemp("product")
    settings = {"REDIS_URL": sentinels.url(), **PATIENT}
    with start_fault_deployment(logs, simulator_process.url, settings) as deployment:
        deployment.start(beats=2)
        yield deployment


def read_readiness(deployment: FaultDeployment) -> dict[str, str]:
    answer = requests.get(f"{deployment.url}/readyz", timeout=60)
    return dict(answer.json())


def test_every_process_finds_redis_through_sentinel(deployment: FaultDeployment) -> None:
    until(lambda: read_readiness(deployment) == {"postgres": "ok", "redis": "ok"})
    doctor = deployment.product.tokenkeeper("doctor")
    assert "redis" in doctor.stdout
    assert "answers" in next(line for line in doctor.stdout.splitlines() if "redis" in line)
    assert deployment.are_live(deployment.connect(FIRST_HUB_ID))
    deployment.check_recovered()


def test_sweeps_resume_by_themselves_after_the_primary_is_killed(
    deployment: FaultDeployment, sentinels: Sentinels
) -> None:
    dead = sentinels.kill_primary()
    until(lambda: sentinels.primary() is not dead, 90)
    failed_over_at = deployment.sql.now()
    until(lambda: deployment.sql.value("SELECT swept_at > %s FROM tokenkeeper.provider", failed_over_at))
    deployment.wait_for_new_tokens(deployment.make_due())
    assert [running.status for running in deployment.product.running] == [None] * 4
    until(lambda: read_readiness(deployment)["redis"] == "ok")
    deployment.check_recovered()
    sentinels.restart_as_replica(dead)


def test_installs_during_a_failover_are_stored(deployment: FaultDeployment, sentinels: Sentinels) -> None:
    old = {hub_id: deployment.token(hub_id) for hub_id in deployment.hubs[:4]}
    dead = sentinels.kill_primary()
    for hub_id in old:
        assert deployment.install(hub_id).status_code == 303
    until(lambda: all(deployment.token(hub_id) not in {None, token} for hub_id, token in old.items()))
    deployment.check_recovered()
    sentinels.restart_as_replica(dead)


def test_a_frozen_or_killed_sentinel_interrupts_nothing_and_the_next_failover_succeeds(
    deployment: FaultDeployment, sentinels: Sentinels
) -> None:
    """The frozen or killed one is the first that the URL names."""
    with sentinels.freeze_first_sentinel():
        assert read_readiness(deployment)["redis"] == "ok"
        assert deployment.are_live(deployment.connect(FIRST_HUB_ID))
    sentinels.kill_first_sentinel()
    assert read_readiness(deployment)["redis"] == "ok"
    deployment.product.worker()
    sentinels.kill_primary()
    deployment.wait_for_new_tokens(deployment.make_due())
    deployment.check_recovered()
