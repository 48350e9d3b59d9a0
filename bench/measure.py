"""The cost of an interval: CPU and memory by process, PostgreSQL's write volume, HubSpot's answers."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

from bench.testbed import Testbed

#: The groups of processes whose CPU counts as the product's.
PRODUCT_GROUPS = ("worker", "postgres", "valkey")


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters at one moment."""

    read_at: float  #: seconds, by the machine's monotonic clock
    refreshes: int
    cpu_seconds: Mapping[str, float]  #: by group of processes
    wal_bytes: int


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened between two readings."""

    seconds: float
    refreshes: int
    cpu_seconds: Mapping[str, float]  #: by group of processes
    wal_bytes: int

    @classmethod
    def between(cls, before: Reading, after: Reading) -> Interval:
        return cls(
            seconds=after.read_at - before.read_at,
            refreshes=after.refreshes - before.refreshes,
            cpu_seconds={name: after.cpu_seconds[name] - before.cpu_seconds[name] for name in after.cpu_seconds},
            wal_bytes=after.wal_bytes - before.wal_bytes,
        )

    @property
    def refreshes_per_second(self) -> float:
        return self.refreshes / self.seconds

    @property
    def wal_bytes_per_refresh(self) -> float:
        return self.wal_bytes / max(1, self.refreshes)

    def cpu_ms_per_refresh(self, *groups: str) -> float:
        return 1000 * sum(self.cpu_seconds.get(group, 0.0) for group in groups) / max(1, self.refreshes)


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a group of processes."""

    largest_mb: float  #: resident, of the largest process, shared pages included
    total_mb: float  #: of all processes, shared pages counted once


class Meter:
    """Reads the counters of groups of processes.

    `roots`: the first process of each group by its name. PostgreSQL, Valkey and HubSpot are added.
    """

    def __init__(self, testbed: Testbed, roots: Mapping[str, int]) -> None:
        servers = {"postgres": testbed.postgres.process, "valkey": testbed.valkey.process}
        self._roots = {
            **{name: process.pid for name, process in servers.items() if process},
            "hubspot": testbed.hubspot.process.pid,
            **roots,
        }
        self._testbed = testbed

    def read(self) -> Reading:
        wal_bytes = int(self._testbed.fetch_value("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))
        cpu_seconds = {name: read_cpu_seconds(pid) for name, pid in self._roots.items()}
        counters = self._testbed.hubspot.read_counters()
        return Reading(counters.read_at, counters.refreshes, cpu_seconds, wal_bytes)

    def read_memory(self) -> dict[str, Memory]:
        return {name: _read_memory(pid) for name, pid in self._roots.items()}


def read_cpu_seconds(pid: int) -> float:
    """Of a process, its descendants, and those of them that have ended."""
    total = 0.0
    for process in _list_process_tree(pid):
        with suppress(psutil.NoSuchProcess):  # it has just ended: its parent's next reading includes it
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


@dataclass(frozen=True, slots=True)
class MachineLoad:
    """What the whole machine has done so far, and this process with all that it has started."""

    read_at: float
    all_seconds: float  #: of CPU
    own_seconds: float

    @classmethod
    def read(cls) -> MachineLoad:
        times = psutil.cpu_times()
        busy = times.user + times.system + getattr(times, "nice", 0.0) + getattr(times, "steal", 0.0)
        return cls(time.monotonic(), busy, read_cpu_seconds(os.getpid()))

    def others_percent(self, before: MachineLoad) -> float:
        """What other programs have used since, of all cores."""
        others = (self.all_seconds - before.all_seconds) - (self.own_seconds - before.own_seconds)
        return max(0.0, 100 * others / (self.read_at - before.read_at) / (os.cpu_count() or 1))


def _read_memory(pid: int) -> Memory:
    resident_mb, proportional_mb = [], []
    for process in _list_process_tree(pid):
        with suppress(psutil.NoSuchProcess):
            info = process.memory_full_info()
            resident_mb.append(info.rss / 1e6)
            proportional_mb.append(getattr(info, "pss", info.rss) / 1e6)
    return Memory(max(resident_mb, default=0.0), sum(proportional_mb))


def _list_process_tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]
