"""One run of the benchmark: which figure is measured when.

What is compared takes turns, so that a slow minute of the machine slows down all of it: bare loops and product, and
10,000 connections and many, which are in two databases of one server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench import baselines, installs, layers, product, stored_connections, two_apps
from bench.baselines import CALLS, MORE_CALLS
from bench.figures import Part
from bench.measure import PRODUCT_GROUPS, Interval, Meter
from bench.plan import SMALL_SIZE, WINDOWS, Plan
from bench.reads import measure_customer_reads, measure_reads
from bench.rest import GROUPS as REST_GROUPS
from bench.rest import measure_rest
from bench.results import ANY_SIZE, Results
from bench.stats import percentile
from bench.stored_connections import Installation
from bench.testbed import BenchmarkError, Testbed
from sandbox.child_processes import ProcessFailed

CEILING_CONNECTIONS, CEILING_SECONDS = 64, 2
#: A small installation.
REST_CONNECTIONS = 1000
#: The product is started and stopped within, and goes on refreshing meanwhile.
START_AND_STOP_SECONDS = 6.0
#: Of disk for each connection: its row and its indexes, both twice after each was updated, and the write-ahead log.
DISK_BYTES_PER_ROW = 2500


class Suite:
    def __init__(self, testbed: Testbed, plan: Plan, say: Callable[[str], None]) -> None:
        self.results = Results()
        self._testbed = testbed
        self._plan = plan
        self._say = say
        self._redis_number = baselines.REDIS_DATABASE_NUMBER

    def run(self) -> Results:
        """Raises BenchmarkError and ProcessFailed where nothing could be measured at all."""
        if self._plan.is_growth:
            self._measure_growth()
        else:
            self._measure_all()
        return self.results

    def _measure_all(self) -> None:
        with self._part(Part.HUBSPOT):
            self._measure_hubspot_ceiling()
        tiny = self._import(REST_CONNECTIONS)
        with self._part(Part.REST):
            self._measure_rest(tiny)
        with self._part(Part.SMALL_MEMORY):
            self._measure_small_memory(tiny)
        small, large = self._import(SMALL_SIZE), self._copy(self._plan.large_size)
        with self._part(Part.LATENESS):
            self._measure_lateness(large)
        with self._part(Part.INSTALLS):
            self._measure_installs(large)
        with self._part(Part.SUSTAINED):
            for number in range(self._plan.runs):
                self._measure_round(number, small, large)
        with self._part(Part.LAYERS):
            self._measure_layers(small)
        with self._part(Part.PER_TASK):
            self._measure_task_per_connection(small)
        with self._part(Part.TWO_APPS):
            self._measure_two_apps(small)
        with self._part(Part.READS):
            for installation in (large,) if self._plan.is_quick else (small, large):
                self._measure_reads(installation)

    def _measure_growth(self) -> None:
        self._testbed.check_free_disk(self._plan.large_size * DISK_BYTES_PER_ROW)
        small, large = self._import(SMALL_SIZE), self._copy(self._plan.large_size)
        with self._part(Part.LATENESS):
            self._measure_lateness(large)
        with self._part(Part.SUSTAINED):
            for number in range(self._plan.runs):
                self._compare_sizes(number, small, large)

    @contextmanager
    def _part(self, part: Part) -> Iterator[None]:
        """Measures how long it takes. Where it fails, the others still have their figures."""
        start = time.monotonic()
        try:
            yield
        except (BenchmarkError, ProcessFailed) as error:
            self.results.failures[part] = str(error)
            self._say(f"FAILED: {part}: {error}")
        self.results.seconds[part] = time.monotonic() - start

    def _import(self, size: int) -> Installation:
        self._say(f"{size:,} connections: import")
        testbed = self._create_database(size)
        rate = stored_connections.import_connections(testbed, size)
        if size == SMALL_SIZE:
            self.results.add(size, **{"import": rate})
        return Installation(testbed, size)

    def _copy(self, size: int) -> Installation:
        self._say(f"{size:,} connections: store copies")
        start = time.monotonic()
        testbed = self._create_database(size)
        stored_connections.copy_connections(testbed, size)
        self.results.seconds["storing copies"] = time.monotonic() - start
        return Installation(testbed, size)

    def _measure_hubspot_ceiling(self) -> None:
        self._say("the simulated HubSpot's own ceiling")
        hubspot = self._testbed.hubspot
        hubspot.configure(stored_connections.TOKEN_SECONDS, delay_seconds=0)
        meter = Meter(self._testbed, {})
        options = (str(hubspot.port), str(CEILING_SECONDS), str(CEILING_CONNECTIONS))
        for _ in range(self._plan.runs):
            before = meter.read()
            rate = float(self._testbed.run_command("ceiling", "python", "-m", "bench.ceiling", *options))
            cpu = Interval.between(before, meter.read()).cpu_ms_per_refresh("hubspot")
            self.results.add(ANY_SIZE, hubspot_ceiling=rate, hubspot_ceiling_cpu=cpu)

    def _measure_rest(self, tiny: Installation) -> None:
        self._say(f"{tiny.size:,} connections: at rest")
        stored_connections.prepare_balanced(tiny.testbed, tiny.size)
        plan = self._plan
        for rest in measure_rest(tiny.testbed, plan.rest_settle_seconds, plan.rest_seconds, WINDOWS):
            by_group = {f"rest_{group}": rest.memory[group].total_mb for group in REST_GROUPS}
            self.results.add(ANY_SIZE, rest_memory=rest.total_mb, rest_cpu=rest.cpu_percent, **by_group)

    def _measure_small_memory(self, tiny: Installation) -> None:
        """So few connections are all in flight or not due yet at some moments."""
        self._say(f"{tiny.size:,} connections: memory under load")
        self._prepare_overdue(tiny)
        throughput = product.measure_throughput(tiny.testbed, 0, self._plan.bare_seconds, backlog=0)
        self.results.add(ANY_SIZE, memory_small=throughput.memory["worker"].largest_mb)

    def _measure_lateness(self, large: Installation) -> None:
        """Due times begin soon after the copies were stored."""
        self._say(f"{large.size:,} connections: lateness")
        plan = self._plan
        stored_connections.wait_for_balance(large.testbed, large.size)
        windows = product.measure_lateness(large.testbed, plan.late_warm_up_seconds, plan.late_seconds, WINDOWS)
        for lateness, interval in windows:
            self.results.add(
                large.size,
                late_p50=percentile(lateness, 50),
                late_p99=percentile(lateness, 99),
                pace=interval.refreshes_per_second,
                late_cpu=interval.cpu_ms_per_refresh(*PRODUCT_GROUPS),
            )

    def _measure_installs(self, large: Installation) -> None:
        """In balance, and while a backlog drains."""
        self._say(f"{large.size:,} connections: installs")
        with installs.run_web(large.testbed) as web:
            self._measure_install_windows(large, web.url, installs.FIRST_HUB_ID, p50="install_p50", p95="install_p95")
            self._prepare_overdue(large)
            next_hub_id = installs.FIRST_HUB_ID + WINDOWS * self._plan.installs
            self._measure_install_windows(large, web.url, next_hub_id, p95="backlog_p95")
        installs.delete_installs(large.testbed)

    def _measure_install_windows(self, large: Installation, web_url: str, first_hub_id: int, **names: str) -> None:
        """`names`: of the figures by their percentile, such as p95."""
        count = self._plan.installs
        with product.run_product(large.testbed):
            product.wait_for_first_refresh(large.testbed)
            for number in range(WINDOWS):
                seconds = installs.measure_installs(large.testbed, web_url, first_hub_id + number * count, count)
                values = {name: 1000 * percentile(seconds, float(key[1:])) for key, name in names.items()}
                self.results.add(large.size, **values)

    def _measure_round(self, number: int, small: Installation, large: Installation) -> None:
        plan, testbed = self._plan, self._testbed
        bare_seconds = (plan.bare_warm_up_seconds, plan.bare_seconds)
        self._say(f"sustained, round {number + 1} of {plan.runs}: bare loops")
        bare = baselines.measure_bare_loop(testbed, *bare_seconds)
        curl = baselines.measure_curl_loop(testbed, CALLS, *bare_seconds)
        curl_1000 = baselines.measure_curl_loop(testbed, MORE_CALLS, *bare_seconds)
        for size, rate in self._compare_sizes(number, small, large).items():
            self.results.add(
                size,
                bare=bare.refreshes_per_second,
                curl=curl.refreshes_per_second,
                to_bare=rate / bare.refreshes_per_second,
                to_curl=rate / curl.refreshes_per_second,
            )
        interval = self._measure_throughput(small, REFRESH_CONCURRENCY=str(MORE_CALLS)).interval
        self.results.add(
            small.size,
            product_1000=interval.refreshes_per_second,
            curl_1000=curl_1000.refreshes_per_second,
            to_curl_1000=interval.refreshes_per_second / curl_1000.refreshes_per_second,
            cpu_1000=interval.cpu_ms_per_refresh(*PRODUCT_GROUPS),
            cpu_bare=bare.cpu_ms_per_refresh(*baselines.BARE_GROUPS),
            cpu_curl=curl.cpu_ms_per_refresh(*baselines.BARE_GROUPS),
            cpu_curl_1000=curl_1000.cpu_ms_per_refresh(*baselines.BARE_GROUPS),
        )

    def _compare_sizes(self, number: int, small: Installation, large: Installation) -> dict[int, float]:
        """Refreshes a second by size."""
        self._say(f"sustained, round {number + 1} of {self._plan.runs}: {small.size:,} and {large.size:,} connections")
        by_size = {each.size: self._measure_throughput(each) for each in (small, large)}
        for size, throughput in by_size.items():
            self._add_throughput(size, throughput)
        costs = {size: each.interval.cpu_ms_per_refresh(*PRODUCT_GROUPS) for size, each in by_size.items()}
        self.results.add(large.size, cost_growth=costs[large.size] / costs[small.size])
        if memory_small := self.results.median(ANY_SIZE, "memory_small"):
            self.results.add(large.size, memory_growth=by_size[large.size].memory["worker"].largest_mb / memory_small)
        self.results.add(large.size, row_bytes=stored_connections.measure_row_bytes(large.testbed, large.size))
        return {size: each.interval.refreshes_per_second for size, each in by_size.items()}

    def _measure_throughput(self, installation: Installation, **settings: str) -> product.Throughput:
        self._prepare_overdue(installation)
        testbed = installation.testbed.with_settings(**settings)
        return product.measure_throughput(testbed, self._plan.warm_up_seconds, self._plan.seconds)

    def _add_throughput(self, size: int, throughput: product.Throughput) -> None:
        interval, memory = throughput.interval, throughput.memory
        groups = ("worker", "postgres", "valkey", "beat", "hubspot")
        self.results.add(
            size,
            product=interval.refreshes_per_second,
            wal=interval.wal_bytes_per_refresh,
            cpu=interval.cpu_ms_per_refresh(*PRODUCT_GROUPS),
            memory_worker=memory["worker"].largest_mb,
            **{f"cpu_{group}": interval.cpu_ms_per_refresh(group) for group in groups},
        )

    def _measure_layers(self, small: Installation) -> None:
        """The refresh loop runs in this process."""
        self._say("layers of a refresh")
        plan = self._plan
        for _ in range(plan.runs):
            self._prepare_overdue(small)
            by_layer, rate = layers.measure_layers(small.testbed, plan.warm_up_seconds, plan.bare_seconds)
            figures = {f"layer_{layer}": microseconds for layer, microseconds in by_layer.items()}
            self.results.add(ANY_SIZE, layers=sum(by_layer.values()), layers_rate=rate, **figures)

    def _measure_task_per_connection(self, small: Installation) -> None:
        """It takes long to start, and does not depend on the number of connections."""
        self._say("a task per connection")
        plan = self._plan
        windows = baselines.measure_task_per_connection(
            self._testbed, small.size, plan.bare_warm_up_seconds, plan.task_seconds, WINDOWS
        )
        ratios = {"to_per_task": "product", "to_per_task_1000": "product_1000"}
        for interval in windows:
            rate = interval.refreshes_per_second
            self.results.add(small.size, per_task=rate, cpu_per_task=interval.cpu_ms_per_refresh(*PRODUCT_GROUPS))
            for ratio, product_name in ratios.items():
                if product_rate := self.results.median(small.size, product_name):
                    self.results.add(small.size, **{ratio: product_rate / rate})

    def _measure_two_apps(self, small: Installation) -> None:
        """Connections of both are overdue all the time."""
        plan = self._plan
        with two_apps.import_other_app(small.testbed, small.size):
            for number in range(plan.two_apps_runs):
                self._say(f"two apps, one of them down, run {number + 1} of {plan.two_apps_runs}")
                rates = two_apps.measure_two_apps(
                    small.testbed, small.size, plan.warm_up_seconds, plan.two_apps_seconds
                )
                self.results.add(
                    small.size,
                    one_app=rates.alone,
                    to_refused=rates.beside_refused / rates.alone,
                    to_silent=rates.beside_silent / rates.alone,
                )

    def _measure_reads(self, installation: Installation) -> None:
        self._say(f"{installation.size:,} connections: token reads")
        testbed, size, seconds = installation.testbed, installation.size, self._plan.read_seconds
        for _ in range(self._plan.read_runs):
            reads = measure_reads(testbed, size, seconds)
            of_customer = measure_customer_reads(testbed, size, seconds)
            self.results.add(
                size,
                read_p50=reads.p50_ms,
                read_p99=reads.p99_ms,
                reads=reads.per_second,
                to_bare_reads=reads.per_second / reads.bare_per_second,
                customer_read_p50=of_customer.p50_ms,
                to_bare_customer_reads=of_customer.per_second / of_customer.bare_per_second,
            )

    def _prepare_overdue(self, installation: Installation) -> None:
        seconds = START_AND_STOP_SECONDS + self._plan.warm_up_seconds + self._plan.seconds
        stored_connections.prepare_overdue(installation.testbed, installation.size, seconds)

    def _create_database(self, size: int) -> Testbed:
        self._redis_number += 1
        return self._testbed.with_new_database(f"bench_{size}", self._redis_number)
