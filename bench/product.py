"""Measures the product: `celery worker -c 2` and beat, as processes, with default settings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bench.measure import Interval, Memory, Meter
from bench.stored_connections import TableSize, check_all_saved, measure_table
from bench.testbed import BenchmarkError, Testbed

#: After so long, refreshes that were late have been saved too.
SETTLE_SECONDS = 3.0
POLL_SECONDS = 0.25
FIRST_REFRESH_SECONDS = 30.0
WORKER_STOP_SECONDS = 60.0

#: Records due times before the product moves them on.
RECORD_DUE_TIMES = """
DROP TABLE IF EXISTS public.expected;
CREATE TABLE public.expected AS
SELECT hub_id, due_at FROM tokenkeeper.connections WHERE due_at < now() + make_interval(secs => %s);
"""
#: A row's newest version is the one that its refresh wrote: a token's life is too long for a second refresh meanwhile.
#: A refresh that was not saved is infinitely late.
READ_LATENESS = """
SELECT CASE WHEN c.due_at > e.due_at
            THEN extract(epoch FROM pg_xact_commit_timestamp(c.xmin) - e.due_at)::float ELSE 'infinity' END
  FROM public.expected AS e JOIN tokenkeeper.connections AS c USING (hub_id)
 WHERE e.due_at >= %s AND e.due_at < %s
"""


@dataclass(frozen=True, slots=True)
class Throughput:
    interval: Interval
    memory: Mapping[str, Memory]  #: by group of processes


@dataclass(frozen=True, slots=True)
class Bloat:
    """How the table grew while every connection was refreshed `rounds` times on average."""

    rounds: float
    before: TableSize
    after: TableSize
    interval: Interval


@contextmanager
def run_product(testbed: Testbed, **other_roots: int) -> Iterator[Meter]:
    """Runs until the end of the block; then calls in flight are finished and saved. Raises ProcessFailed.

    `other_roots`: further processes to measure, by the name of their group.
    """
    celery = ("celery", "-A", "worker.app")
    schedule = ("--schedule", str(testbed.folder / "schedule"), "--pidfile=")
    worker = testbed.start("worker", *celery, "worker", "-c", "2", "-n", "bench@%h", "-l", "info")
    beat = testbed.start("beat", *celery, "beat", *schedule)
    try:
        worker.wait_for_output(r" ready\.")
        yield Meter(testbed, {"worker": worker.pid, "beat": beat.pid, **other_roots})
        worker.check_running()
    finally:
        beat.kill()
        worker.stop(WORKER_STOP_SECONDS)


def measure_throughput(testbed: Testbed, warm_up_seconds: float, seconds: float) -> Throughput:
    """While more is due than can be done. Raises BenchmarkError, ProcessFailed."""
    with check_results(testbed), run_product(testbed) as meter:
        wait_for_first_refresh(testbed)
        time.sleep(warm_up_seconds)
        before = meter.read()
        time.sleep(seconds)
        return Throughput(Interval.between(before, meter.read()), meter.read_memory())


def measure_bloat(testbed: Testbed, size: int, rounds: float) -> Bloat:
    """Over `rounds` refreshes of each connection, on average. Raises BenchmarkError, ProcessFailed."""
    table_before = measure_table(testbed)
    target = testbed.hubspot.count_refreshes() + rounds * size
    with check_results(testbed), run_product(testbed) as meter:
        before = meter.read()
        while testbed.hubspot.count_refreshes() < target:
            time.sleep(POLL_SECONDS)
        interval = Interval.between(before, meter.read())
    return Bloat(interval.refreshes / size, table_before, measure_table(testbed), interval)


def measure_lateness(testbed: Testbed, warm_up_seconds: float, seconds: float) -> tuple[list[float], Interval]:
    """Seconds from the due time of each refresh until its row was committed, while due times are spread evenly.

    Raises BenchmarkError, ProcessFailed.
    """
    testbed.execute(RECORD_DUE_TIMES, 10 * (warm_up_seconds + seconds))
    with check_results(testbed), run_product(testbed) as meter:
        wait_for_first_refresh(testbed)
        time.sleep(warm_up_seconds)
        before, start = meter.read(), testbed.fetch_value("SELECT clock_timestamp()")
        time.sleep(seconds)
        end, after = testbed.fetch_value("SELECT clock_timestamp()"), meter.read()
        time.sleep(SETTLE_SECONDS)
    lateness = [row[0] for row in testbed.execute(READ_LATENESS, start, end)]
    return lateness, Interval.between(before, after)


@contextmanager
def check_results(testbed: Testbed) -> Iterator[None]:
    """Raises BenchmarkError where a result of the block was not saved, or two refreshes of one hub overlapped."""
    hubspot = testbed.hubspot
    hubspot.wait_until_idle()
    hubspot.take_newest_tokens()
    before = hubspot.read_counters().overlaps
    yield
    if overlaps := hubspot.read_counters().overlaps - before:
        raise BenchmarkError(f"{overlaps} refreshes of a hub whose refresh was in flight")
    check_all_saved(testbed)


def wait_for_first_refresh(testbed: Testbed) -> None:
    """Raises BenchmarkError where none comes in FIRST_REFRESH_SECONDS."""
    before, deadline = testbed.hubspot.count_refreshes(), time.monotonic() + FIRST_REFRESH_SECONDS
    while testbed.hubspot.count_refreshes() <= before:
        if time.monotonic() > deadline:
            raise BenchmarkError(f"the product refreshed nothing in {FIRST_REFRESH_SECONDS:g} s")
        time.sleep(POLL_SECONDS)
