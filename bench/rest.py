"""Measures the product at rest: what all its processes take while a small installation has little to do."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench import installs, product
from bench.measure import Interval, Memory
from bench.testbed import Testbed

#: The processes that count: all but Flower and the simulated HubSpot.
GROUPS = ("web", "worker", "beat", "postgres", "valkey")


@dataclass(frozen=True, slots=True)
class Rest:
    memory: dict[str, Memory]  #: by group of processes
    interval: Interval

    @property
    def total_mb(self) -> float:
        """Proportional set size of all: pages that processes share are counted once."""
        return sum(self.memory[group].total_mb for group in GROUPS)

    @property
    def cpu_percent(self) -> float:
        """Of one core."""
        return 100 * sum(self.interval.cpu_seconds[group] for group in GROUPS) / self.interval.seconds


def measure_rest(testbed: Testbed, settle_seconds: float, window_seconds: float, windows: int) -> list[Rest]:
    """With the connections that are stored, in several windows of one run. Raises BenchmarkError, ProcessFailed.

    `settle_seconds`: after the first refreshes; every process has then imported and built what it needs.
    """
    with installs.run_web(testbed) as web, product.run_product(testbed, web=web.process.pid) as meter:
        installs.measure_installs(testbed, web.url, installs.FIRST_HUB_ID, 1)  # each of web's parts has worked once
        product.wait_for_first_refresh(testbed)
        time.sleep(settle_seconds)
        rests = []
        for _ in range(windows):
            before = meter.read()
            time.sleep(window_seconds)
            rests.append(Rest(meter.read_memory(), Interval.between(before, meter.read())))
    installs.delete_installs(testbed)
    return rests
