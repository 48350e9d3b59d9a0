"""The client secret is rotated at HubSpot, or wrong at our end."""

from __future__ import annotations

from sandbox.simulator.control import DEMO_CLIENT_SECRET
from tests.support.fleet import Fleet
from tests.support.polling import until

NEW_SECRET = "the-secret-after-the-rotation"
SETTINGS = {"HUBSPOT_CLIENT_SECRET": f"{NEW_SECRET},{DEMO_CLIENT_SECRET}"}


def test_no_downstream_job_notices_a_rotation_in_mid_run(fleet: Fleet) -> None:
    """Both secrets are in the settings, HubSpot takes the old one only, and from some moment on only the new one."""
    fleet.simulator.change_settings(latency=0.1)
    before = fleet.due()
    fleet.simulator.change_settings(client_secrets=[NEW_SECRET])
    fleet.replaced(before, seconds=5)
    fleet.simulator.change_settings(client_secrets=[NEW_SECRET, DEMO_CLIENT_SECRET])
    fleet.replaced(fleet.due(), seconds=5)
    fleet.simulator.change_settings(client_secrets=[DEMO_CLIENT_SECRET])
    fleet.replaced(fleet.due(), seconds=5)
    assert {event for hub_id in fleet.hubs for event in fleet.sql.events(hub_id)} == {"imported"}
    assert fleet.condition() == "ok"
    fleet.well_again()


def test_our_own_bad_secret_costs_no_connection_and_mends_itself(fleet: Fleet) -> None:
    fleet.simulator.change_settings(client_secrets=["somebody-elses"])
    before, calls = fleet.due(), fleet.calls()
    until(lambda: fleet.condition() == "app_rejected")
    assert {fleet.world.status(hub_id) for hub_id in fleet.hubs} == {"active"}
    assert fleet.world.tokens() == before
    assert fleet.calls() - calls <= 2 * len(before)
    fleet.simulator.change_settings(client_secrets=[DEMO_CLIENT_SECRET])
    fleet.replaced(before)
    assert {event for hub_id in fleet.hubs for event in fleet.sql.events(hub_id)} == {"imported"}
    fleet.well_again()


def test_a_worker_started_with_a_wrong_secret_and_again_with_the_right_one(fleet: Fleet) -> None:
    assert fleet.newest("worker").stop() == 0
    wrong = fleet.world.product.worker(HUBSPOT_CLIENT_SECRET="not-the-secret-of-this-app")
    before = fleet.due()
    until(lambda: fleet.condition() == "app_rejected")
    assert {fleet.world.status(hub_id) for hub_id in fleet.hubs} == {"active"}
    assert wrong.stop() == 0
    fleet.world.product.worker()
    fleet.replaced(before)
    assert {event for hub_id in fleet.hubs for event in fleet.sql.events(hub_id)} == {"imported"}
    fleet.well_again()
