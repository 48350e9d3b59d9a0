"""Ten minutes of random faults, seeded: 2,000 connections of 30-second tokens, three workers, two beats.

`make soak` runs it; `SEED=… SOAK_SECONDS=… make soak` repeats or changes it.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest

from sandbox.child_processes import ChildProcess, signal_group
from tests.support.fault_deployment import MAINTENANCE, FaultDeployment, start_fault_deployment
from tests.support.polling import until
from tests.support.replication import Names
from tests.support.wall_clock import WallClock

SETTINGS = {"SWEEP_SECONDS": "1", "HTTP_TIMEOUT_SECONDS": "4", "LEASE_SECONDS": "13"}
HUBS, LIFETIME_SECONDS, WORKERS, BEATS = 2_000, 30, 3, 2
RUN_SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
SEED = int(os.environ.get("SEED") or random.randrange(1_000_000))
#: Each applies to a random share of the calls for some seconds. Introspection contradicts the refusals.
FAULTS = (
    "429 477 500 503 bad_refresh_token bad_hub bad_client_secret cut drip empty_200 html_200 lost"
    " negative_expires_in no_access_token odd_forms reset slow truncated"
)
#: Celery prints this and exits where a pool process dies before the pool has started.
POOL_DID_NOT_START = "Could not start worker processes"
#: How long a rotated refresh token stays valid: longer than the product may take to save an answer.
GRACE_SECONDS = 120


class RandomFaults:
    """Every kind of fault, each in a method; `dice` chooses."""

    def __init__(self, names: Names, clock: WallClock, dice: random.Random) -> None:
        """`clock`: that of the hosts on which beats run."""
        self.names = names
        self.clock = clock
        self.deployment = names.deployment
        self.dice = dice
        self.counts: Counter[str] = Counter()
        self.terminated: list[ChildProcess] = []
        self.ended: list[ChildProcess] = []  #: exited by themselves, and were started again

    def inject(self) -> None:
        self._supervise()
        fault = self.dice.choice(self.choices())
        name = fault()
        self.counts[name] += 1

    def choices(self) -> list[Callable[[], str]]:
        processes = [self.kill_worker, self.stop_worker, self.kill_child, self.stop_child, self.kill_beat]
        processes += [self.set_clock]
        servers = [
            self.restart_postgres,
            self.crash_postgres,
            self.fail_over,
            self.terminate_sessions,
            self.kill_redis,
            self.flush,
            self.freeze_redis,
        ]
        servers += [self.freeze_postgres, self.lock_rows, self.leave_request_open, self.keep_snapshot]
        servers += [self.lock_history, self.maintain]
        return [*processes, *servers, *[self.spoil_hubspot] * 4, self.rotate]

    def kill_worker(self) -> str:
        self._any("worker").kill(signal.SIGKILL)
        self.deployment.product.worker(wait=False)
        return "worker killed"

    def stop_worker(self) -> str:
        self.terminated.append(self._any("worker"))
        self.terminated[-1].send_signal(signal.SIGTERM)
        self.deployment.product.worker(wait=False)
        return "worker terminated"

    def kill_child(self) -> str:
        return self._signal_child(signal.SIGKILL, "pool process killed")

    def stop_child(self) -> str:
        return self._signal_child(signal.SIGTERM, "pool process terminated")

    def kill_beat(self) -> str:
        self._any("beat").kill(signal.SIGKILL)
        self.deployment.product.beat(wait=False, **self.clock.settings)
        return "beat killed"

    def set_clock(self) -> str:
        self.clock.set_ahead(self.dice.uniform(-600, 600))
        return "the clock of the beats set"

    def restart_postgres(self) -> str:
        self.deployment.servers.postgres.stop()
        self._wait(0, 3)
        self.deployment.servers.postgres.start()
        return "PostgreSQL restarted"

    def crash_postgres(self) -> str:
        self.deployment.servers.crash_postgres()
        self.deployment.servers.postgres.start()
        return "PostgreSQL crashed"

    def fail_over(self) -> str:
        """Half of the times the new primary lacks the newest commits."""
        standby = self.names.add_standby()
        if is_behind := self.dice.random() < 0.5:
            standby.stop_receiving()
            self._wait(0, 1)
        self.names.fail_over(standby)
        return f"PostgreSQL failed over{' and lost commits' if is_behind else ''}"

    def terminate_sessions(self) -> str:
        for _ in range(self.dice.randrange(1, 10)):
            self.deployment.terminate_sessions()
            self._wait(0, 0.3)
        return "sessions in PostgreSQL terminated"

    def kill_redis(self) -> str:
        self.deployment.servers.kill_valkey()
        self._wait(0, 3)
        self.deployment.servers.valkey.start()
        return "Redis killed"

    def flush(self) -> str:
        self.deployment.servers.flush()
        return "Redis flushed"

    def freeze_redis(self) -> str:
        with self.deployment.servers.freeze_valkey():
            self._wait(1, 5)
        return "Redis frozen"

    def freeze_postgres(self) -> str:
        with self.deployment.servers.freeze_postgres():
            self._wait(1, 5)
        return "PostgreSQL frozen"

    def lock_rows(self) -> str:
        """As an administrator's UPDATE that is not committed."""
        share = self.dice.choice((0.001, 0.02, 0.2))
        with self._transaction() as cursor:
            cursor.execute("SELECT FROM tokenkeeper.connections WHERE random() < %s FOR UPDATE SKIP LOCKED", (share,))
            self._wait(0.5, 8)
        return "rows locked"

    def leave_request_open(self) -> str:
        """As a job that asks for refreshes and does not commit."""
        with self._transaction() as cursor:
            hubs = self.dice.sample(self.deployment.hubs, 20)
            cursor.execute("SELECT hubspot.request_refresh(hub_id) FROM unnest(%s) AS hub_id", (hubs,))
            self._wait(0.5, 8)
        return "requests in an open transaction"

    def keep_snapshot(self) -> str:
        with self._transaction() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT FROM hubspot.tokens")
            self._wait(0.5, 8)
        return "snapshot kept open"

    def lock_history(self) -> str:
        """As an administrator's REINDEX of the table that grows."""
        with self._transaction() as cursor:
            cursor.execute("LOCK TABLE tokenkeeper.history IN SHARE MODE")
            self._wait(0.5, 8)
        return "history locked"

    def maintain(self) -> str:
        statement = self.dice.choice(MAINTENANCE)
        with self._transaction() as cursor, suppress(psycopg2.OperationalError):  # it may be in a deadlock
            cursor.connection.autocommit = True
            cursor.execute(statement)
        return f"maintenance: {statement.partition(' tokenkeeper')[0]}"

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Of another program; it is rolled back."""
        connection = until(self._try_to_connect)
        try:
            yield connection.cursor()
        finally:
            connection.close()

    def _try_to_connect(self) -> Any:
        with suppress(psycopg2.OperationalError):  # the server of the fault before is starting
            return psycopg2.connect(self.deployment.database_url)
        return None

    def spoil_hubspot(self) -> str:
        kind = self.dice.choice(FAULTS.split())
        share = self.dice.choice((0.02, 0.2, 1.0))
        pause = self.dice.randrange(1, 4) if kind in {"429", "477"} else None
        gap = {"slow": 6.0, "drip": 0.2}.get(kind)
        number = self.deployment.simulator.add_fault(kind, probability=share, retry_after=pause, seconds=gap)
        self._wait(0.5, 5)
        self.deployment.simulator.clear_faults(number)
        return f"HubSpot: {kind}"

    def rotate(self) -> str:
        rotation = self.dice.choice((None, GRACE_SECONDS))
        self.deployment.simulator.change_settings(rotation=rotation, latency=self.dice.choice((0, 0.05, 0.3)))
        return "HubSpot rotates refresh tokens" if rotation else "HubSpot keeps refresh tokens"

    def _supervise(self) -> None:
        """Start workers again that exited by themselves, as an operator does."""
        for running in self.deployment.processes_named("worker") + self.deployment.processes_named("beat"):
            if running in [*self.terminated, *self.ended] or running.status in {None, -signal.SIGKILL}:
                continue
            assert running.has_printed(POOL_DID_NOT_START), (
                f"{running.name} ended by itself:\n{running.output()[-2000:]}"
            )
            self.ended.append(running)
            self.deployment.product.worker(wait=False)

    def _any(self, name: str) -> ChildProcess:
        """A random process of that name that runs or is starting."""
        candidates = [running for running in self.deployment.processes_named(name) if running not in self.terminated]
        return self.dice.choice([running for running in candidates if running.status is None])

    def _signal_child(self, signum: int, name: str) -> str:
        children = psutil.Process(self._any("worker").pid).children()
        if children:
            self.dice.choice(children).send_signal(signum)
        return name if children else f"{name} (none had started)"

    def _wait(self, least: float, most: float) -> None:
        time.sleep(self.dice.uniform(least, most))


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path / "clock")


@pytest.fixture
def names(simulator_process: ChildProcess, tmp_path: Path, clock: WallClock) -> Iterator[Names]:
    with ExitStack() as stack:
        deployment = stack.enter_context(start_fault_deployment(tmp_path, simulator_process.url, SETTINGS))
        names = Names(deployment, stack)
        stack.callback(deployment.product.stop)
        deployment.simulator.change_settings(lifetime=LIFETIME_SECONDS, latency=0.05)
        deployment.import_connections(HUBS)
        deployment.start(workers=WORKERS, beats=0, web=False)
        for _ in range(BEATS):
            deployment.product.beat(**clock.settings)
        until(lambda: len(deployment.tokens()) == HUBS, 90)
        yield names


@pytest.mark.timeout(RUN_SECONDS + 400)
def test_random_faults_end_no_connection(names: Names, clock: WallClock, capsys: pytest.CaptureFixture[str]) -> None:
    deployment = names.deployment
    faults, deadline = RandomFaults(names, clock, random.Random(SEED)), time.monotonic() + RUN_SECONDS
    with capsys.disabled():
        print(f"\nSEED={SEED} SOAK_SECONDS={RUN_SECONDS:g}", flush=True)
    with deployment.new_watcher(interval_seconds=0.2) as deployment.watcher:
        while time.monotonic() < deadline:
            faults.inject()
            time.sleep(faults.dice.uniform(0.2, 4))
        seconds = _measure_recovery_seconds(deployment)
    with capsys.disabled():
        _print_report(deployment, faults, seconds)
    assert seconds <= LIFETIME_SECONDS, f"all fresh only {seconds:.0f} s after the last fault"
    assert deployment.sql.value("SELECT count(*) FROM hubspot.connections WHERE status = 'active'") == HUBS
    assert deployment.watcher.ended_hub_ids == set()
    assert deployment.never_refreshed_twice_at_once(), deployment.simulator.get_stats(by_hub=False)[
        "violation_details"
    ][:5]
    assert deployment.watcher.found_no_refused_token(), deployment.watcher.refused[:5]
    _check_no_process_remains(deployment, faults)


def _measure_recovery_seconds(deployment: FaultDeployment) -> float:
    """Seconds until HubSpot says of every token that more than a fifth of its lifetime is left."""
    deployment.simulator.clear_faults()
    started_at = time.monotonic()

    def are_all_fresh() -> bool:
        checks = deployment.simulator.check_tokens(list(deployment.tokens().values()))
        fresh = sum(check.is_live and (check.seconds_left or 0) > LIFETIME_SECONDS / 5 for check in checks)
        return fresh == HUBS

    until(are_all_fresh, 3 * LIFETIME_SECONDS)
    return time.monotonic() - started_at


def _check_no_process_remains(deployment: FaultDeployment, faults: RandomFaults) -> None:
    """Every terminated process has exited; no pool process outlives its worker."""
    for running in faults.terminated:
        assert running.wait(30) in {0, -signal.SIGTERM}, running.log  # -15: it was still starting
    exited = [running for running in deployment.product.running if running.status is not None]
    until(lambda: not any(signal_group(running.pid, 0) for running in exited))


def _print_report(deployment: FaultDeployment, faults: RandomFaults, seconds: float) -> None:
    stats, watcher = deployment.simulator.get_stats(), deployment.watcher
    refreshes = sum(row["refreshes"] for row in stats["by_hub"].values())
    print(f"{sum(faults.counts.values())} faults injected:")
    for name, times in faults.counts.most_common():
        print(f"  {times:4}  {name}")
    print(f"  {len(faults.ended):4}  worker that lost a pool process while it started, and was started again")
    print(
        f"{watcher.reads} tokens read, {len(watcher.refused)} refused by HubSpot;"
        f" {len(watcher.ended_hub_ids)} connections ended"
    )
    print(f"{refreshes} refreshes, at most {stats['most_refreshes_of_one_hub']} of one hub at once")
    print(f"all {HUBS} fresh {seconds:.1f} s after the last fault", flush=True)
