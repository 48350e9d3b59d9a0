"""The client secret is rotated at HubSpot, or wrong in the settings."""

from __future__ import annotations

from sandbox.simulator.control import DEMO_CLIENT_SECRET
from tests.faults.held_refreshes import PATIENT
from tests.support.fault_deployment import FaultDeployment
from tests.support.polling import until

NEW_SECRET = "the-secret-after-the-rotation"
SETTINGS = {**PATIENT, "HUBSPOT_CLIENT_SECRET": f"{NEW_SECRET},{DEMO_CLIENT_SECRET}"}


def test_a_rotation_of_the_client_secret_at_hubspot_interrupts_no_refresh(deployment: FaultDeployment) -> None:
    """Both secrets are in the settings; HubSpot accepts the old one, then the new one."""
    deployment.simulator.change_settings(latency=0.1)
    before = deployment.make_due()
    deployment.simulator.change_settings(client_secrets=[NEW_SECRET])
    deployment.wait_for_new_tokens(before)
    deployment.simulator.change_settings(client_secrets=[NEW_SECRET, DEMO_CLIENT_SECRET])
    deployment.wait_for_new_tokens(deployment.make_due())
    deployment.simulator.change_settings(client_secrets=[DEMO_CLIENT_SECRET])
    deployment.wait_for_new_tokens(deployment.make_due())
    assert {event for hub_id in deployment.hubs for event in deployment.sql.events(hub_id)} == {"imported"}
    assert deployment.hubspot_condition() == "ok"
    deployment.check_recovered()


def test_a_rejected_client_secret_ends_no_connection_and_refreshes_resume_once_it_is_accepted(
    deployment: FaultDeployment,
) -> None:
    deployment.simulator.change_settings(client_secrets=["the-secret-of-another-app"])
    before, calls = deployment.make_due(), deployment.count_refreshes()
    until(lambda: deployment.hubspot_condition() == "app_rejected")
    assert {deployment.status(hub_id) for hub_id in deployment.hubs} == {"active"}
    assert deployment.tokens() == before
    assert deployment.count_refreshes() - calls <= 2 * len(before)
    deployment.simulator.change_settings(client_secrets=[DEMO_CLIENT_SECRET])
    deployment.wait_for_new_tokens(before)
    assert {event for hub_id in deployment.hubs for event in deployment.sql.events(hub_id)} == {"imported"}
    deployment.check_recovered()


def test_a_worker_started_with_a_wrong_client_secret_ends_no_connection(deployment: FaultDeployment) -> None:
    assert deployment.newest_process("worker").stop() == 0
    wrong = deployment.product.worker(HUBSPOT_CLIENT_SECRET="not-the-secret-of-this-app")
    before = deployment.make_due()
    until(lambda: deployment.hubspot_condition() == "app_rejected")
    assert {deployment.status(hub_id) for hub_id in deployment.hubs} == {"active"}
    assert wrong.stop() == 0
    deployment.product.worker()
    deployment.wait_for_new_tokens(before)
    assert {event for hub_id in deployment.hubs for event in deployment.sql.events(hub_id)} == {"imported"}
    deployment.check_recovered()
