"""What the product is held against, measured by the same meter: the bare loop, and one task per connection."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import redis
from celery import Celery

from bench.bare import EACH
from bench.measure import Meter, Span, between
from bench.processes import Process
from bench.world import World

#: As many as the product has: pool processes, and calls in flight in each.
PROCESSES, THREADS = 2, 200
#: Children of the prefork pool.
TASK_PROCESSES = 64
#: Its messages lie in a Redis database of their own.
REDIS_NUMBER = 3
#: Messages a second that are more than the baseline can take.
MOST_TASKS = 600
#: Tasks of each process, on average, before the baseline's warm-up begins: all of them have started then.
FIRST_TASKS = 5
#: As in bench/per_task.py, which reads its settings where it is imported.
QUEUE, REFRESH = "per_task", "per_task.refresh"

TABLE = """
CREATE SCHEMA IF NOT EXISTS per_task;
CREATE TABLE IF NOT EXISTS per_task.account (
    hub_id integer PRIMARY KEY, refresh_token varchar NOT NULL, access_token varchar,
    expires_at timestamptz, due_at timestamptz
);
CREATE INDEX IF NOT EXISTS account_due_at ON per_task.account (due_at);
"""
FILL = """
INSERT INTO per_task.account
SELECT n, 'na1-aaaa-bbbb-cccc-dddd-' || lpad(n::text, 12, '0'), rpad('CI', 300, md5(n::text)), now(), now()
  FROM generate_series(1, %s) AS n ON CONFLICT DO NOTHING
"""


def bare(world: World, warm: float, seconds: float) -> Span:
    """Two processes of 200 threads each that call HubSpot with `requests`."""
    with _bare_loops(world) as meter:
        return _measured(meter, warm, seconds)


def per_task(world: World, size: int, warm: float, seconds: float) -> Span:
    """One Celery task per connection, 64 prefork processes."""
    own = world.elsewhere(REDIS_NUMBER)
    own.sql(TABLE)
    own.sql(FILL, size)
    own.sql("VACUUM ANALYZE per_task.account")
    first = TASK_PROCESSES * FIRST_TASKS
    _fill_queue(own.environment["REDIS_URL"], size, 2 * first + int((warm + seconds) * MOST_TASKS))
    options = ["-c", str(TASK_PROCESSES), "-l", "warning", "--without-gossip", "--without-mingle"]
    worker = Process("per-task", ["celery", "-A", "bench.per_task", "worker", *options], own.environment, own.folder)
    try:
        _wait_for(first, world.hubspot.refreshes, worker)
        return _measured(Meter(own, {"worker": worker.pid}), warm, seconds)
    finally:
        worker.kill()
        _empty_queue(own.environment["REDIS_URL"])


@contextmanager
def _bare_loops(world: World) -> Iterator[Meter]:
    loops = []
    try:
        for number in range(PROCESSES):
            argv = ["python", "-m", "bench.bare", str(THREADS), str(1 + number * THREADS * EACH)]
            loops.append(Process(f"bare-{number}", argv, world.environment, world.folder))
        for loop in loops:
            loop.says("runs")
        yield Meter(world, {loop.name: loop.pid for loop in loops})
        for loop in loops:
            loop.must_run()
    finally:
        for loop in loops:
            loop.kill()


def _measured(meter: Meter, warm: float, seconds: float) -> Span:
    time.sleep(warm)
    before = meter.now()
    time.sleep(seconds)
    return between(before, meter.now())


def _wait_for(more: int, count: Callable[[], int], process: Process) -> None:
    before = count()
    while count() < before + more:
        process.must_run()
        time.sleep(0.1)


def _fill_queue(redis_url: str, size: int, messages: int) -> None:
    """Different connections one after the other, from one end of the table to the other."""
    _empty_queue(redis_url)
    with closing(Celery("fill", broker=redis_url, set_as_current=False)) as sender:
        sender.conf.task_default_queue = QUEUE
        with sender.producer_pool.acquire(block=True) as producer:
            for number in range(messages):
                sender.send_task(REFRESH, (1 + number * size // messages,), producer=producer, ignore_result=True)


def _empty_queue(redis_url: str) -> None:
    with closing(redis.Redis.from_url(redis_url)) as broker:
        broker.flushdb()
