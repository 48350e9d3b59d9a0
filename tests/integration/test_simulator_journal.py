"""The simulator's Webhooks Journal: client-credentials tokens, subscriptions, lifecycle events, files and offsets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from sandbox.simulator.control import DEMO_CLIENT_ID
from tests.support.simulator import APP, HUB, SimulatorFixture, run_simulator

SCOPES = " ".join(
    f"developer.webhooks_journal.{name}" for name in ("read", "subscriptions.read", "subscriptions.write")
)
INSTALL, UNINSTALL = "4-1909196", "4-1916193"
DAY_SECONDS = 86_400


class JournalClient:
    """An app that reads its journal."""

    def __init__(self, simulator: SimulatorFixture, client_id: str = DEMO_CLIENT_ID, version: str = "2026-09") -> None:
        self.simulator = simulator
        self.app = APP | {"client_id": client_id}
        self.version = version
        self.token = self.ask_for_token().json().get("access_token", "")

    def ask_for_token(self, scope: str = SCOPES, version: str | None = None) -> requests.Response:
        form = self.app | {"grant_type": "client_credentials", "scope": scope}
        return self.simulator.post("token", version or self.version, **form)

    def call(self, path: str, method: str = "GET", **body: Any) -> requests.Response:
        area, _, rest = path.partition("/")
        address = f"{self.simulator.url}/webhooks-journal/{area}/{self.version}" + (f"/{rest}" if rest else "")
        bearer = {"Authorization": f"Bearer {self.token}"}
        return self.simulator.http.request(method, address, headers=bearer, json=body or None, timeout=60)

    def subscribe(self, event_type_id: str = UNINSTALL) -> requests.Response:
        body = {"subscriptionType": "APP_LIFECYCLE_EVENT", "eventTypeId": event_type_id, "properties": []}
        return self.call("subscriptions", "POST", **body)

    def read_file(self, reply: requests.Response) -> dict[str, Any]:
        assert reply.status_code == 200, reply.text
        return dict(requests.get(reply.json()["url"], timeout=60).json())

    def read_all(self) -> list[dict[str, Any]]:
        """All files, from the earliest on."""
        files, reply = [], self.call("journal/earliest")
        while reply.status_code == 200:
            files.append(self.read_file(reply))
            reply = self.call(f"journal/offset/{reply.json()['currentOffset']}/next")
        assert (reply.status_code, reply.content) == (204, b"")
        return files


@pytest.fixture
def simulator() -> Iterator[SimulatorFixture]:
    with run_simulator() as fixture:
        yield fixture


@pytest.fixture
def journal(simulator: SimulatorFixture) -> JournalClient:
    client = JournalClient(simulator)
    client.subscribe()
    return client


def test_client_credentials_bring_a_token_of_the_app_without_a_refresh_token(simulator: SimulatorFixture) -> None:
    client = JournalClient(simulator)
    reply = client.ask_for_token().json()
    assert set(reply) == {"access_token", "expires_in", "token_type", "token_use", "scopes"}
    assert (reply["token_use"], reply["expires_in"], reply["scopes"]) == ("client_credentials", 1800, SCOPES.split())
    assert client.ask_for_token(version="v1").json()["status"] == "BAD_GRANT_TYPE"
    assert client.ask_for_token(scope="").json()["status"] == "BAD_SCOPES"
    assert client.ask_for_token(scope="crm.lists.read").json()["status"] == "BAD_SCOPES"
    simulator.control.change_settings(journal_scopes=[])
    assert client.ask_for_token().json()["status"] == "BAD_SCOPES"
    simulator.control.add_app("users", user_level=True)
    refusal = JournalClient(simulator, "users").ask_for_token()
    assert (refusal.status_code, refusal.json()["status"]) == (400, "USER_LEVEL_CLIENT_CREDENTIALS_NOT_SUPPORTED")


@pytest.mark.parametrize("version", ["2026-03", "2026-09"])
def test_subscriptions_are_made_once_listed_and_deleted(simulator: SimulatorFixture, version: str) -> None:
    client = JournalClient(simulator, version=version)
    assert client.call("subscriptions").json() == {"results": []}
    first, again = client.subscribe(), client.subscribe()
    assert first.status_code == 200
    assert first.json() == again.json()
    client.subscribe(INSTALL)
    listed = client.call("subscriptions").json()["results"]
    assert [(each["eventTypeId"], each["actions"]) for each in listed] == [
        (UNINSTALL, ["APP_UNINSTALL"]),
        (INSTALL, ["APP_INSTALL"]),
    ]
    assert listed[0]["appId"] == simulator.control.get_app_id(DEMO_CLIENT_ID)
    assert client.call(f"subscriptions/{listed[0]['id']}", "DELETE").status_code == 204
    assert simulator.control.list_subscriptions() == [INSTALL]
    assert client.call("subscriptions", "POST", subscriptionType="OBJECT").json()["category"] == "VALIDATION_ERROR"


def test_an_uninstall_is_in_the_journal_of_its_app_alone(simulator: SimulatorFixture, journal: JournalClient) -> None:
    simulator.control.add_app("other")
    other = JournalClient(simulator, "other")
    other.subscribe()
    for client_id in (None, "other"):
        simulator.control.install(HUB, client_id)
    assert journal.call("journal/latest").status_code == 204
    simulator.control.uninstall(HUB, client_id=DEMO_CLIENT_ID)
    (file,) = journal.read_all()
    assert set(file) == {"offset", "publishedAt", "journalEvents"}
    (event,) = file["journalEvents"]
    assert (event["type"], event["action"], event["portalId"]) == ("app_lifecycle_event", "APP_UNINSTALL", HUB)
    assert event["occurredAt"].endswith("Z")
    app_id = simulator.control.get_app_id(DEMO_CLIENT_ID)
    assert event["properties"] == {
        "hs_app_id": app_id, "hs_app_install_level": "PORTAL", "hs_initiating_user_id": 222222, "hs_user_id": 222222,
    }  # fmt: skip
    assert other.call("journal/earliest").status_code == 204


def test_installs_and_uninstalls_by_anyone_are_recorded_in_order(simulator: SimulatorFixture) -> None:
    client = JournalClient(simulator)
    client.subscribe(INSTALL)
    client.subscribe(UNINSTALL)
    access_token = simulator.exchange(simulator.get_code()).json()["access_token"]
    bearer = {"Authorization": f"Bearer {access_token}"}
    simulator.http.delete(f"{simulator.url}/appinstalls/2026-09/external-install", headers=bearer, timeout=60)
    simulator.control.install(HUB)
    simulator.http.post(f"{simulator.url}/accounts/{HUB}/uninstall", timeout=60)
    simulator.control.uninstall(HUB)  # of what is not installed: no event
    actions = [event["action"] for file in client.read_all() for event in file["journalEvents"]]
    assert actions == ["APP_INSTALL", "APP_UNINSTALL", "APP_INSTALL", "APP_UNINSTALL"]


def test_events_before_the_subscription_are_not_recorded(simulator: SimulatorFixture) -> None:
    simulator.control.install(HUB)
    simulator.control.uninstall(HUB)
    client = JournalClient(simulator)
    client.subscribe()
    assert client.call("journal/earliest").status_code == 204


def test_a_file_has_at_most_the_configured_events_and_batches_list_several_files(
    simulator: SimulatorFixture, journal: JournalClient
) -> None:
    simulator.control.change_settings(journal_file_events=4)
    simulator.control.install_many(10)
    simulator.control.uninstall()
    files = journal.read_all()
    assert [len(file["journalEvents"]) for file in files] == [4, 4, 2]
    offsets = [file["offset"] for file in files]
    for path, expected in (
        ("batch/earliest/2", offsets[:2]),
        ("batch/latest/2", offsets[1:]),
        (f"batch/{offsets[0]}/next/100", offsets[1:]),
        (f"batch/{offsets[2]}/next/1", []),
    ):
        batch = journal.call(f"journal/{path}").json()
        assert [entry["currentOffset"] for entry in batch["results"]] == expected
        assert batch["status"] == "COMPLETE"
    assert journal.call("journal/batch/earliest/101").status_code == 400
    assert journal.call("journal/latest").json()["currentOffset"] == offsets[2]


def test_a_file_appears_after_the_configured_delay(simulator: SimulatorFixture, journal: JournalClient) -> None:
    simulator.control.change_settings(journal_delay=60)
    simulator.control.install(HUB)
    simulator.control.uninstall(HUB)
    assert journal.call("journal/earliest").status_code == 204
    simulator.clock.offset_seconds = 61
    assert len(journal.read_all()) == 1


@pytest.mark.parametrize("status", [404, 400, 204])
def test_an_offset_is_lost_after_three_days(simulator: SimulatorFixture, journal: JournalClient, status: int) -> None:
    simulator.control.change_settings(journal_lost_offset=str(status))
    offset = simulator.control.publish_journal_file([])
    assert journal.call(f"journal/offset/{offset}/next").status_code == 204
    simulator.clock.offset_seconds = 3 * DAY_SECONDS + 1
    client = JournalClient(simulator)
    assert client.call(f"journal/offset/{offset}/next").status_code == status
    assert client.call("journal/earliest").status_code == 204
    newer = simulator.control.publish_journal_file([])
    simulator.control.forget_journal()
    assert client.call(f"journal/batch/{newer}/next/1").status_code == status


def test_the_answer_where_nothing_is_newer_can_be_an_empty_200(
    simulator: SimulatorFixture, journal: JournalClient
) -> None:
    simulator.control.change_settings(journal_empty="200")
    reply = journal.call("journal/latest")
    assert (reply.status_code, reply.content) == (200, b"")


def test_repeated_reordered_foreign_and_unknown_events_can_be_published(
    simulator: SimulatorFixture, journal: JournalClient
) -> None:
    simulator.control.install_many(2)
    simulator.control.uninstall()
    events = simulator.control.list_journal_events()
    unknown = {"type": "crmObject", "portalId": "seven", "unheard": {"of": None}}
    simulator.control.publish_journal_file([*reversed(events), unknown])
    assert journal.read_all()[1]["journalEvents"] == [*reversed(events), unknown]


def test_the_url_of_a_file_expires_and_cannot_be_forged(simulator: SimulatorFixture, journal: JournalClient) -> None:
    simulator.control.publish_journal_file([])
    url = journal.call("journal/latest").json()["url"]
    assert requests.get(url, timeout=60).ok
    assert requests.get(url.replace("X-Amz-Expires=", "X-Amz-Expires=9"), timeout=60).status_code == 403
    for forged in (f"{url}0", url[:-1], f"{url}%C3%A9"):
        assert requests.get(forged, timeout=60).status_code == 403
    simulator.clock.offset_seconds = 301
    expired = requests.get(url, timeout=60)
    assert (expired.status_code, "AccessDenied" in expired.text) == (403, True)


def test_the_url_of_a_file_can_lead_to_a_private_address(simulator: SimulatorFixture, journal: JournalClient) -> None:
    simulator.control.change_settings(journal_file_url="http://169.254.169.254")
    simulator.control.publish_journal_file([])
    assert journal.call("journal/latest").json()["url"].startswith("http://169.254.169.254/journal-files/")


def test_a_token_without_the_scope_an_expired_one_and_none_are_refused(
    simulator: SimulatorFixture, journal: JournalClient
) -> None:
    journal.token = journal.ask_for_token("developer.webhooks_journal.subscriptions.read").json()["access_token"]
    refused = journal.call("journal/latest")
    assert (refused.status_code, refused.json()["category"]) == (403, "MISSING_SCOPES")
    assert journal.call("subscriptions").ok
    simulator.clock.offset_seconds = 1801
    assert journal.call("subscriptions").status_code == 401
    journal.token = simulator.refresh(simulator.control.install(HUB)).json()["access_token"]
    assert journal.call("subscriptions").status_code == 401


def test_faults_of_the_journal_can_be_requested(simulator: SimulatorFixture, journal: JournalClient) -> None:
    simulator.control.publish_journal_file([])
    url = journal.call("journal/latest").json()["url"]
    for where, kind in (("journal", 429), ("subscriptions", "missing_scopes"), ("journal_file", "truncated")):
        simulator.control.add_fault(kind, where=where, times=1, retry_after=7 if kind == 429 else None)
    throttled = journal.call("journal/latest")
    assert (throttled.status_code, throttled.headers["Retry-After"]) == (429, "7")
    assert journal.call("subscriptions").status_code == 403
    assert not requests.get(url, timeout=60).text.endswith("}")
    simulator.control.add_fault("bad_scopes", grant="client")
    assert journal.ask_for_token().json()["status"] == "BAD_SCOPES"
    assert simulator.control.get_stats()["calls"]["token/client"]["BAD_SCOPES"] == 1


def test_thousands_of_uninstalls_at_once_are_recorded_in_one_call(
    simulator: SimulatorFixture, journal: JournalClient
) -> None:
    simulator.control.install_many(20_000)
    assert simulator.control.uninstall() == 20_000
    files = journal.read_all()
    assert [len(file["journalEvents"]) for file in files] == [10_000, 10_000]
