"""Hosts' clocks that are wrong or are set: beat and the worker run with wall clocks of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import psycopg2
import pytest
import redis

from sandbox.child_processes import ChildProcess
from tests.faults.held_refreshes import PATIENT
from tests.support.fault_deployment import FaultDeployment, start_fault_deployment
from tests.support.polling import until
from tests.support.wall_clock import WallClock

#: Sweeps that beat begins in a row, until a test is sure that beat goes on.
SWEEPS = 3
HAS_BEAT_SWEPT = "SELECT swept_at > %s AND swept_without_beat_since IS NULL FROM tokenkeeper.provider"
SHIFTS_SECONDS = {"beat": -1.5, "worker": 1.5}

Clocks = Mapping[str, WallClock]


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> Clocks:
    folder = tmp_path_factory.mktemp("clocks")
    clocks = {name: WallClock(folder / name) for name in SHIFTS_SECONDS}
    for name, clock in clocks.items():
        clock.set_ahead(SHIFTS_SECONDS[name])
    return clocks


@pytest.fixture(scope="module")
def started_deployment(
    simulator_process: ChildProcess, tmp_path_factory: pytest.TempPathFactory, clocks: Clocks
) -> Iterator[FaultDeployment]:
    """Beat's clock is behind the worker's by more than a sweep, and PostgreSQL's is between them."""
    logs = tmp_path_factory.mktemp("product")
    with start_fault_deployment(logs, simulator_process.url, PATIENT) as deployment:
        deployment.product.web()
        deployment.product.worker(**clocks["worker"].settings)
        deployment.product.beat(**clocks["beat"].settings)
        yield deployment


def wait_for_sweeps_of_beat(deployment: FaultDeployment) -> None:
    """SWEEPS sweeps that beat began; on a busy machine workers may begin others between them."""
    for _ in range(SWEEPS):
        since = deployment.sql.now()
        until(lambda since=since: deployment.sql.value(HAS_BEAT_SWEPT, since))


def test_messages_of_a_beat_behind_reach_a_worker_ahead(deployment: FaultDeployment) -> None:
    wait_for_sweeps_of_beat(deployment)
    deployment.check_recovered()


def test_a_message_in_work_is_dated_by_the_clock_of_redis(deployment: FaultDeployment, clocks: Clocks) -> None:
    """Else another worker would deliver it again at once, or the one that takes over from a dead worker much later."""
    session = psycopg2.connect(deployment.database_url)
    clocks["worker"].set_ahead(3600)
    with redis.Redis.from_url(deployment.servers.valkey.url()) as broker:
        try:
            with session.cursor() as cursor:
                cursor.execute("SELECT FROM tokenkeeper.connections FOR UPDATE")
                assert deployment.install(deployment.hubs[0]).status_code == 303
                dated = until(lambda: broker.zrange("unacked_index", 0, -1, withscores=True))
                seconds, _ = broker.time()
                assert abs(dated[0][1] - seconds) < 60
        finally:
            session.close()
            clocks["worker"].set_ahead(SHIFTS_SECONDS["worker"])
    deployment.check_recovered()


@pytest.mark.parametrize(("name", "seconds"), [("beat", -180.0), ("beat", 180.0), ("worker", 180.0)])
def test_a_clock_that_is_set_stops_nothing(
    deployment: FaultDeployment, clocks: Clocks, name: str, seconds: float
) -> None:
    wait_for_sweeps_of_beat(deployment)
    clocks[name].set_ahead(SHIFTS_SECONDS[name] + seconds)
    try:
        wait_for_sweeps_of_beat(deployment)
        before = deployment.token(deployment.hubs[0])
        assert deployment.install(deployment.hubs[0]).status_code == 303
        until(lambda: deployment.token(deployment.hubs[0]) != before)
        deployment.check_recovered()
    finally:
        clocks[name].set_ahead(SHIFTS_SECONDS[name])
