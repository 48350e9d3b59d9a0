"""The product itself: `celery worker -c 2` and beat, as processes, with the settings that they have by default."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bench import fleet
from bench.fleet import Bulk
from bench.measure import Memory, Meter, Span, between
from bench.processes import Failed, Process
from bench.world import World

#: Seconds after which even what was late has long landed.
REST = 3.0
POLL = 0.25

#: What falls due soon, kept before the product moves it on.
EXPECTED = """
DROP TABLE IF EXISTS public.expected;
CREATE TABLE public.expected AS
SELECT hub_id, due_at FROM tokenkeeper.connections WHERE due_at < now() + make_interval(secs => %s);
"""
#: The newest version of a row is what its refresh left; a life is too long for a second one meanwhile. What did not
#: land is late for ever.
LATENESS = """
SELECT CASE WHEN c.due_at > e.due_at
            THEN extract(epoch FROM pg_xact_commit_timestamp(c.xmin) - e.due_at)::float ELSE 'infinity' END
  FROM public.expected AS e JOIN tokenkeeper.connections AS c USING (hub_id)
 WHERE e.due_at >= %s AND e.due_at < %s
"""


@dataclass(frozen=True, slots=True)
class Sustained:
    span: Span
    memory: Mapping[str, Memory]


@dataclass(frozen=True, slots=True)
class Wear:
    """What so many rounds of refreshes left behind."""

    rounds: float
    before: Bulk
    after: Bulk
    span: Span


@contextmanager
def running(world: World) -> Iterator[Meter]:
    """Until the end of the block; then all that was in flight is saved."""
    celery = ["celery", "-A", "worker.app"]
    worker = Process(
        "worker", [*celery, "worker", "-c", "2", "-n", "bench@%h", "-l", "info"], world.environment, world.folder
    )
    schedule = ["--schedule", str(world.folder / "schedule"), "--pidfile="]
    beat = Process("beat", [*celery, "beat", *schedule], world.environment, world.folder)
    try:
        worker.says(r" ready\.")
        yield Meter(world, {"worker": worker.pid, "beat": beat.pid})
        worker.must_run()
    finally:
        beat.kill()
        worker.stop()


def sustained(world: World, warm: float, seconds: float) -> Sustained:
    """With more due than can be done. Raises Failed where an answer is not in its row, or a hub was asked twice."""
    with checked(world), running(world) as meter:
        wait_for_work(world)
        time.sleep(warm)
        before = meter.now()
        time.sleep(seconds)
        span = between(before, meter.now())
        return Sustained(span, meter.memory())


def worn(world: World, size: int, rounds: float) -> Wear:
    """After so many refreshes of each of them, on average."""
    bulk = fleet.bulk(world)
    wanted = world.hubspot.refreshes() + rounds * size
    with checked(world), running(world) as meter:
        before = meter.now()
        while world.hubspot.refreshes() < wanted:
            time.sleep(POLL)
        span = between(before, meter.now())
    return Wear(span.refreshes / size, bulk, fleet.bulk(world), span)


def late(world: World, warm: float, seconds: float) -> tuple[list[float], Span]:
    """Seconds from the due time of each refresh until its row was committed, at the pace of a fleet in balance."""
    world.sql(EXPECTED, 10 * (warm + seconds))
    with checked(world), running(world) as meter:
        wait_for_work(world)
        time.sleep(warm)
        before, begun = meter.now(), world.value("SELECT clock_timestamp()")
        time.sleep(seconds)
        ended, after = world.value("SELECT clock_timestamp()"), meter.now()
        time.sleep(REST)
    lateness = [row[0] for row in world.sql(LATENESS, begun, ended)]
    return lateness, between(before, after)


@contextmanager
def checked(world: World) -> Iterator[None]:
    """Raises Failed where an answer in the block did not land, or a hub was asked twice at once."""
    world.hubspot.rest()
    world.hubspot.newest()
    before = world.hubspot.answers().at_once
    yield
    if twice := world.hubspot.answers().at_once - before:
        raise Failed(f"{twice} refreshes of a hub whose refresh was in flight")
    fleet.landed(world)


def wait_for_work(world: World) -> None:
    """Until the first sweep has brought the first answers."""
    before, deadline = world.hubspot.refreshes(), time.monotonic() + 30
    while world.hubspot.refreshes() <= before:
        if time.monotonic() > deadline:
            raise Failed("the product refreshed nothing in half a minute")
        time.sleep(POLL)
