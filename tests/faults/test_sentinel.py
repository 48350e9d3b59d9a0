"""Redis by Sentinel: its primary dies, the replica takes over, and nobody lifts a hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from sandbox.child_processes import ChildProcess
from tests.support.fleet import FIRST_HUB, Fleet, servers_and_product
from tests.support.polling import until
from tests.support.sentinels import Sentinels


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    made = Sentinels(tmp_path_factory.mktemp("sentinels"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def grounds(
    sentinels: Sentinels, simulator_process: ChildProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    logs = tmp_path_factory.mktemp("product")
    with servers_and_product(logs, simulator_process.url, {"REDIS_URL": sentinels.url()}) as fleet:
        fleet.world.started(beats=2)
        yield fleet


def ready(fleet: Fleet) -> dict[str, str]:
    answer = requests.get(f"{fleet.world.home}/readyz", timeout=10)
    return dict(answer.json())


def test_all_of_it_runs_by_sentinel(fleet: Fleet) -> None:
    assert ready(fleet) == {"postgres": "ok", "redis": "ok"}
    told = fleet.world.product.tokenkeeper("doctor")
    assert "redis" in told.stdout
    assert "answers" in next(line for line in told.stdout.splitlines() if "redis" in line)
    assert fleet.world.live(fleet.world.connected(FIRST_HUB))
    fleet.well_again()


def test_the_primary_dies_and_sweeps_resume_by_themselves(fleet: Fleet, sentinels: Sentinels) -> None:
    dead = sentinels.kill_primary()
    until(lambda: sentinels.primary() is not dead)
    over = fleet.sql.now()
    until(lambda: fleet.sql.value("SELECT swept_at > %s FROM tokenkeeper.provider", over))
    fleet.replaced(fleet.due())
    assert [running.status for running in fleet.world.product.running] == [None] * 4
    until(lambda: ready(fleet)["redis"] == "ok")
    fleet.well_again()
    sentinels.restart_as_replica(dead)


def test_installs_while_there_is_no_primary_are_stored(fleet: Fleet, sentinels: Sentinels) -> None:
    old = {hub_id: fleet.world.token(hub_id) for hub_id in fleet.hubs[:4]}
    dead = sentinels.kill_primary()
    for hub_id in old:
        assert fleet.world.install(hub_id).status_code == 303
    until(lambda: all(fleet.world.token(hub_id) not in {None, token} for hub_id, token in old.items()))
    fleet.well_again()
    sentinels.restart_as_replica(dead)


def test_a_sentinel_that_hangs_or_is_dead_is_nobodys_business(fleet: Fleet, sentinels: Sentinels) -> None:
    """It is the one that the URL names first; and the next failover comes all the same."""
    with sentinels.freeze_first_sentinel():
        assert ready(fleet)["redis"] == "ok"
        assert fleet.world.live(fleet.world.connected(FIRST_HUB))
    sentinels.kill_first_sentinel()
    assert ready(fleet)["redis"] == "ok"
    fleet.world.product.worker()
    sentinels.kill_primary()
    fleet.replaced(fleet.due())
    fleet.well_again()
