"""One run of the benchmark: which figure is measured when. Variants take turns, so that a slow minute hits all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench import baselines, fleet, installs, product
from bench.measure import OURS, Meter, Span, between
from bench.processes import run
from bench.reads import reads
from bench.results import ANY_SIZE, Results
from bench.stats import percentile
from bench.world import World

#: Seconds that HubSpot takes for an answer.
DELAY = 0.2
CEILING_CONNECTIONS = 64
BARE = tuple(f"bare-{number}" for number in range(baselines.PROCESSES))


@dataclass(frozen=True, slots=True)
class Plan:
    """Durations are in seconds."""

    sizes: tuple[int, ...]
    runs: int
    task_runs: int  #: of what takes long and matters less
    warm: float
    window: float
    late_runs: int
    late_warm: float
    late_window: float
    rounds: float
    worn_sizes: tuple[int, ...]
    read_runs: int
    read_seconds: int
    installs: int


QUICK = Plan(
    sizes=(10_000,), runs=2, task_runs=1, warm=2, window=4, late_runs=1, late_warm=2, late_window=8, rounds=1,
    worn_sizes=(), read_runs=1, read_seconds=1, installs=10,
)  # fmt: skip
FULL = Plan(
    sizes=(10_000, 100_000, 1_000_000), runs=3, task_runs=3, warm=5, window=15, late_runs=3, late_warm=5,
    late_window=30, rounds=10, worn_sizes=(100_000,), read_runs=3, read_seconds=3, installs=60,
)  # fmt: skip


class Suite:
    def __init__(self, world: World, plan: Plan, say: Callable[[str], None]) -> None:
        self.book = Results()
        self._world = world
        self._plan = plan
        self._say = say

    def run(self) -> Results:
        """Raises Failed."""
        self._ceiling()
        have = 0
        for size in self._plan.sizes:
            self._say(f"{size:,} connections: import")
            self.book.note(size, **{"import": fleet.grow(self._world, have, size)})
            have = size
            self._sustained(size)
            if size in self._plan.worn_sizes:
                self._worn(size)
            self._late(size)
            self._reads(size)
            self._installs(size)
        return self.book

    def _ceiling(self) -> None:
        self._say("the simulated HubSpot's own ceiling")
        hubspot = self._world.hubspot
        hubspot.set(delay=0, life=fleet.LIFE)
        meter = Meter(self._world, {})
        for _ in range(self._plan.task_runs):
            before = meter.now()
            asked = ["python", "-m", "bench.ceiling", str(hubspot.port), "2", str(CEILING_CONNECTIONS)]
            rate = float(run("ceiling", asked, self._world.environment))
            cpu = between(before, meter.now()).cpu_per_refresh("hubspot")
            self.book.note(ANY_SIZE, hubspot_ceiling=rate, hubspot_ceiling_cpu=cpu)

    def _sustained(self, size: int) -> None:
        plan, world = self._plan, self._world
        world.hubspot.set(delay=DELAY, life=fleet.overdue(world, size))
        for number in range(plan.runs):
            self._say(f"{size:,} connections: sustained, run {number + 1} of {plan.runs}")
            bare = baselines.bare(world, plan.warm, plan.window)
            ours = product.sustained(world, plan.warm, plan.window)
            self._note_sustained(size, ours, bare)
            if number < plan.task_runs and size == plan.sizes[0]:  # takes long, and does the same at any size
                tasks = baselines.per_task(world, size, plan.warm, plan.window)
                cpu = tasks.cpu_per_refresh(*OURS)
                self.book.note(size, per_task=tasks.rate, to_per_task=ours.span.rate / tasks.rate, cpu_per_task=cpu)

    def _note_sustained(self, size: int, ours: product.Sustained, bare: Span) -> None:
        span = ours.span
        self.book.note(size, product=span.rate, bare=bare.rate, to_bare=span.rate / bare.rate, wal=span.wal_per_refresh)
        self.book.note(size, cpu=span.cpu_per_refresh(*OURS), cpu_bare=bare.cpu_per_refresh(*BARE))
        groups = ("worker", "postgres", "valkey", "beat", "hubspot")
        self.book.note(size, **{f"cpu_{group}": span.cpu_per_refresh(group) for group in groups})
        self.book.note(size, memory_worker=ours.memory["worker"].largest)
        self.book.note(size, memory_all_worker=ours.memory["worker"].total)
        self.book.note(size, **{f"memory_{group}": ours.memory[group].total for group in ("postgres", "valkey")})

    def _worn(self, size: int) -> None:
        self._say(f"{size:,} connections: {self._plan.rounds:g} rounds")
        self._world.hubspot.set(delay=DELAY, life=fleet.overdue(self._world, size))
        worn = product.worn(self._world, size, self._plan.rounds)
        self.book.note(
            size,
            rounds=worn.rounds,
            wear_table=worn.after.table / worn.before.table,
            wear_due=worn.after.due_index / worn.before.due_index,
            wear_dead=worn.after.dead_rows / size,
            wear_bytes=(worn.after.table + worn.after.indexes) / size,
            wear_wal=worn.span.wal_per_refresh,
        )

    def _late(self, size: int) -> None:
        plan, world = self._plan, self._world
        for number in range(plan.late_runs):
            self._say(f"{size:,} connections: lateness, run {number + 1} of {plan.late_runs}")
            world.hubspot.set(delay=DELAY, life=fleet.in_balance(world, size))
            lateness, span = product.late(world, plan.late_warm, plan.late_window)
            self.book.note(size, pace=span.rate, late_cpu=span.cpu_per_refresh(*OURS))
            self.book.note(size, late_p50=percentile(lateness, 50), late_p99=percentile(lateness, 99))

    def _reads(self, size: int) -> None:
        self._say(f"{size:,} connections: token reads")
        for _ in range(self._plan.read_runs):
            told = reads(self._world, size, self._plan.read_seconds)
            self.book.note(size, read_p50=told.p50, read_p99=told.p99, reads=told.per_second)
            to_bare = told.per_second / told.bare_per_second
            self.book.note(size, bare_reads=told.bare_per_second, to_bare_reads=to_bare)

    def _installs(self, size: int) -> None:
        """Idle, and in a backlog; the middle and the tail of all of them."""
        world, count = self._world, self._plan.installs
        self._say(f"{size:,} connections: installs")
        world.hubspot.set(delay=DELAY, life=fleet.in_balance(world, size))
        with installs.web(world) as home:
            with product.running(world):
                product.wait_for_work(world)
                idle = installs.waits(world, home, installs.FIRST, count)
            world.hubspot.set(delay=DELAY, life=fleet.overdue(world, size))
            with product.running(world):
                product.wait_for_work(world)
                busy = installs.waits(world, home, installs.FIRST + count, count)
        self.book.note(size, install_p50=1000 * percentile(idle, 50), install_p95=1000 * percentile(idle, 95))
        self.book.note(size, backlog_p95=1000 * percentile(busy, 95))
        installs.forget(world)
