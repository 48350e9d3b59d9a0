"""HubSpot is down with 5,000 connections due: few calls while it lasts, no stampede after it."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from tests.support.fault_deployment import FaultDeployment
from tests.support.polling import until

#: The default rates, because this test checks them.
SETTINGS = {"SWEEP_SECONDS": "2", "HTTP_TIMEOUT_SECONDS": "20", "LEASE_SECONDS": "60"}
HUBS, DOWN_SECONDS = 5_000, 15


@pytest.mark.timeout(180)
def test_an_outage_of_hubspot_with_5000_due_connections_causes_few_calls_and_no_stampede(
    started_deployment: FaultDeployment, capsys: pytest.CaptureFixture[str]
) -> None:
    started_deployment.simulator.change_settings(latency=0.05, lifetime=1800)
    started_deployment.import_connections(HUBS)
    until(lambda: len(started_deployment.tokens()) == HUBS, 60)
    with started_deployment.new_watcher(interval_seconds=1.0) as started_deployment.watcher:
        started_deployment.simulator.reset()
        started_deployment.simulator.add_fault(503, where="all")
        before = started_deployment.make_due()
        until(lambda: started_deployment.hubspot_condition() == "unavailable")
        time.sleep(1)  # calls that were in flight
        calls_during_outage = _count_calls_within(started_deployment, DOWN_SECONDS)
        started_deployment.simulator.clear_faults()
        ended_at = time.monotonic()
        started_deployment.wait_for_new_tokens(before, 60)
        recovery_seconds = time.monotonic() - ended_at
    calls_per_second = _list_calls_per_second(started_deployment)
    first, later = calls_per_second[:10], calls_per_second[10:]
    with capsys.disabled():
        print(
            f"\n{HUBS} connections, {DOWN_SECONDS} s of 503: {calls_during_outage} calls;"
            f" all fresh {recovery_seconds:.0f} s after it"
        )
        print(f"calls a second since HubSpot answers again: {calls_per_second}")
    assert calls_during_outage <= 2 * DOWN_SECONDS
    assert max(first) <= 2 * sum(later) / len(later)
    assert started_deployment.watcher.found_no_refused_token()
    assert not started_deployment.watcher.ended_hub_ids
    assert started_deployment.never_refreshed_twice_at_once()


def _count_calls_within(deployment: FaultDeployment, seconds: float) -> int:
    """Calls to HubSpot during these seconds."""
    calls = deployment.count_refreshes()
    time.sleep(seconds)
    return deployment.count_refreshes() - calls


def _list_calls_per_second(deployment: FaultDeployment) -> list[int]:
    """Calls in each second, from the probe that ended the outage."""
    rows: list[Mapping[str, int]] = deployment.simulator.get_stats(by_hub=False)["per_second"]
    by_second = {row["at"]: row.get("token", 0) for row in rows}
    counts = [by_second.get(second, 0) for second in range(rows[0]["at"], rows[-1]["at"] + 1)]
    last_without_calls = max(index for index, count in enumerate(counts) if count == 0)
    return counts[last_without_calls + 1 :]
