"""As by `--scale worker=4` and a second beat: four workers of two pool processes each, on one database."""

from __future__ import annotations

import re

import pytest

from tests.faults.fleet import Fleet
from tests.journeys.world import until
from tests.servers import Running

WORKERS = 4
#: More than one worker of two pool processes could have in flight at once.
HUBS = 1_200
SETTINGS = {"REFRESH_CONCURRENCY": "100"}


@pytest.fixture(scope="module")
def crew(grounds: Fleet) -> Fleet:
    grounds.world.started(workers=WORKERS - 1, beats=1, web=False)
    grounds.imported(HUBS)
    until(lambda: len(grounds.world.tokens()) == HUBS, 60)
    return grounds


def saved_by(worker: Running) -> int:
    """Refreshes that it told of."""
    return sum(map(int, re.findall(r"refreshed +\S+ connections=(\d+)", worker.output())))


def test_they_share_the_work_and_never_ask_for_one_hub_twice_at_once(fleet: Fleet) -> None:
    fleet.simulator.settings(latency=0.2, lifetime=1800)  # none falls due by itself
    workers, rounds = fleet.world.named("worker"), 3
    until(lambda: sum(map(saved_by, workers)) == fleet.calls())
    before = {worker.name: saved_by(worker) for worker in workers}
    calls = fleet.calls()
    for _ in range(rounds):
        fleet.replaced(fleet.due())
    assert fleet.calls() - calls == rounds * HUBS, "somebody asked for a token that another one had just been given"
    until(lambda: sum(map(saved_by, workers)) == fleet.calls())
    assert min(saved_by(worker) - before[worker.name] for worker in workers) > 0
    fleet.well_again()


def test_half_of_them_may_die_and_the_others_go_on(fleet: Fleet) -> None:
    fleet.simulator.settings(latency=0.2)
    before = fleet.due_and_under_way(at_least=50)
    for worker in fleet.world.named("worker")[:2]:
        worker.kill()
    fleet.replaced(before)
    fleet.well_again()
