"""What a span of time cost: CPU by process and memory by process, PostgreSQL's write volume, HubSpot's answers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

from bench.world import World

#: Whose CPU counts as the product's.
OURS = ("worker", "postgres", "valkey")


@dataclass(frozen=True, slots=True)
class Instant:
    at: float
    refreshes: int
    cpu: Mapping[str, float]  #: seconds so far, by group of processes
    wal: int  #: bytes so far


@dataclass(frozen=True, slots=True)
class Span:
    """What went on between two instants."""

    seconds: float
    refreshes: int
    cpu: Mapping[str, float]  #: seconds, by group of processes
    wal: int  #: bytes

    @property
    def rate(self) -> float:
        """Refreshes a second."""
        return self.refreshes / self.seconds

    def cpu_per_refresh(self, *groups: str) -> float:
        """Milliseconds."""
        return 1000 * sum(self.cpu.get(group, 0.0) for group in groups) / max(1, self.refreshes)

    @property
    def wal_per_refresh(self) -> float:
        """Bytes."""
        return self.wal / max(1, self.refreshes)


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes of the processes of a group."""

    processes: int
    largest: float  #: resident, of the largest process, shared pages and all
    total: float  #: of all, shared pages counted once


class Meter:
    """`roots`: the first process of each group; the servers and HubSpot come by themselves."""

    def __init__(self, world: World, roots: Mapping[str, int]) -> None:
        servers = {"postgres": world.postgres.process, "valkey": world.valkey.process}
        self._roots = {
            **{name: process.pid for name, process in servers.items() if process},
            "hubspot": world.hubspot.process.pid,
            **roots,
        }
        self._world = world

    def now(self) -> Instant:
        wal = int(self._world.value("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))
        cpu = {name: _cpu(pid) for name, pid in self._roots.items()}
        answers = self._world.hubspot.answers()
        return Instant(answers.at, answers.answered.get("refresh", 0), cpu, wal)

    def memory(self) -> dict[str, Memory]:
        return {name: _memory(pid) for name, pid in self._roots.items()}


def between(before: Instant, after: Instant) -> Span:
    cpu = {name: after.cpu[name] - before.cpu[name] for name in after.cpu}
    return Span(after.at - before.at, after.refreshes - before.refreshes, cpu, after.wal - before.wal)


def _family(pid: int) -> list[psutil.Process]:
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def _cpu(pid: int) -> float:
    """Seconds of a process, of those below it, and of those below that have ended."""
    total = 0.0
    for process in _family(pid):
        with suppress(psutil.NoSuchProcess):  # its parent has its seconds now; a reading later they are here again
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _memory(pid: int) -> Memory:
    resident, shared_once = [], []
    for process in _family(pid):
        with suppress(psutil.NoSuchProcess):
            told = process.memory_full_info()
            resident.append(told.rss / 1e6)
            shared_once.append(getattr(told, "pss", told.rss) / 1e6)
    return Memory(len(resident), max(resident, default=0.0), sum(shared_once))
