"""With the client id of another app HubSpot rejects every refresh token: few are revoked, and all recover."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from sandbox.simulator.control import DEMO_CLIENT_ID, SimulatorControl
from shared.domain.brake import MIN_REVOCATIONS
from tests.support.deployment import Deployment
from tests.support.environment import SHORT_WAITS
from tests.support.polling import until
from tests.support.product import Product, has_printed
from tests.support.stores import SqlFixture

HUBS = 200
OTHER_APP_CLIENT_ID = "5a1b0c1e-7e57-4000-8000-0000000f0e16"
ALERTS = "SELECT recovered FROM tokenkeeper.alerts WHERE kind = 'revocation_brake' ORDER BY number"
#: As refreshes fall due in the course of the day.
LET_ALL_FALL_DUE = "UPDATE tokenkeeper.connections SET due_at = now() + random() * interval '1 second'"
COUNT_BY_STATUS = "SELECT status, count(*) FROM hubspot.connections GROUP BY 1"


@pytest.fixture
def deployment(product: Product, simulator: SimulatorControl, connect: Callable[..., Any]) -> Deployment:
    """200 imported connections with tokens, a worker and a beat."""
    product.environment.update(SHORT_WAITS)
    deployment = Deployment(product, simulator, SqlFixture(connect()))
    deployment.simulator.change_settings(client_ids=[DEMO_CLIENT_ID, OTHER_APP_CLIENT_ID])
    issued = deployment.simulator.install_many(HUBS)
    lines = "\n".join(json.dumps({"hub_id": hub, "refresh_token": token}) for hub, token in issued.items())
    assert deployment.product.tokenkeeper("import", "-", stdin=lines).returncode == 0
    deployment.start(web=False)
    until(lambda: count_by_status(deployment) == {"active": HUBS} and len(deployment.tokens()) == HUBS, 90)
    return deployment


def count_by_status(deployment: Deployment) -> dict[str, int]:
    return dict(deployment.sql.rows(COUNT_BY_STATUS))


def read_alerts(deployment: Deployment) -> list[bool]:
    return [recovered for (recovered,) in deployment.sql.rows(ALERTS)]


def restart_worker(deployment: Deployment, client_id: str) -> None:
    """Stop the worker and start one with another client id."""
    old = deployment.processes_named("worker")[-1]
    old.send_signal(signal.SIGTERM)
    old.wait(60)
    deployment.product.worker(wait=False, HUBSPOT_CLIENT_ID=client_id).wait_until(has_printed(" ready."))


def turn_brake_on(deployment: Deployment) -> None:
    restart_worker(deployment, OTHER_APP_CLIENT_ID)
    deployment.sql.rows(LET_ALL_FALL_DUE)
    held = "SELECT count(*) FROM tokenkeeper.connections WHERE pending_revocation IS NOT NULL"
    until(lambda: deployment.sql.value(held) == HUBS - MIN_REVOCATIONS, 90)
    assert count_by_status(deployment) == {"revoked": MIN_REVOCATIONS, "suspect": HUBS - MIN_REVOCATIONS}
    assert read_alerts(deployment) == [False]


def decide_revocations(deployment: Deployment, decision: str) -> str:
    result = deployment.product.tokenkeeper("revocations", decision, "--yes")
    assert result.returncode == 0, result.stderr
    return result.stdout


def are_all_active(deployment: Deployment) -> Any:
    tokens = deployment.tokens()
    return (
        count_by_status(deployment) == {"active": HUBS}
        and len(tokens) == HUBS
        and deployment.are_live(*tokens.values())
    )


def test_with_the_client_id_of_another_app_few_connections_are_revoked_and_a_dismissal_recovers_all_without_a_reinstall(
    deployment: Deployment,
) -> None:
    turn_brake_on(deployment)
    restart_worker(deployment, DEMO_CLIENT_ID)
    # The connections that the brake held recover at their next refresh: HubSpot accepts their tokens.
    assert "active and due again" in decide_revocations(deployment, "dismiss")
    until(lambda: are_all_active(deployment), 90)
    assert read_alerts(deployment) == [False, True]
    assert not deployment.sql.rows("SELECT 1 FROM hubspot.history WHERE event = 'reinstalled'")
    assert deployment.never_refreshed_twice_at_once()


def test_a_confirmation_revokes_all_held_connections_and_an_operator_can_still_refresh_one(
    deployment: Deployment,
) -> None:
    turn_brake_on(deployment)
    assert decide_revocations(deployment, "confirm").startswith(f"{HUBS - MIN_REVOCATIONS} revoked")
    assert count_by_status(deployment) == {"revoked": HUBS}
    assert deployment.tokens() == {}
    assert read_alerts(deployment) == [False, True]
    restart_worker(deployment, DEMO_CLIENT_ID)
    hub_id = min(hub for (hub,) in deployment.sql.rows("SELECT hub_id FROM hubspot.connections"))
    assert deployment.product.tokenkeeper("refresh", str(hub_id)).returncode == 0
    until(lambda: deployment.token(hub_id) is not None)
    assert deployment.status(hub_id) == "active"
