"""A client id of another app makes HubSpot call every refresh token bad: few are revoked, and all come back."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from sandbox.simulator.control import DEMO_CLIENT_ID, SimulatorControl
from shared.domain.brake import MIN_REVOCATIONS
from tests.journeys.world import World
from tests.support.environment import SHORT_WAITS
from tests.support.polling import until
from tests.support.product import Product, has_printed
from tests.support.stores import SqlFixture

HUBS = 200
FOREIGN_ID = "5a1b0c1e-7e57-4000-8000-0000000f0e16"
ALERTS = "SELECT recovered FROM tokenkeeper.alerts WHERE kind = 'revocation_brake' ORDER BY number"
OUTSIDE = "SELECT status, count(*) FROM hubspot.connections GROUP BY 1"


@pytest.fixture
def kept(product: Product, simulator: SimulatorControl, connect: Callable[..., Any]) -> World:
    """200 imported connections with tokens of 6 seconds, kept by a worker and a beat."""
    product.environment.update(SHORT_WAITS)
    world = World(product, simulator, SqlFixture(connect()))
    world.simulator.change_settings(lifetime=6, client_ids=[DEMO_CLIENT_ID, FOREIGN_ID])
    issued = world.simulator.install_many(HUBS)
    lines = "\n".join(json.dumps({"hub_id": hub, "refresh_token": token}) for hub, token in issued.items())
    assert world.product.tokenkeeper("import", "-", stdin=lines).returncode == 0
    world.started(web=False)
    until(lambda: counts(world) == {"active": HUBS} and len(world.tokens()) == HUBS)
    return world


def counts(world: World) -> dict[str, int]:
    return dict(world.sql.rows(OUTSIDE))


def alerts(world: World) -> list[bool]:
    return [recovered for (recovered,) in world.sql.rows(ALERTS)]


def worker_with(world: World, client_id: str) -> None:
    """As an operator changes a setting: stop, start with another."""
    old = world.named("worker")[-1]
    old.send_signal(signal.SIGTERM)
    old.wait(20)
    world.product.worker(wait=False, HUBSPOT_CLIENT_ID=client_id).wait_until(has_printed(" ready."))


def all_braked(world: World) -> None:
    worker_with(world, FOREIGN_ID)
    held = "SELECT count(*) FROM tokenkeeper.connections WHERE pending_revocation IS NOT NULL"
    until(lambda: world.sql.value(held) == HUBS - MIN_REVOCATIONS)
    assert counts(world) == {"revoked": MIN_REVOCATIONS, "suspect": HUBS - MIN_REVOCATIONS}
    assert alerts(world) == [False]


def revocations(world: World, word: str) -> str:
    ran = world.product.tokenkeeper("revocations", word, "--yes")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def all_well(world: World) -> Any:
    tokens = world.tokens()
    return counts(world) == {"active": HUBS} and len(tokens) == HUBS and world.live(*tokens.values())


def test_a_foreign_client_id_revokes_few_and_dismissed_all_come_back_with_nobody_re_installing(kept: World) -> None:
    all_braked(kept)
    worker_with(kept, DEMO_CLIENT_ID)
    # Those that the brake held come back by themselves as they are asked again: HubSpot takes their tokens.
    said = revocations(kept, "dismiss")
    assert "active and due again" in said
    until(lambda: all_well(kept))
    assert alerts(kept) == [False, True]
    assert not kept.sql.rows("SELECT 1 FROM hubspot.history WHERE event = 'reinstalled'")
    assert kept.never_two_at_once()


def test_confirmed_they_are_revoked_and_an_operator_can_still_have_one_tried_again(kept: World) -> None:
    all_braked(kept)
    assert revocations(kept, "confirm").startswith(f"{HUBS - MIN_REVOCATIONS} revoked")
    assert counts(kept) == {"revoked": HUBS}
    assert kept.tokens() == {}
    assert alerts(kept) == [False, True]
    worker_with(kept, DEMO_CLIENT_ID)
    hub_id = min(hub for (hub,) in kept.sql.rows("SELECT hub_id FROM hubspot.connections"))
    assert kept.product.tokenkeeper("refresh", str(hub_id)).returncode == 0
    until(lambda: kept.token(hub_id) is not None)
    assert kept.status(hub_id) == "active"
