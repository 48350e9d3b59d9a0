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
from pathlib import Path

import psutil
import pytest

from sandbox.child_processes import ChildProcess, signal_group
from tests.support.fault_deployment import FaultDeployment, start_fault_deployment
from tests.support.polling import until

SETTINGS = {"SWEEP_SECONDS": "1", "HTTP_TIMEOUT_SECONDS": "4", "LEASE_SECONDS": "13"}
HUBS, LIFETIME, WORKERS, BEATS = 2_000, 30, 3, 2
SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
SEED = int(os.environ.get("SEED") or random.randrange(1_000_000))
#: Each hits a random share of the calls for some seconds. Refusals are answered for by the second witness.
KINDS = (
    "429 477 500 503 bad_refresh_token bad_hub bad_client_secret cut drip empty_200 html_200 lost"
    " negative_expires_in reset slow truncated"
)
#: What Celery says, and ends, where a pool process dies before it has seen the pool come up.
UP_TOO_LATE = "Could not start worker processes"
#: A rotated refresh token lives on for so long: longer than the product may take to save an answer.
GRACE = 120


class Ruin:
    """Everything that may go wrong, each in a method; `dice` chooses."""

    def __init__(self, deployment: FaultDeployment, dice: random.Random) -> None:
        self.deployment = deployment
        self.dice = dice
        self.survived: Counter[str] = Counter()
        self.told_to_stop: list[ChildProcess] = []
        self.ended: list[ChildProcess] = []  #: by themselves, and were started again

    def strike(self) -> None:
        self._supervise()
        fault = self.dice.choice(self.choices())
        name = fault()
        self.survived[name] += 1

    def choices(self) -> list[Callable[[], str]]:
        ours = [self.kill_worker, self.stop_worker, self.kill_child, self.stop_child, self.kill_beat]
        servers = [self.restart_postgres, self.crash_postgres, self.cut, self.kill_redis, self.flush, self.freeze_redis]
        servers.append(self.freeze_postgres)
        return [*ours, *servers, *[self.spoil_hubspot] * 4, self.rotate]

    def kill_worker(self) -> str:
        self._any("worker").kill(signal.SIGKILL)
        self.deployment.product.worker(wait=False)
        return "worker killed"

    def stop_worker(self) -> str:
        self.told_to_stop.append(self._any("worker"))
        self.told_to_stop[-1].send_signal(signal.SIGTERM)
        self.deployment.product.worker(wait=False)
        return "worker told to stop"

    def kill_child(self) -> str:
        return self._signal_child(signal.SIGKILL, "pool process killed")

    def stop_child(self) -> str:
        return self._signal_child(signal.SIGTERM, "pool process told to stop")

    def kill_beat(self) -> str:
        self._any("beat").kill(signal.SIGKILL)
        self.deployment.product.beat(wait=False)
        return "beat killed"

    def restart_postgres(self) -> str:
        self.deployment.servers.postgres.stop()
        self._wait(0, 3)
        self.deployment.servers.postgres.start()
        return "PostgreSQL restarted"

    def crash_postgres(self) -> str:
        self.deployment.servers.crash_postgres()
        self.deployment.servers.postgres.start()
        return "PostgreSQL stopped at once"

    def cut(self) -> str:
        for _ in range(self.dice.randrange(1, 10)):
            self.deployment.terminate_sessions()
            self._wait(0, 0.3)
        return "connections to PostgreSQL cut"

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

    def spoil_hubspot(self) -> str:
        kind = self.dice.choice(KINDS.split())
        share = self.dice.choice((0.02, 0.2, 1.0))
        pause = self.dice.randrange(1, 4) if kind in {"429", "477"} else None
        gap = {"slow": 6.0, "drip": 0.2}.get(kind)
        number = self.deployment.simulator.add_fault(kind, probability=share, retry_after=pause, seconds=gap)
        self._wait(0.5, 5)
        self.deployment.simulator.clear_faults(number)
        return f"HubSpot: {kind}"

    def rotate(self) -> str:
        rotation = self.dice.choice((None, GRACE))
        self.deployment.simulator.change_settings(rotation=rotation, latency=self.dice.choice((0, 0.05, 0.3)))
        return "HubSpot rotates refresh tokens" if rotation else "HubSpot keeps refresh tokens"

    def _supervise(self) -> None:
        """Start again what ended by itself, as an operator does."""
        for running in self.deployment.processes_named("worker") + self.deployment.processes_named("beat"):
            if running in [*self.told_to_stop, *self.ended] or running.status in {None, -signal.SIGKILL}:
                continue
            assert running.has_printed(UP_TOO_LATE), f"{running.name} ended by itself:\n{running.output()[-2000:]}"
            self.ended.append(running)
            self.deployment.product.worker(wait=False)

    def _any(self, name: str) -> ChildProcess:
        """One that runs, or is still starting."""
        ours = [running for running in self.deployment.processes_named(name) if running not in self.told_to_stop]
        return self.dice.choice([running for running in ours if running.status is None])

    def _signal_child(self, signum: int, name: str) -> str:
        children = psutil.Process(self._any("worker").pid).children()
        if children:
            self.dice.choice(children).send_signal(signum)
        return name if children else f"{name} (none had started)"

    def _wait(self, least: float, most: float) -> None:
        time.sleep(self.dice.uniform(least, most))


@pytest.fixture
def deployment(simulator_process: ChildProcess, tmp_path: Path) -> Iterator[FaultDeployment]:
    with start_fault_deployment(tmp_path, simulator_process.url, SETTINGS) as deployment:
        deployment.simulator.change_settings(lifetime=LIFETIME, latency=0.05)
        deployment.import_connections(HUBS)
        deployment.start(workers=WORKERS, beats=BEATS, web=False)
        until(lambda: len(deployment.tokens()) == HUBS, 90)
        yield deployment


@pytest.mark.timeout(SECONDS + 400)
def test_random_faults_cost_no_connection(deployment: FaultDeployment, capsys: pytest.CaptureFixture[str]) -> None:
    ruin, ending = Ruin(deployment, random.Random(SEED)), time.monotonic() + SECONDS
    with capsys.disabled():
        print(f"\nSEED={SEED} SOAK_SECONDS={SECONDS:g}", flush=True)
    with deployment.new_watcher(interval_seconds=0.2) as deployment.watcher:
        while time.monotonic() < ending:
            ruin.strike()
            time.sleep(ruin.dice.uniform(0.2, 4))
        seconds = _all_fresh(deployment)
    with capsys.disabled():
        _tell(deployment, ruin, seconds)
    assert seconds <= LIFETIME, f"all fresh only {seconds:.0f} s after the last fault"
    assert deployment.sql.value("SELECT count(*) FROM hubspot.connections WHERE status = 'active'") == HUBS
    assert deployment.watcher.ended_hub_ids == set()
    assert deployment.never_refreshed_twice_at_once(), deployment.simulator.get_stats(by_hub=False)[
        "violation_details"
    ][:5]
    assert deployment.watcher.found_no_refused_token(), deployment.watcher.refused[:5]
    _nobody_stays_behind(deployment, ruin)


def _all_fresh(deployment: FaultDeployment) -> float:
    """Seconds until everybody has a token of which HubSpot says that it is in the first three quarters of its life."""
    deployment.simulator.clear_faults()
    begun = time.monotonic()

    def fresh() -> bool:
        checks = deployment.simulator.check_tokens(list(deployment.tokens().values()))
        young = sum(check.is_live and (check.seconds_left or 0) > LIFETIME / 5 for check in checks)
        return young == HUBS

    until(fresh, 3 * LIFETIME)
    return time.monotonic() - begun


def _nobody_stays_behind(deployment: FaultDeployment, ruin: Ruin) -> None:
    """Who was told to stop has done so; no pool process outlives its worker."""
    for running in ruin.told_to_stop:
        assert running.wait(30) in {0, -signal.SIGTERM}, running.log  # -15: it was just starting
    gone = [running for running in deployment.product.running if running.status is not None]
    until(lambda: not any(signal_group(running.pid, 0) for running in gone))


def _tell(deployment: FaultDeployment, ruin: Ruin, seconds: float) -> None:
    stats, watcher = deployment.simulator.get_stats(), deployment.watcher
    refreshes = sum(row["refreshes"] for row in stats["by_hub"].values())
    print(f"{sum(ruin.survived.values())} faults survived:")
    for name, times in ruin.survived.most_common():
        print(f"  {times:4}  {name}")
    print(f"  {len(ruin.ended):4}  worker that lost a pool process while it started, and was started again")
    print(
        f"{watcher.reads} tokens read, {len(watcher.refused)} refused by HubSpot;"
        f" {len(watcher.ended_hub_ids)} connections ended"
    )
    print(f"{refreshes} refreshes, at most {stats['most_refreshes_of_one_hub']} of one hub at once")
    print(f"all {HUBS} fresh {seconds:.1f} s after the last fault", flush=True)
