"""HubSpot is down with 5,000 connections due: few calls while it lasts, no stampede after it."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from tests.support.fleet import Fleet
from tests.support.polling import until

#: What is judged here is the default pace.
SETTINGS = {"SWEEP_SECONDS": "2", "HTTP_TIMEOUT_SECONDS": "20", "LEASE_SECONDS": "60"}
MANY, DOWN_SECONDS = 5_000, 15


@pytest.mark.timeout(180)
def test_an_outage_of_hubspot_with_5000_connections_due(grounds: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    grounds.simulator.change_settings(latency=0.05, lifetime=1800)
    grounds.imported(MANY)
    until(lambda: len(grounds.world.tokens()) == MANY, 60)
    with grounds.watching(every=1.0) as grounds.watch:
        grounds.simulator.reset()
        grounds.simulator.add_fault(503, where="all")
        before = grounds.due()
        until(lambda: grounds.condition() == "unavailable")
        time.sleep(1)  # what was in flight when the news came
        down = _watched(grounds, DOWN_SECONDS)
        grounds.simulator.clear_faults()
        over = time.monotonic()
        grounds.replaced(before, 60)
        took = time.monotonic() - over
    climb = _climb(grounds)
    first, later = climb[:10], climb[10:]
    with capsys.disabled():
        print(f"\n{MANY} connections, {DOWN_SECONDS} s of 503: {down} calls; all fresh {took:.0f} s after it")
        print(f"calls a second since HubSpot answers again: {climb}")
    assert down <= 2 * DOWN_SECONDS
    assert max(first) <= 2 * sum(later) / len(later)
    assert grounds.watch.faultless()
    assert not grounds.watch.ended
    assert grounds.world.never_two_at_once()


def _watched(fleet: Fleet, seconds: float) -> int:
    """Calls that went out meanwhile."""
    calls = fleet.calls()
    time.sleep(seconds)
    return fleet.calls() - calls


def _climb(fleet: Fleet) -> list[int]:
    """Calls a second, from the one that found HubSpot well again."""
    told: list[Mapping[str, int]] = fleet.simulator.get_stats(by_hub=False)["per_second"]
    by_second = {row["at"]: row.get("token", 0) for row in told}
    paces = [by_second.get(second, 0) for second in range(told[0]["at"], told[-1]["at"] + 1)]
    silent = max(place for place, pace in enumerate(paces) if pace == 0)
    return paces[silent + 1 :]
