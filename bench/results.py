"""Every figure of the benchmark, the values that were measured, and the goals that they are compared with. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.stats import Spread

#: For figures that do not depend on the number of connections.
ANY_SIZE = 0


@dataclass(frozen=True, slots=True)
class Figure:
    label: str
    unit: str
    digits: int = 0  #: after the decimal point


FIGURES: Mapping[str, Figure] = {
    "hubspot_ceiling": Figure("simulated HubSpot alone, answering at once", "/s"),
    "hubspot_ceiling_cpu": Figure("its CPU per answer", "ms", 3),
    "rest_memory": Figure("at rest, 1,000 connections: memory, shared pages once", "MB"),
    "rest_web": Figure("  web", "MB"),
    "rest_worker": Figure("  worker", "MB"),
    "rest_beat": Figure("  beat", "MB"),
    "rest_postgres": Figure("  PostgreSQL", "MB"),
    "rest_valkey": Figure("  Valkey", "MB"),
    "rest_cpu": Figure("  CPU of all, of one core", "%", 1),
    "import": Figure("import", "rows/s"),
    "product": Figure("product, sustained", "refreshes/s"),
    "bare": Figure("bare loop of requests, 2 x 400 threads", "refreshes/s"),
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
    "one_app": Figure("two apps: one alone", "refreshes/s"),
    "to_refused": Figure("  beside one whose secret is refused / alone", "x", 2),
    "to_silent": Figure("  beside one that HubSpot does not answer / alone", "x", 2),
    "memory_second_app": Figure("  memory of the second app in a worker process", "MB", 1),
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
    "bare_reads": Figure("  of a bare SELECT by the same index", "/s"),
    "to_bare_reads": Figure("  view / bare", "x", 2),
    "customer_read_p50": Figure("the same by customer, p50", "ms", 3),
    "to_bare_customer_reads": Figure("  view / bare", "x", 2),
    "install_p50": Figure("callback answered to readable, p50", "ms"),
    "install_p95": Figure("  p95", "ms"),
    "backlog_p95": Figure("  p95 while a backlog drains", "ms"),
}


@dataclass(slots=True)
class Results:
    """`values[size][name]`: one value for each run, in the order in which they were measured."""

    values: dict[int, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, size: int, **values: float) -> None:
        """Raises KeyError for a name that is not in FIGURES."""
        for name, value in values.items():
            FIGURES[name]
            self.values.setdefault(size, {}).setdefault(name, []).append(value)

    def get(self, size: int, name: str) -> list[float]:
        return self.values.get(size, {}).get(name, [])

    def median(self, size: int, name: str) -> float | None:
        values = self.get(size, name)
        return Spread.of(values).median if values else None

    def sizes(self) -> list[int]:
        return sorted(size for size in self.values if size != ANY_SIZE)


@dataclass(frozen=True, slots=True)
class Goal:
    """`limit` is the lowest value that meets it where `is_minimum`, else the highest."""

    label: str
    is_minimum: bool
    limit: float
    find_value: Callable[[Results], float | None]
    unit: str = ""

    def evaluate(self, results: Results) -> dict[str, Any]:
        """As it stands in the JSON; `met` is None where nothing was measured."""
        value = self.find_value(results)
        met = None if value is None else (value >= self.limit if self.is_minimum else value <= self.limit)
        wanted = f"{'at least' if self.is_minimum else 'at most'} {self.limit:,g} {self.unit}".strip()
        return {"what": self.label, "wanted": wanted, "got": value, "met": met}


def find_lowest(name: str) -> Callable[[Results], float | None]:
    """The lowest median of all sizes."""
    return lambda results: min(_list_medians(results, name), default=None)


def find_highest(name: str) -> Callable[[Results], float | None]:
    """The highest median of all sizes."""
    return lambda results: max(_list_medians(results, name), default=None)


def find_at(size: int, name: str) -> Callable[[Results], float | None]:
    return lambda results: results.median(size, name)


def find_growth(name: str, first_size: int, last_size: int) -> Callable[[Results], float | None]:
    """The median at the last size divided by that at the first."""

    def find_value(results: Results) -> float | None:
        first, last = results.median(first_size, name), results.median(last_size, name)
        return last / first if first and last else None

    return find_value


def _list_medians(results: Results, name: str) -> list[float]:
    return [value for size in results.values if (value := results.median(size, name)) is not None]


GOALS = (
    Goal("refreshes per second, sustained", True, 3500, find_lowest("product"), "/s"),
    Goal("of a bare loop of requests", True, 2.2, find_lowest("to_bare")),
    Goal("of a Celery task per connection", True, 14, find_lowest("to_per_task")),
    Goal("CPU of worker, PostgreSQL and Redis per refresh", False, 0.28, find_highest("cpu"), "ms"),
    Goal("the same at 1,000,000 against 10,000", False, 1.15, find_growth("cpu", 10_000, 1_000_000)),
    Goal("lateness p99 at 1,000,000", False, 1, find_at(1_000_000, "late_p99"), "s"),
    Goal("token read p50", False, 1, find_highest("read_p50"), "ms"),
    Goal("token reads of a bare SELECT's", True, 0.85, find_lowest("to_bare_reads")),
    Goal("token read by customer p50", False, 1, find_highest("customer_read_p50"), "ms"),
    Goal("token reads by customer of a bare SELECT's", True, 0.85, find_lowest("to_bare_customer_reads")),
    Goal("callback to readable p95", False, 100, find_highest("install_p95"), "ms"),
    Goal("the same while a backlog drains", False, 200, find_highest("backlog_p95"), "ms"),
    Goal("beside an app whose secret is refused, of alone", True, 0.9, find_lowest("to_refused")),
    Goal("beside an app without answers, of alone", True, 0.9, find_lowest("to_silent")),
    Goal("memory of a worker process", False, 100, find_highest("memory_worker"), "MB"),
    Goal("memory at rest, 1,000 connections", False, 300, find_at(ANY_SIZE, "rest_memory"), "MB"),
    Goal("CPU at rest, of one core", False, 2, find_at(ANY_SIZE, "rest_cpu"), "%"),
)
