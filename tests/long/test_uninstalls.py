"""100,000 customers uninstall at once: the brake holds them, and connections of others are refreshed meanwhile."""

from __future__ import annotations

import time

import pytest

from shared.domain.brake import MAX_REVOKED_PERCENT
from tests.support.fault_deployment import FaultDeployment
from tests.support.polling import until

SETTINGS = {"SWEEP_SECONDS": "2", "HTTP_TIMEOUT_SECONDS": "20", "LEASE_SECONDS": "60", "JOURNAL_SECONDS": "10"}
HUBS, OTHER_HUBS = 100_000, 100
WATCHED_SECONDS = 60
COUNT = "SELECT count(*) FROM tokenkeeper.connections WHERE "


@pytest.mark.timeout(1200)
def test_the_brake_holds_100000_uninstalls_at_once_and_other_connections_are_refreshed_meanwhile(
    started_deployment: FaultDeployment, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = started_deployment
    deployment.simulator.change_settings(lifetime=7200)
    until(lambda: len(deployment.simulator.list_subscriptions()) == 2)
    deployment.import_connections(HUBS, first=1_000_000)
    until(lambda: deployment.sql.value(COUNT + "access_token IS NOT NULL") == HUBS, 400)
    deployment.simulator.uninstall(keep_access_tokens=True)
    began_at = time.monotonic()
    others = deployment.import_connections(OTHER_HUBS, first=5_000_000).hubs[-OTHER_HUBS:]
    until(lambda: deployment.sql.value(COUNT + "access_token IS NOT NULL AND hub_id >= 5000000") == OTHER_HUBS)
    waits = []
    while time.monotonic() < began_at + WATCHED_SECONDS:
        before, asked_at = deployment.make_due(*others), time.monotonic()
        deployment.wait_for_new_tokens(before)
        waits.append(time.monotonic() - asked_at)
    by_status = dict(deployment.sql.rows("SELECT status, count(*) FROM hubspot.connections GROUP BY 1"))
    with capsys.disabled():
        print(f"\n{HUBS} uninstalls, {WATCHED_SECONDS} s later: {by_status};", end=" ")
        print(f"other connections that were due had new tokens after {max(waits):.1f} s at most")
    assert by_status["suspect"] > 0
    assert by_status["revoked"] <= HUBS * MAX_REVOKED_PERCENT // 100
    assert len(deployment.tokens()) == HUBS + OTHER_HUBS - by_status["revoked"]
    assert deployment.sql.value("SELECT count(*) FROM tokenkeeper.alerts WHERE kind = 'revocation_brake'") == 1
