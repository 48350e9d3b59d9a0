"""The values that were measured, and the goals that they are compared with. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bench.figures import FIGURES, Part
from bench.stats import Spread

#: For figures that do not depend on the number of connections.
ANY_SIZE = 0
LARGEST = -1


@dataclass(slots=True)
class Results:
    """`values[size][name]`: one value for each run, in the order in which they were measured."""

    values: dict[int, dict[str, list[float]]] = field(default_factory=dict)
    failures: dict[Part, str] = field(default_factory=dict)  #: why a part has no figures, or not all of them
    seconds: dict[str, float] = field(default_factory=dict)  #: that each part took

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
    """`limit` is the lowest median that meets it where `is_minimum`, else the highest."""

    label: str
    figure: str
    is_minimum: bool
    limit: float
    is_of_largest: bool = False  #: judged at the largest number of connections alone, else where the value is worst

    def evaluate(self, results: Results) -> Evaluation:
        measured = {size: Spread.of(values) for size in results.values if (values := results.get(size, self.figure))}
        if self.is_of_largest:
            measured = {size: spread for size, spread in measured.items() if size == max(results.sizes())}
        if not measured:
            reason = results.failures.get(FIGURES[self.figure].part, "this run does not include it")
            return Evaluation(self, None, ANY_SIZE, None, reason)
        choose_worst = min if self.is_minimum else max
        size = choose_worst(measured, key=lambda each: measured[each].median)
        median = measured[size].median
        is_met = median >= self.limit if self.is_minimum else median <= self.limit
        return Evaluation(self, is_met, size, measured[size], "" if is_met else self._explain(size, measured[size]))

    @property
    def wanted(self) -> str:
        unit = FIGURES[self.figure].unit
        return f"{'at least' if self.is_minimum else 'at most'} {self.limit:,g} {unit if unit != 'x' else ''}".strip()

    def _explain(self, size: int, spread: Spread) -> str:
        meeting = sum(1 for value in spread.values if (value >= self.limit if self.is_minimum else value <= self.limit))
        where = f" with {size:,} connections" if size != ANY_SIZE else ""
        return f"{meeting} of {len(spread.values)} runs{where} met it"


@dataclass(frozen=True, slots=True)
class Evaluation:
    goal: Goal
    is_met: bool | None  #: None where nothing was measured
    size: int  #: where the value is worst
    spread: Spread | None
    reason: str  #: why it is not met

    def to_json(self) -> dict[str, Any]:
        spread = self.spread
        return {
            "what": self.goal.label,
            "wanted": self.goal.wanted,
            "got": spread and spread.median,
            "low": spread and spread.low,
            "high": spread and spread.high,
            "connections": self.size,
            "met": self.is_met,
            "reason": self.reason,
        }


GOALS = (
    Goal("refreshes per second, sustained", "product", True, 3500),
    Goal("the same with REFRESH_CONCURRENCY=1000", "product_1000", True, 5000),
    Goal("of a bare loop of requests", "to_bare", True, 2.2),
    # By default it is out of reach: 800 calls in flight allow 12.5 times what 64 processes with a call each allow.
    Goal("of a Celery task per connection, with REFRESH_CONCURRENCY=1000", "to_per_task_1000", True, 14),
    Goal("CPU of worker, PostgreSQL and Redis per refresh", "cpu", False, 0.28),
    Goal("the same at the largest number of connections, against 10,000", "cost_growth", False, 1.15),
    Goal("lateness p99 at the largest number of connections", "late_p99", False, 1, is_of_largest=True),
    Goal("token read by hub_id, p50", "read_p50", False, 1),
    Goal("its throughput, of a bare index SELECT's", "to_bare_reads", True, 0.85),
    Goal("token read by customer, p50", "customer_read_p50", False, 1),
    Goal("its throughput, of a bare index SELECT's", "to_bare_customer_reads", True, 0.85),
    Goal("callback answered to token readable, p95", "install_p95", False, 100),
    Goal("the same while a full backlog drains", "backlog_p95", False, 200),
    Goal("memory of a worker process", "memory_worker", False, 100),
    Goal("the same at the largest number of connections, against 1,000", "memory_growth", False, 1.1),
    Goal("memory at rest, 1,000 connections", "rest_memory", False, 300),
    Goal("CPU at rest, of one core", "rest_cpu", False, 2),
    Goal("throughput beside an app whose secret is refused, of alone", "to_refused", True, 0.9),
    Goal("throughput beside an app without answers, of alone", "to_silent", True, 0.9),
)
#: Of a run with SIZE. The contract asks for no other figure at ten million connections.
GROWTH_GOALS = (
    Goal("CPU per refresh at the largest number of connections, against 10,000", "cost_growth", False, 1.3),
    Goal("lateness p99 at the largest number of connections", "late_p99", False, 1, is_of_largest=True),
)
