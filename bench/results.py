"""Every value that was measured, by size and name, and the goals that they are held against. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.stats import Spread

#: The machine's, and the simulator's: figures that belong to no size.
ANY_SIZE = 0


@dataclass(frozen=True, slots=True)
class Figure:
    label: str
    unit: str
    digits: int = 0


FIGURES: Mapping[str, Figure] = {
    "hubspot_ceiling": Figure("simulated HubSpot alone, answering at once", "/s"),
    "hubspot_ceiling_cpu": Figure("its CPU per answer", "ms", 3),
    "import": Figure("import", "rows/s"),
    "product": Figure("product, sustained", "refreshes/s"),
    "bare": Figure("bare loop of requests, 2 x 200 threads", "refreshes/s"),
    "per_task": Figure("a Celery task per connection, 64 processes", "refreshes/s"),
    "to_bare": Figure("product / bare loop", "x", 2),
    "to_per_task": Figure("product / task per connection", "x", 1),
    "cpu": Figure("CPU per refresh: worker, PostgreSQL, Valkey", "ms", 3),
    "cpu_worker": Figure("  worker", "ms", 3),
    "cpu_postgres": Figure("  PostgreSQL", "ms", 3),
    "cpu_valkey": Figure("  Valkey", "ms", 3),
    "cpu_beat": Figure("  beat, besides", "ms", 3),
    "cpu_hubspot": Figure("  simulated HubSpot, besides", "ms", 3),
    "cpu_bare": Figure("CPU per refresh of the bare loop", "ms", 3),
    "cpu_per_task": Figure("CPU per refresh of a task per connection, with PostgreSQL and Valkey", "ms", 3),
    "memory_worker": Figure("memory of the largest worker process", "MB"),
    "memory_all_worker": Figure("memory of all worker processes, shared pages once", "MB"),
    "memory_postgres": Figure("memory of PostgreSQL, shared pages once", "MB"),
    "memory_valkey": Figure("memory of Valkey", "MB"),
    "wal": Figure("PostgreSQL's write volume per refresh", "bytes"),
    "pace": Figure("in balance, tokens of 30 minutes: pace", "refreshes/s", 1),
    "late_p50": Figure("  lateness p50", "s", 2),
    "late_p99": Figure("  lateness p99", "s", 2),
    "late_cpu": Figure("  CPU per refresh: worker, PostgreSQL, Valkey", "ms", 3),
    "rounds": Figure("wear: rounds of refreshes", "", 1),
    "wear_table": Figure("  table, growth", "x", 2),
    "wear_due": Figure("  index of due times, growth", "x", 2),
    "wear_dead": Figure("  dead rows per row", "", 3),
    "wear_bytes": Figure("  table and indexes per row, after it", "bytes"),
    "wear_wal": Figure("  PostgreSQL's write volume per refresh", "bytes"),
    "read_p50": Figure("token read through the view, p50", "ms", 3),
    "read_p99": Figure("  p99", "ms", 3),
    "reads": Figure("  throughput, 4 readers", "/s"),
    "bare_reads": Figure("  of a bare primary-key SELECT", "/s"),
    "to_bare_reads": Figure("  view / bare", "x", 2),
    "install_p50": Figure("callback answered to readable, p50", "ms"),
    "install_p95": Figure("  p95", "ms"),
    "backlog_p95": Figure("  p95 while a backlog drains", "ms"),
}


@dataclass(slots=True)
class Results:
    """`values[size][name]`, one value a run, in the order in which they were measured."""

    values: dict[int, dict[str, list[float]]] = field(default_factory=dict)

    def note(self, size: int, **values: float) -> None:
        """Raises KeyError for a figure that stands nowhere."""
        for name, value in values.items():
            FIGURES[name]
            self.values.setdefault(size, {}).setdefault(name, []).append(value)

    def of(self, size: int, name: str) -> list[float]:
        return self.values.get(size, {}).get(name, [])

    def median(self, size: int, name: str) -> float | None:
        values = self.of(size, name)
        return Spread.of(values).median if values else None

    def sizes(self) -> list[int]:
        return sorted(size for size in self.values if size != ANY_SIZE)


@dataclass(frozen=True, slots=True)
class Goal:
    what: str
    least: bool  #: else at most
    wanted: float
    got: Callable[[Results], float | None]
    unit: str = ""

    def judged(self, book: Results) -> dict[str, Any]:
        got = self.got(book)
        met = None if got is None else (got >= self.wanted if self.least else got <= self.wanted)
        sign = "at least" if self.least else "at most"
        return {"what": self.what, "wanted": f"{sign} {self.wanted:,g} {self.unit}".strip(), "got": got, "met": met}


def worst(name: str, *, least: bool) -> Callable[[Results], float | None]:
    """The median at the size where it is worst."""

    def got(book: Results) -> float | None:
        medians = [value for size in book.values if (value := book.median(size, name)) is not None]
        return (min if least else max)(medians, default=None)

    return got


def at(size: int, name: str) -> Callable[[Results], float | None]:
    return lambda book: book.median(size, name)


def growth(name: str, first: int, last: int) -> Callable[[Results], float | None]:
    def got(book: Results) -> float | None:
        before, after = book.median(first, name), book.median(last, name)
        return after / before if before and after else None

    return got


GOALS = (
    Goal("refreshes per second, sustained", True, 1400, worst("product", least=True), "/s"),
    Goal("of a bare loop of requests", True, 0.85, worst("to_bare", least=True)),
    Goal("of a Celery task per connection", True, 5, worst("to_per_task", least=True)),
    Goal("CPU of worker, PostgreSQL and Redis per refresh", False, 1, worst("cpu", least=False), "ms"),
    Goal("the same at 1,000,000 against 10,000", False, 1.15, growth("cpu", 10_000, 1_000_000)),
    Goal("lateness p99 at 1,000,000", False, 5, at(1_000_000, "late_p99"), "s"),
    Goal("token read p50", False, 1, worst("read_p50", least=False), "ms"),
    Goal("token reads of a bare primary-key SELECT's", True, 0.8, worst("to_bare_reads", least=True)),
    Goal("callback to readable p95", False, 200, worst("install_p95", least=False), "ms"),
    Goal("the same while a backlog drains", False, 300, worst("backlog_p95", least=False), "ms"),
    Goal("memory of a worker process", False, 120, worst("memory_worker", least=False), "MB"),
)
