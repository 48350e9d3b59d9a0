"""The simulator's account information: what HubSpot says about an account to whom has a token of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from sandbox.simulator.control import ControlFailed
from tests.support.simulator import HUB, SimulatorFixture, run_simulator

ROBOT = 145332901
REQUIRED_FIELDS = {
    "portalId", "accountType", "timeZone", "companyCurrency", "additionalCurrencies", "utcOffset",
    "utcOffsetMilliseconds", "uiDomain", "dataHostingLocation",
}  # fmt: skip


@pytest.fixture
def simulator() -> Iterator[SimulatorFixture]:
    with run_simulator() as fixture:
        yield fixture


def get_details(simulator: SimulatorFixture, hub_id: int, version: str = "2026-09") -> requests.Response:
    token = simulator.refresh(simulator.control.install(hub_id)).json()["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    return simulator.http.get(f"{simulator.url}/account-info/{version}/details", headers=bearer, timeout=60)


@pytest.mark.parametrize("version", ["v3", "2025-09", "2026-03", "2026-09"])
def test_every_version_tells_the_fields_of_the_specification(simulator: SimulatorFixture, version: str) -> None:
    details = get_details(simulator, HUB, version).json()
    assert set(details) == REQUIRED_FIELDS | {"portalName", "createdAt"}
    assert (details["portalId"], details["portalName"]) == (HUB, "Northwind Bakery")
    assert (details["accountType"], details["dataHostingLocation"]) == ("STANDARD", "na1")
    assert details["uiDomain"] == "app.hubspot.com"


def test_type_name_and_region_of_an_account_can_be_changed(simulator: SimulatorFixture) -> None:
    assert get_details(simulator, ROBOT).json()["accountType"] == "SANDBOX"
    simulator.control.change_account(7, name="Acme Ltd", account_type="DEVELOPER_TEST", hublet="eu1")
    details = get_details(simulator, 7).json()
    assert (details["portalName"], details["accountType"]) == ("Acme Ltd", "DEVELOPER_TEST")
    assert (details["dataHostingLocation"], details["uiDomain"]) == ("eu1", "app-eu1.hubspot.com")
    assert simulator.get_code(7).startswith("eu1-")
    with pytest.raises(ControlFailed, match="account_type"):
        simulator.control.change_account(7, no_such="x")


def test_the_optional_fields_can_be_left_out(simulator: SimulatorFixture) -> None:
    simulator.control.change_settings(omit=["portalName", "createdAt"])
    assert set(get_details(simulator, HUB).json()) == REQUIRED_FIELDS


def test_faults_of_account_information_can_be_requested(simulator: SimulatorFixture) -> None:
    simulator.control.add_fault("missing_scopes", where="account_info", times=1)
    refused = get_details(simulator, HUB)
    assert (refused.status_code, refused.json()["category"]) == (403, "MISSING_SCOPES")
    simulator.control.add_fault("wrong_types", where="account_info", times=1)
    assert get_details(simulator, HUB).json()["portalName"] == {"name": "Acme"}
    for kind, status in ((503, 503), ("html_200", 200)):
        simulator.control.add_fault(kind, where="account_info", times=1)
        assert get_details(simulator, HUB).status_code == status
    assert simulator.get_contacts(simulator.refresh(simulator.control.install(HUB)).json()["access_token"]).ok
