"""Hosts' clocks that are wrong or are set: beat and the worker run with wall clocks of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
import redis

from sandbox.child_processes import ChildProcess
from tests.support.environment import ROOT
from tests.support.fault_deployment import FaultDeployment, start_fault_deployment
from tests.support.polling import until

CLOCK_SETTERS = ROOT / "tests" / "support" / "shifted_clock"
#: Sweeps that beat begins in a row, until a test is sure that beat goes on.
SWEEPS = 3
SHIFTS_SECONDS = {"beat": -1.5, "worker": 1.5}


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file with the seconds by which the clock of a process is shifted."""
    folder = tmp_path_factory.mktemp("clocks")
    for name, seconds in SHIFTS_SECONDS.items():
        (folder / name).write_text(str(seconds))
    return lambda name: folder / name


@pytest.fixture(scope="module")
def started_deployment(
    simulator_process: ChildProcess, tmp_path_factory: pytest.TempPathFactory, clocks: Callable[[str], Path]
) -> Iterator[FaultDeployment]:
    """Beat's clock is behind the worker's by more than a sweep, and PostgreSQL's is between them."""
    logs = tmp_path_factory.mktemp("product")
    with start_fault_deployment(logs, simulator_process.url, {}) as deployment:
        shifted = {
            name: {"PYTHONPATH": str(CLOCK_SETTERS), "CLOCK_SHIFT_FILE": str(clocks(name))} for name in SHIFTS_SECONDS
        }
        deployment.product.web()
        deployment.product.worker(**shifted["worker"])
        deployment.product.beat(**shifted["beat"])
        yield deployment


def wait_for_sweeps_of_beat(deployment: FaultDeployment) -> None:
    """SWEEPS sweeps, each begun by a message of beat. Raises AssertionError where a worker swept by itself."""
    for _ in range(SWEEPS):
        since = deployment.sql.now()
        until(lambda since=since: deployment.sql.value("SELECT swept_at > %s FROM tokenkeeper.provider", since))
    assert deployment.sql.value("SELECT swept_without_beat_since FROM tokenkeeper.provider") is None


def test_messages_of_a_beat_behind_reach_a_worker_ahead(deployment: FaultDeployment) -> None:
    wait_for_sweeps_of_beat(deployment)
    deployment.check_recovered()


def test_a_message_in_work_is_dated_by_the_clock_of_redis(
    deployment: FaultDeployment, clocks: Callable[[str], Path]
) -> None:
    """Else another worker would deliver it again at once, or the one that takes over from a dead worker much later."""
    session = psycopg2.connect(deployment.database_url)
    clocks("worker").write_text("3600")
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
            clocks("worker").write_text(str(SHIFTS_SECONDS["worker"]))
    deployment.check_recovered()


@pytest.mark.parametrize(("name", "seconds"), [("beat", -180.0), ("beat", 180.0), ("worker", 180.0)])
def test_a_clock_that_is_set_stops_nothing(
    deployment: FaultDeployment, clocks: Callable[[str], Path], name: str, seconds: float
) -> None:
    wait_for_sweeps_of_beat(deployment)
    clocks(name).write_text(str(SHIFTS_SECONDS[name] + seconds))
    try:
        wait_for_sweeps_of_beat(deployment)
        before = deployment.token(deployment.hubs[0])
        assert deployment.install(deployment.hubs[0]).status_code == 303
        until(lambda: deployment.token(deployment.hubs[0]) != before)
        deployment.check_recovered()
    finally:
        clocks(name).write_text(str(SHIFTS_SECONDS[name]))
