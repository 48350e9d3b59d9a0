"""Measures what the product is compared with: two bare loops, and a Celery task for each connection."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import redis
from celery import Celery

from bench.bare import CONNECTIONS_PER_CALL
from bench.measure import Interval, Meter
from bench.testbed import BenchmarkError, Testbed
from sandbox.child_processes import ChildProcess

#: As many as the product has pool processes.
PROCESSES = 2
#: Calls in flight in each of them: the product's default, and a higher number.
CALLS, MORE_CALLS = 400, 1000
#: The measured groups of processes.
BARE_GROUPS = tuple(f"bare-{number}" for number in range(PROCESSES))
#: Child processes of the prefork pool.
TASK_PROCESSES = 64
#: Its messages are in a Redis database of their own.
REDIS_DATABASE_NUMBER = 3
#: Messages for each second: more than the baseline can process.
MESSAGES_PER_SECOND = 600
#: Tasks of each process, on average, before the warm-up begins: all of them have started then.
FIRST_TASKS_PER_PROCESS = 5
#: Calls of a bare loop for each of those in flight, before the warm-up begins: every connection is open then.
FIRST_ROUNDS = 2
#: A baseline on a busy machine has made its first calls within.
START_SECONDS = 120.0
POLL_SECONDS = 0.1
#: The names in bench/per_task.py, which reads its settings when it is imported.
QUEUE, REFRESH_TASK = "per_task", "per_task.refresh"

CREATE_TABLE = """
CREATE SCHEMA IF NOT EXISTS per_task;
CREATE TABLE IF NOT EXISTS per_task.account (
    hub_id integer PRIMARY KEY, refresh_token varchar NOT NULL, access_token varchar,
    expires_at timestamptz, due_at timestamptz
);
CREATE INDEX IF NOT EXISTS account_due_at ON per_task.account (due_at);
"""
FILL_TABLE = """
INSERT INTO per_task.account
SELECT n, 'na1-aaaa-bbbb-cccc-dddd-' || lpad(n::text, 12, '0'), rpad('CI', 300, md5(n::text)), now(), now()
  FROM generate_series(1, %s) AS n ON CONFLICT DO NOTHING
"""


def measure_bare_loop(testbed: Testbed, warm_up_seconds: float, seconds: float) -> Interval:
    """Two processes of 400 threads each that call HubSpot with `requests`. Raises ProcessFailed."""
    return _measure_loops(testbed, "bench.bare", CALLS, warm_up_seconds, seconds)


def measure_curl_loop(testbed: Testbed, calls: int, warm_up_seconds: float, seconds: float) -> Interval:
    """Two processes of one thread each that call HubSpot with libcurl. Raises ProcessFailed."""
    return _measure_loops(testbed, "bench.bare_curl", calls, warm_up_seconds, seconds)


def measure_task_per_connection(
    testbed: Testbed, size: int, warm_up_seconds: float, window_seconds: float, windows: int
) -> list[Interval]:
    """One Celery task for each connection, in 64 prefork processes, in several windows. Raises ProcessFailed."""
    # 1. rows, and more messages than it can process
    baseline = testbed.with_redis_database(REDIS_DATABASE_NUMBER)
    baseline.execute(CREATE_TABLE)
    baseline.execute(FILL_TABLE, size)
    baseline.execute("VACUUM ANALYZE per_task.account")
    first_tasks = TASK_PROCESSES * FIRST_TASKS_PER_PROCESS
    messages = 2 * first_tasks + int((warm_up_seconds + windows * window_seconds) * MESSAGES_PER_SECOND)
    _fill_queue(baseline.environment["REDIS_URL"], size, messages)
    # 2. the worker, until all its processes work
    options = ("-c", str(TASK_PROCESSES), "-l", "warning", "--without-gossip", "--without-mingle")
    worker = baseline.start("per-task", "celery", "-A", "bench.per_task", "worker", *options)
    try:
        _wait_for_refreshes(first_tasks, testbed.hubspot.count_refreshes, worker)
        # 3. the measurement
        meter = Meter(baseline, {"worker": worker.pid})
        time.sleep(warm_up_seconds)
        return [_measure(meter, window_seconds) for _ in range(windows)]
    finally:
        worker.kill()
        _empty_queue(baseline.environment["REDIS_URL"])


def _measure_loops(testbed: Testbed, module: str, calls: int, warm_up_seconds: float, seconds: float) -> Interval:
    with _run_loops(testbed, module, calls) as meter:
        time.sleep(warm_up_seconds)
        return _measure(meter, seconds)


@contextmanager
def _run_loops(testbed: Testbed, module: str, calls: int) -> Iterator[Meter]:
    loops: list[ChildProcess] = []
    try:
        for number, name in enumerate(BARE_GROUPS):
            first_hub_id = 1 + number * calls * CONNECTIONS_PER_CALL
            loops.append(testbed.start(name, "python", "-m", module, str(calls), str(first_hub_id)))
        _wait_for_refreshes(FIRST_ROUNDS * PROCESSES * calls, testbed.hubspot.count_refreshes, *loops)
        yield Meter(testbed, {loop.name: loop.pid for loop in loops})
        for loop in loops:
            loop.check_running()
    finally:
        for loop in loops:
            loop.kill()


def _measure(meter: Meter, seconds: float) -> Interval:
    before = meter.read()
    time.sleep(seconds)
    return Interval.between(before, meter.read())


def _wait_for_refreshes(number: int, count_refreshes: Callable[[], int], *processes: ChildProcess) -> None:
    """Raises BenchmarkError, ProcessFailed."""
    target, deadline = count_refreshes() + number, time.monotonic() + START_SECONDS
    while count_refreshes() < target:
        for process in processes:
            process.check_running()
        if time.monotonic() > deadline:
            raise BenchmarkError(f"a baseline made fewer than {number} calls in {START_SECONDS:g} s")
        time.sleep(POLL_SECONDS)


def _fill_queue(redis_url: str, size: int, messages: int) -> None:
    """Different connections one after the other, from one end of the table to the other."""
    _empty_queue(redis_url)
    with closing(Celery("fill", broker=redis_url, set_as_current=False)) as sender:
        sender.conf.task_default_queue = QUEUE
        with sender.producer_pool.acquire(block=True) as producer:
            for number in range(messages):
                hub_id = 1 + number * size // messages
                sender.send_task(REFRESH_TASK, (hub_id,), producer=producer, ignore_result=True)


def _empty_queue(redis_url: str) -> None:
    with closing(redis.Redis.from_url(redis_url)) as broker:
        broker.flushdb()
