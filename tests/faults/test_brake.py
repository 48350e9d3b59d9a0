"""A client id of another app makes HubSpot call every refresh token bad: few are revoked, and all come back."""

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
FOREIGN_ID = "5a1b0c1e-7e57-4000-8000-0000000f0e16"
ALERTS = "SELECT recovered FROM tokenkeeper.alerts WHERE kind = 'revocation_brake' ORDER BY number"
OUTSIDE = "SELECT status, count(*) FROM hubspot.connections GROUP BY 1"


@pytest.fixture
def deployment(product: Product, simulator: SimulatorControl, connect: Callable[..., Any]) -> Deployment:
    """200 imported connections with tokens of 6 seconds, deployment by a worker and a beat."""
    product.environment.update(SHORT_WAITS)
    deployment = Deployment(product, simulator, SqlFixture(connect()))
    deployment.simulator.change_settings(lifetime=6, client_ids=[DEMO_CLIENT_ID, FOREIGN_ID])
    issued = deployment.simulator.install_many(HUBS)
    lines = "\n".join(json.dumps({"hub_id": hub, "refresh_token": token}) for hub, token in issued.items())
    assert deployment.product.tokenkeeper("import", "-", stdin=lines).returncode == 0
    deployment.start(web=False)
    until(lambda: counts(deployment) == {"active": HUBS} and len(deployment.tokens()) == HUBS)
    return deployment


def counts(deployment: Deployment) -> dict[str, int]:
    return dict(deployment.sql.rows(OUTSIDE))


def alerts(deployment: Deployment) -> list[bool]:
    return [recovered for (recovered,) in deployment.sql.rows(ALERTS)]


def worker_with(deployment: Deployment, client_id: str) -> None:
    """As an operator changes a setting: stop, start with another."""
    old = deployment.processes_named("worker")[-1]
    old.send_signal(signal.SIGTERM)
    old.wait(20)
    deployment.product.worker(wait=False, HUBSPOT_CLIENT_ID=client_id).wait_until(has_printed(" ready."))


def all_braked(deployment: Deployment) -> None:
    worker_with(deployment, FOREIGN_ID)
    held = "SELECT count(*) FROM tokenkeeper.connections WHERE pending_revocation IS NOT NULL"
    until(lambda: deployment.sql.value(held) == HUBS - MIN_REVOCATIONS)
    assert counts(deployment) == {"revoked": MIN_REVOCATIONS, "suspect": HUBS - MIN_REVOCATIONS}
    assert alerts(deployment) == [False]


def revocations(deployment: Deployment, word: str) -> str:
    ran = deployment.product.tokenkeeper("revocations", word, "--yes")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def all_well(deployment: Deployment) -> Any:
    tokens = deployment.tokens()
    return counts(deployment) == {"active": HUBS} and len(tokens) == HUBS and deployment.are_live(*tokens.values())


def test_with_the_client_id_of_another_app_few_connections_are_revoked_and_a_dismissal_recovers_all_without_a_reinstall(
    deployment: Deployment,
) -> None:
    all_braked(deployment)
    worker_with(deployment, DEMO_CLIENT_ID)
    # Those that the brake held come back by themselves as they are asked again: HubSpot takes their tokens.
    said = revocations(deployment, "dismiss")
    assert "active and due again" in said
    until(lambda: all_well(deployment))
    assert alerts(deployment) == [False, True]
    assert not deployment.sql.rows("SELECT 1 FROM hubspot.history WHERE event = 'reinstalled'")
    assert deployment.never_refreshed_twice_at_once()


def test_a_confirmation_revokes_all_held_connections_and_an_operator_can_still_refresh_one(
    deployment: Deployment,
) -> None:
    all_braked(deployment)
    assert revocations(deployment, "confirm").startswith(f"{HUBS - MIN_REVOCATIONS} revoked")
    assert counts(deployment) == {"revoked": HUBS}
    assert deployment.tokens() == {}
    assert alerts(deployment) == [False, True]
    worker_with(deployment, DEMO_CLIENT_ID)
    hub_id = min(hub for (hub,) in deployment.sql.rows("SELECT hub_id FROM hubspot.connections"))
    assert deployment.product.tokenkeeper("refresh", str(hub_id)).returncode == 0
    until(lambda: deployment.token(hub_id) is not None)
    assert deployment.status(hub_id) == "active"
