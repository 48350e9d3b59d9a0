"""One run of the benchmark: which figure is measured when.

Variants that are compared take turns, so that a slow minute of the machine slows all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench import baselines, installs, product, stored_connections, two_apps
from bench.measure import PRODUCT_GROUPS, Interval, Meter
from bench.reads import measure_customer_reads, measure_reads
from bench.rest import GROUPS as REST_GROUPS
from bench.rest import measure_rest
from bench.results import ANY_SIZE, Results
from bench.stats import percentile
from bench.testbed import Testbed

HUBSPOT_DELAY_SECONDS = 0.2
CEILING_CONNECTIONS = 64
#: A small installation.
REST_CONNECTIONS = 1000
CEILING_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. `late_…` is for lateness, `bloat_…` for the growth of the table."""

    sizes: tuple[int, ...]
    runs: int
    task_runs: int  #: of the baseline that takes long
    warm_up_seconds: float
    seconds: float
    late_runs: int
    late_warm_up_seconds: float
    late_seconds: float
    bloat_rounds: float
    bloat_sizes: tuple[int, ...]
    read_runs: int
    read_seconds: int
    installs: int
    rest_seconds: float


QUICK = Plan(
    sizes=(10_000,), runs=2, task_runs=1, warm_up_seconds=2, seconds=4, late_runs=1, late_warm_up_seconds=2,
    late_seconds=8, bloat_rounds=1, bloat_sizes=(), read_runs=1, read_seconds=1, installs=40, rest_seconds=10,
)  # fmt: skip
FULL = Plan(
    sizes=(10_000, 100_000, 1_000_000), runs=3, task_runs=3, warm_up_seconds=5, seconds=15, late_runs=3,
    late_warm_up_seconds=5, late_seconds=30, bloat_rounds=10, bloat_sizes=(100_000,), read_runs=3, read_seconds=3,
    installs=60, rest_seconds=60,
)  # fmt: skip


class Suite:
    def __init__(self, testbed: Testbed, plan: Plan, say: Callable[[str], None]) -> None:
        self._results = Results()
        self._testbed = testbed
        self._plan = plan
        self._say = say

    def run(self) -> Results:
        """Raises BenchmarkError, ProcessFailed."""
        self._measure_hubspot_ceiling()
        existing = REST_CONNECTIONS
        self._measure_rest(existing)
        for size in self._plan.sizes:
            self._say(f"{size:,} connections: import")
            import_rate = stored_connections.import_connections(self._testbed, existing, size)
            self._results.add(size, **{"import": import_rate})
            existing = size
            self._measure_throughput(size)
            if size == self._plan.sizes[0]:
                self._measure_two_apps(size)
            if size in self._plan.bloat_sizes:
                self._measure_bloat(size)
            self._measure_lateness(size)
            self._measure_reads(size)
            self._measure_installs(size)
        return self._results

    def _measure_hubspot_ceiling(self) -> None:
        self._say("the simulated HubSpot's own ceiling")
        hubspot = self._testbed.hubspot
        hubspot.configure(delay_seconds=0, token_seconds=stored_connections.TOKEN_SECONDS)
        meter = Meter(self._testbed, {})
        options = (str(hubspot.port), str(CEILING_SECONDS), str(CEILING_CONNECTIONS))
        for _ in range(self._plan.task_runs):
            before = meter.read()
            rate = float(self._testbed.run_command("ceiling", "python", "-m", "bench.ceiling", *options))
            cpu = Interval.between(before, meter.read()).cpu_ms_per_refresh("hubspot")
            self._results.add(ANY_SIZE, hubspot_ceiling=rate, hubspot_ceiling_cpu=cpu)

    def _measure_rest(self, size: int) -> None:
        self._say(f"{size:,} connections: at rest")
        stored_connections.import_connections(self._testbed, 0, size)
        self._configure_hubspot(stored_connections.make_balanced(self._testbed, size))
        rest = measure_rest(self._testbed, self._plan.rest_seconds)
        by_group = {f"rest_{group}": rest.memory[group].total_mb for group in REST_GROUPS}
        self._results.add(ANY_SIZE, rest_memory=rest.total_mb, rest_cpu=rest.cpu_percent, **by_group)

    def _measure_throughput(self, size: int) -> None:
        plan, testbed = self._plan, self._testbed
        seconds = (plan.warm_up_seconds, plan.seconds)
        self._configure_hubspot(stored_connections.make_overdue(testbed, size))
        for number in range(plan.runs):
            self._say(f"{size:,} connections: sustained, run {number + 1} of {plan.runs}")
            bare = baselines.measure_bare_loop(testbed, *seconds)
            throughput = product.measure_throughput(testbed, *seconds)
            self._add_throughput(size, throughput, bare)
            if number < plan.task_runs and size == plan.sizes[0]:  # takes long, and does not depend on the size
                tasks = baselines.measure_task_per_connection(testbed, size, *seconds)
                rate, cpu = tasks.refreshes_per_second, tasks.cpu_ms_per_refresh(*PRODUCT_GROUPS)
                ratio = throughput.interval.refreshes_per_second / rate
                self._results.add(size, per_task=rate, to_per_task=ratio, cpu_per_task=cpu)

    def _add_throughput(self, size: int, throughput: product.Throughput, bare: Interval) -> None:
        interval, memory = throughput.interval, throughput.memory
        rate, bare_rate = interval.refreshes_per_second, bare.refreshes_per_second
        groups = ("worker", "postgres", "valkey", "beat", "hubspot")
        self._results.add(
            size,
            product=rate,
            bare=bare_rate,
            to_bare=rate / bare_rate,
            wal=interval.wal_bytes_per_refresh,
            cpu=interval.cpu_ms_per_refresh(*PRODUCT_GROUPS),
            cpu_bare=bare.cpu_ms_per_refresh(*baselines.BARE_GROUPS),
            memory_worker=memory["worker"].largest_mb,
            memory_all_worker=memory["worker"].total_mb,
            memory_postgres=memory["postgres"].total_mb,
            memory_valkey=memory["valkey"].total_mb,
            **{f"cpu_{group}": interval.cpu_ms_per_refresh(group) for group in groups},
        )

    def _measure_two_apps(self, size: int) -> None:
        """Connections of both are overdue all the time."""
        plan, testbed = self._plan, self._testbed
        with two_apps.import_other_app(testbed, size):
            for number in range(plan.runs):
                self._say(f"{size:,} connections: two apps, one of them down, run {number + 1} of {plan.runs}")
                self._configure_hubspot(stored_connections.make_overdue(testbed, size))
                rates = two_apps.measure_two_apps(testbed, plan.warm_up_seconds, plan.seconds)
                self._results.add(
                    size,
                    one_app=rates.alone,
                    to_refused=rates.beside_refused / rates.alone,
                    to_silent=rates.beside_silent / rates.alone,
                    memory_second_app=rates.memory_of_second_app_mb,
                )

    def _measure_bloat(self, size: int) -> None:
        self._say(f"{size:,} connections: {self._plan.bloat_rounds:g} rounds")
        self._configure_hubspot(stored_connections.make_overdue(self._testbed, size))
        bloat = product.measure_bloat(self._testbed, size, self._plan.bloat_rounds)
        self._results.add(
            size,
            rounds=bloat.rounds,
            wear_table=bloat.after.table / bloat.before.table,
            wear_due=bloat.after.due_index / bloat.before.due_index,
            wear_dead=bloat.after.dead_rows / size,
            wear_bytes=(bloat.after.table + bloat.after.indexes) / size,
            wear_wal=bloat.interval.wal_bytes_per_refresh,
        )

    def _measure_lateness(self, size: int) -> None:
        plan, testbed = self._plan, self._testbed
        for number in range(plan.late_runs):
            self._say(f"{size:,} connections: lateness, run {number + 1} of {plan.late_runs}")
            self._configure_hubspot(stored_connections.make_balanced(testbed, size))
            lateness, interval = product.measure_lateness(testbed, plan.late_warm_up_seconds, plan.late_seconds)
            cpu = interval.cpu_ms_per_refresh(*PRODUCT_GROUPS)
            self._results.add(size, pace=interval.refreshes_per_second, late_cpu=cpu)
            self._results.add(size, late_p50=percentile(lateness, 50), late_p99=percentile(lateness, 99))

    def _measure_reads(self, size: int) -> None:
        self._say(f"{size:,} connections: token reads")
        for _ in range(self._plan.read_runs):
            reads = measure_reads(self._testbed, size, self._plan.read_seconds)
            self._results.add(
                size,
                read_p50=reads.p50_ms,
                read_p99=reads.p99_ms,
                reads=reads.per_second,
                bare_reads=reads.bare_per_second,
                to_bare_reads=reads.per_second / reads.bare_per_second,
            )
            of_customer = measure_customer_reads(self._testbed, size, self._plan.read_seconds)
            self._results.add(
                size,
                customer_read_p50=of_customer.p50_ms,
                to_bare_customer_reads=of_customer.per_second / of_customer.bare_per_second,
            )

    def _measure_installs(self, size: int) -> None:
        """With an idle product, and while it drains a backlog."""
        testbed, count = self._testbed, self._plan.installs
        self._say(f"{size:,} connections: installs")
        self._configure_hubspot(stored_connections.make_balanced(testbed, size))
        with installs.run_web(testbed) as web:
            with product.run_product(testbed):
                product.wait_for_first_refresh(testbed)
                idle = installs.measure_installs(testbed, web.url, installs.FIRST_HUB_ID, count)
            self._configure_hubspot(stored_connections.make_overdue(testbed, size))
            with product.run_product(testbed):
                product.wait_for_first_refresh(testbed)
                busy = installs.measure_installs(testbed, web.url, installs.FIRST_HUB_ID + count, count)
        self._results.add(
            size,
            install_p50=1000 * percentile(idle, 50),
            install_p95=1000 * percentile(idle, 95),
            backlog_p95=1000 * percentile(busy, 95),
        )
        installs.delete_installs(testbed)

    def _configure_hubspot(self, token_seconds: int) -> None:
        self._testbed.hubspot.configure(delay_seconds=HUBSPOT_DELAY_SECONDS, token_seconds=token_seconds)
