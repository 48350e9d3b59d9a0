"""HubSpot is down with 5,000 connections due: few calls while it lasts, no stampede after it."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from tests.support.fault_deployment import FaultDeployment
from tests.support.polling import until

#: What is judged here is the default pace.
SETTINGS = {"SWEEP_SECONDS": "2", "HTTP_TIMEOUT_SECONDS": "20", "LEASE_SECONDS": "60"}
MANY, DOWN_SECONDS = 5_000, 15


@pytest.mark.timeout(180)
def test_an_outage_of_hubspot_with_5000_connections_due(
    started_deployment: FaultDeployment, capsys: pytest.CaptureFixture[str]
) -> None:
    started_deployment.simulator.change_settings(latency=0.05, lifetime=1800)
    started_deployment.import_connections(MANY)
    until(lambda: len(started_deployment.tokens()) == MANY, 60)
    with started_deployment.new_watcher(interval_seconds=1.0) as started_deployment.watcher:
        started_deployment.simulator.reset()
        started_deployment.simulator.add_fault(503, where="all")
        before = started_deployment.make_due()
        until(lambda: started_deployment.hubspot_condition() == "unavailable")
        time.sleep(1)  # what was in flight when the news came
        down = _count_calls_within(started_deployment, DOWN_SECONDS)
        started_deployment.simulator.clear_faults()
        over = time.monotonic()
        started_deployment.wait_for_new_tokens(before, 60)
        took = time.monotonic() - over
    climb = _climb(started_deployment)
    first, later = climb[:10], climb[10:]
    with capsys.disabled():
        print(f"\n{MANY} connections, {DOWN_SECONDS} s of 503: {down} calls; all fresh {took:.0f} s after it")
        print(f"calls a second since HubSpot answers again: {climb}")
    assert down <= 2 * DOWN_SECONDS
    assert max(first) <= 2 * sum(later) / len(later)
    assert started_deployment.watcher.found_no_refused_token()
    assert not started_deployment.watcher.ended_hub_ids
    assert started_deployment.never_refreshed_twice_at_once()


def _count_calls_within(deployment: FaultDeployment, seconds: float) -> int:
    """Calls that went out meanwhile."""
    calls = deployment.count_refreshes()
    time.sleep(seconds)
    return deployment.count_refreshes() - calls


def _climb(deployment: FaultDeployment) -> list[int]:
    """Calls a second, from the one that found HubSpot well again."""
    told: list[Mapping[str, int]] = deployment.simulator.get_stats(by_hub=False)["per_second"]
    by_second = {row["at"]: row.get("token", 0) for row in told}
    paces = [by_second.get(second, 0) for second in range(told[0]["at"], told[-1]["at"] + 1)]
    silent = max(place for place, pace in enumerate(paces) if pace == 0)
    return paces[silent + 1 :]
