"""Two minutes of a downstream job that reads every token ten times a second and asks HubSpot about each.

`make freshness` runs it and prints the figures.
"""

from __future__ import annotations

import statistics
import time

import pytest

from tests.support.deployment import Deployment
from tests.support.polling import until

HUBS, LIFETIME_SECONDS, RUN_SECONDS, PAUSE_SECONDS = 50, 20, 120, 0.1


@pytest.mark.timeout(400)
def test_no_reader_ever_gets_a_token_that_hubspot_refuses(
    idle_deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    idle_deployment.simulator.change_settings(lifetime=LIFETIME_SECONDS)
    idle_deployment.product.environment["SWEEP_SECONDS"] = "2"
    idle_deployment.start()
    waits = sorted(_measure_seconds_until_readable(idle_deployment, hub_id) for hub_id in range(1, HUBS + 1))
    reads, shortest, missing, refused, deadline = 0, float(LIFETIME_SECONDS), 0, 0, time.monotonic() + RUN_SECONDS
    while (started_at := time.monotonic()) < deadline:
        tokens = idle_deployment.tokens()
        checks = idle_deployment.simulator.check_tokens(list(tokens.values()))
        reads += len(checks)
        missing += HUBS - len(tokens)
        refused += sum(not check.is_live for check in checks)
        shortest = min([shortest, *(check.seconds_left or 0.0 for check in checks)])
        time.sleep(max(0.0, started_at + PAUSE_SECONDS - time.monotonic()))
    stats = idle_deployment.simulator.get_stats()
    refreshes = sum(row["refreshes"] for row in stats["by_hub"].values())
    with capsys.disabled():
        print(
            f"\n{HUBS} hubs, tokens of {LIFETIME_SECONDS} s, {RUN_SECONDS} s:"
            f" {reads} reads, {refused} refused, {missing} missing"
        )
        print(f"{refreshes} refreshes, at most {stats['most_refreshes_of_one_hub']} of one hub at once")
        print(f"shortest lifetime left in a token read: {shortest:.1f} s")
        print(
            "callback answered to readable in SQL:"
            f" p50 {_format_ms(statistics.median(waits))}, p95 {_format_ms(waits[-3])}"
        )
    assert (refused, missing) == (0, 0)
    assert waits[-1] < 1
    assert idle_deployment.never_refreshed_twice_at_once()


def _measure_seconds_until_readable(idle_deployment: Deployment, hub_id: int) -> float:
    assert idle_deployment.install(hub_id).status_code == 303
    answered_at = time.monotonic()
    until(lambda: idle_deployment.token(hub_id))
    return time.monotonic() - answered_at


def _format_ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"
