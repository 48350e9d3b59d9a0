"""Measures the product: `celery worker -c 2` and beat, as processes, with default settings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bench.measure import Interval, Memory, Meter, Reading
from bench.stored_connections import check_all_saved, count_overdue
from bench.testbed import BenchmarkError, Testbed

#: After so long, refreshes that were late have been saved too.
SETTLE_SECONDS = 3.0
POLL_SECONDS = 0.25
FIRST_REFRESH_SECONDS = 30.0
WORKER_STOP_SECONDS = 60.0
#: In balance no more than a few are due for longer: at the start it may take so long to refresh those that came first.
BACKLOG_SECONDS, BACKLOG_ROWS = 2.0, 20
DRAIN_SECONDS = 120.0

#: Records due times before the product moves them on.
RECORD_DUE_TIMES = """
DROP TABLE IF EXISTS public.expected;
CREATE TABLE public.expected AS
SELECT hub_id, due_at FROM tokenkeeper.connections
 WHERE app = 'default' AND due_at < now() + make_interval(secs => %s);
"""
#: A row's newest version is the one that its refresh wrote: a token's life is too long for a second refresh meanwhile.
#: A refresh that has not been saved is at least so late.
READ_LATENESS = """
SELECT extract(epoch FROM CASE WHEN c.due_at > e.due_at THEN pg_xact_commit_timestamp(c.xmin)
                               ELSE clock_timestamp() END - e.due_at)::float
  FROM public.expected AS e JOIN tokenkeeper.connections AS c USING (hub_id)
 WHERE e.due_at >= %s AND e.due_at < %s
"""


@dataclass(frozen=True, slots=True)
class Throughput:
    interval: Interval
    memory: Mapping[str, Memory]  #: by group of processes


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


def measure_throughput(testbed: Testbed, warm_up_seconds: float, seconds: float, backlog: int = 1) -> Throughput:
    """While more is due than can be done: in the end, at least `backlog`. Raises BenchmarkError, ProcessFailed."""
    with check_results(testbed), run_product(testbed) as meter:
        wait_for_first_refresh(testbed)
        time.sleep(warm_up_seconds)
        before = meter.read()
        time.sleep(seconds)
        throughput = Throughput(Interval.between(before, meter.read()), meter.read_memory())
        if count_overdue(testbed, at_most=backlog) < backlog:
            raise BenchmarkError("every connection that was due had been refreshed: there is no throughput to report")
    return throughput


def measure_lateness(
    testbed: Testbed, warm_up_seconds: float, window_seconds: float, windows: int
) -> list[tuple[list[float], Interval]]:
    """Seconds from the due time of each refresh until its row was committed, while due times are spread evenly.

    One list for each of several windows of one run. Raises BenchmarkError, ProcessFailed.
    """
    testbed.execute(RECORD_DUE_TIMES, DRAIN_SECONDS + warm_up_seconds + windows * window_seconds)
    with check_results(testbed), run_product(testbed) as meter:
        wait_for_first_refresh(testbed)
        _wait_until_in_balance(testbed)
        time.sleep(warm_up_seconds)
        moments = [_read_moment(testbed, meter)]
        for _ in range(windows):
            time.sleep(window_seconds)
            moments.append(_read_moment(testbed, meter))
        time.sleep(SETTLE_SECONDS)
        return [
            ([row[0] for row in testbed.execute(READ_LATENESS, start, end)], Interval.between(before, after))
            for (start, before), (end, after) in pairwise(moments)
        ]


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


def _wait_until_in_balance(testbed: Testbed) -> None:
    deadline = time.monotonic() + DRAIN_SECONDS
    while count_overdue(testbed, seconds=BACKLOG_SECONDS, at_most=BACKLOG_ROWS) == BACKLOG_ROWS:
        if time.monotonic() > deadline:
            raise BenchmarkError(
                f"more connections fall due than are refreshed: a backlog remains after {DRAIN_SECONDS:g} s"
            )
        time.sleep(POLL_SECONDS)


def _read_moment(testbed: Testbed, meter: Meter) -> tuple[Any, Reading]:
    """PostgreSQL's time, and the counters."""
    return testbed.fetch_value("SELECT clock_timestamp()"), meter.read()
