"""How many rows the refresh loop claims, and where its thread runs."""

import os
import threading

import pytest

from shared.db.core.engine import make_engine
from shared.domain.schedule import Schedule
from tests.support.hubspot import ScriptedHubSpot
from tests.support.refresh_attempts import CIPHER
from tests.support.stores import Stores
from worker.refresh.loop import RefreshLoop, count_rows_wanted
from worker.refresh.refresher import Refresher


@pytest.mark.parametrize(
    ("unfinished", "finished", "wanted"),
    [
        (0, 0, 8),  # one for each thread
        (8, 0, 0),  # every call hangs
        (6, 2, 6),  # two are free, and two are queued for each that has finished
        (0, 8, 16),  # no more queued than there are threads
        (16, 8, 0),
    ],
)
def test_rows_are_queued_ahead_as_fast_as_calls_finish(unfinished, finished, wanted):
    assert count_rows_wanted(8, unfinished=unfinished, finished=finished, is_provider_healthy=True) == wanted


def test_no_row_is_queued_while_hubspot_is_unhealthy():
    assert count_rows_wanted(8, unfinished=6, finished=2, is_provider_healthy=False) == 2


def make_loop() -> RefreshLoop:
    """Without PostgreSQL."""
    stores = Stores(make_engine("postgresql://user@127.0.0.1:1/database"), lease_seconds=60)
    refresher = Refresher(ScriptedHubSpot(), CIPHER, stores.claims.clock, Schedule(), 20)  # type: ignore[arg-type]
    return RefreshLoop(stores.claims, stores.results, stores.provider, stores.counters, refresher, concurrency=8)


def test_a_loop_begins_after_the_delay_that_a_sweep_asks_for_unless_it_is_active_already() -> None:
    """The sweep has given its connection back by then."""
    inactive, active = make_loop(), make_loop()
    active.activate(300)
    for loop in (inactive, active):
        loop.activate(300, delay_seconds=100)
    assert (inactive._may_claim(), active._may_claim()) == (False, True)


def test_a_loop_that_was_made_before_a_fork_is_known_to_run_in_the_process_that_starts_it() -> None:
    """Otherwise a process that stops would not notice that calls are still in flight."""
    loop = make_loop()
    pid = os.fork()
    if not pid:
        for _ in range(2):
            loop.start()
        running = [thread.is_alive() for thread in threading.enumerate() if thread.name.startswith("refresh-loop")]
        os._exit(0 if running == [True] else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert loop.drain(0), "here it has not been started"
