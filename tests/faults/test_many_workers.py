"""Four workers of two pool processes each and two beats on one database, as `--scale worker=4` starts them."""

from __future__ import annotations

import re

import pytest

from sandbox.child_processes import ChildProcess
from tests.faults.held_refreshes import holding_refreshes
from tests.support.fault_deployment import FaultDeployment
from tests.support.polling import until

WORKERS = 4
#: More than one worker of two pool processes could have in flight at once.
HUBS = 200
#: Together they send no more calls at once than the simulator answers in a fraction of the timeout.
SETTINGS = {"REFRESH_CONCURRENCY": "10", "HTTP_TIMEOUT_SECONDS": "3", "LEASE_SECONDS": "11"}
#: Rounds in which all connections are refreshed; more until each worker has had a share.
ROUNDS, MAX_ROUNDS = 3, 30


@pytest.fixture(scope="module")
def connected_deployment(started_deployment: FaultDeployment) -> FaultDeployment:
    started_deployment.start(workers=WORKERS - 1, beats=1, web=False)
    started_deployment.import_connections(HUBS)
    until(lambda: len(started_deployment.tokens()) == HUBS, 60)
    return started_deployment


def count_logged_by(worker: ChildProcess) -> tuple[int, int]:
    """The number of refreshes that the worker saved, and of attempts without a token."""
    sums = re.findall(r"refreshes +\S+ connections=(\d+) failed=(\d+)", worker.output())
    return sum(int(saved) for saved, _ in sums), sum(int(failed) for _, failed in sums)


def count_logged(workers: list[ChildProcess]) -> tuple[int, int]:
    """The same for all workers, once they have logged every call."""
    return sum(count_logged_by(worker)[0] for worker in workers), sum(count_logged_by(worker)[1] for worker in workers)


def test_several_workers_share_the_refreshes_and_never_refresh_a_hub_twice_at_once(deployment: FaultDeployment) -> None:
    deployment.simulator.change_settings(latency=0.2, lifetime=1800)  # none falls due by itself
    workers, rounds = deployment.processes_named("worker"), 0
    until(lambda: sum(count_logged(workers)) == deployment.count_refreshes())
    (_, failed), calls = count_logged(workers), deployment.count_refreshes()
    before = {worker.name: count_logged_by(worker)[0] for worker in workers}

    def have_all_refreshed() -> bool:
        return min(count_logged_by(worker)[0] - before[worker.name] for worker in workers) > 0

    while rounds < ROUNDS or not (have_all_refreshed() or rounds == MAX_ROUNDS):
        deployment.wait_for_new_tokens(deployment.make_due())
        rounds += 1
    until(lambda: sum(count_logged(workers)) == deployment.count_refreshes())
    more = deployment.count_refreshes() - calls - rounds * HUBS
    assert more == count_logged(workers)[1] - failed, (
        "a worker refreshed a connection that another one had just refreshed"
    )
    assert have_all_refreshed()
    deployment.check_recovered()


def test_when_half_of_the_workers_are_killed_the_others_refresh_all_connections(deployment: FaultDeployment) -> None:
    deployment.simulator.change_settings(latency=0.2)
    with holding_refreshes(deployment, at_least=30) as before:
        for worker in deployment.processes_named("worker")[:2]:
            worker.kill()
    deployment.wait_for_new_tokens(before)
    deployment.check_recovered()
