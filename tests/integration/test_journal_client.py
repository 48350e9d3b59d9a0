"""The client of HubSpot's journal over real sockets: tokens, subscriptions, files, and what a refusal means."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from socket import socket
from typing import Any

import pytest

from shared.domain.errors import InvalidClient, ProviderError, TemporarilyUnavailable, Throttled
from shared.domain.journal import EntryKind, JournalRefused, OffsetUnknown, UnreadableFile
from shared.hubspot.client import HubSpot
from shared.hubspot.journal import SCOPES, JournalClient
from shared.hubspot.transport import Transport
from shared.settings.hubspot_app import HubSpotApp
from tests.support.raw_http_server import RawServer, http, serving

TOKEN = {"access_token": "CPapp-token", "expires_in": 1800, "token_type": "bearer", "token_use": "client_credentials"}
SUBSCRIPTIONS = {"results": [{"eventTypeId": "4-1916193", "appId": 55}, {"actions": ["APP_INSTALL"]}]}
ENTRY = {"action": "APP_UNINSTALL", "portalId": 7, "occurredAt": "2026-11-27T09:59:58Z"}
FILE = {"offset": "o-1", "journalEvents": [ENTRY]}
TOKEN_PATH = "POST /oauth/2026-09/token"
SUBSCRIPTIONS_PATH = "/webhooks-journal/subscriptions/2026-09"
EARLIEST = "GET /webhooks-journal/journal/2026-09/earliest"
NEXT = "GET /webhooks-journal/journal/2026-09/offset/o%2F1/next"


@dataclass
class JournalServer:
    """Answers each path with what a test says: bytes, or a list of them, one after the other."""

    answers: dict[str, Any] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)  #: method with path, and the whole text
    server: RawServer = field(init=False)

    def answer(self, connection: socket, request: bytes) -> bool:
        text = request.decode()
        path = " ".join(text.split(" ", 2)[:2])
        self.requests.append((path, text))
        answer = self.answers.get(path, http(404))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        connection.sendall(answer)
        return True

    def count(self, path: str) -> int:
        return [each for each, _ in self.requests].count(path)

    def name_file(self, url: str | None = None, offset: str | None = "o-0") -> bytes:
        return http(200, {"url": url or f"{self.server.url}/file?signature=s", "currentOffset": offset})


@pytest.fixture
def hubspot() -> Iterator[JournalServer]:
    fixture = JournalServer({TOKEN_PATH: http(200, TOKEN), f"GET {SUBSCRIPTIONS_PATH}": http(200, SUBSCRIPTIONS)})
    with serving(fixture.answer) as fixture.server:
        fixture.answers |= {EARLIEST: fixture.name_file(), "GET /file?signature=s": http(200, FILE)}
        yield fixture


@contextmanager
def connect_client(hubspot: JournalServer) -> Iterator[JournalClient]:
    url = hubspot.server.url
    transport = Transport(max_idle_connections=5)
    app = HubSpotApp("default", client_id="an-app", client_secrets=("client-secret-1", "client-secret-2"))
    client = HubSpot(app, transport, api_url=url, app_url=url, timeout=20.0)
    yield JournalClient(client, transport, api_url=url, api_version="2026-09", timeout_seconds=20.0)
    transport.close()


@pytest.fixture
def client(hubspot: JournalServer) -> Iterator[JournalClient]:
    with connect_client(hubspot) as client:
        yield client


def test_a_file_is_read_with_a_token_of_the_app_and_fetched_without_it(
    hubspot: JournalServer, client: JournalClient
) -> None:
    for _ in range(2):
        file = client.read_next(None)
        assert file is not None
        assert (file.offset, [entry.hub_id for entry in file.entries]) == ("o-1", [7])
    texts = dict(hubspot.requests)
    assert re.sub("%20|\\+", " ", texts[TOKEN_PATH]).count(SCOPES) == 1
    assert "Authorization: Bearer CPapp-token" in texts[EARLIEST]
    assert "uthorization" not in texts["GET /file?signature=s"]
    assert hubspot.count(TOKEN_PATH) == 1, "the token is kept"


def test_the_next_secret_is_tried_where_hubspot_refuses_one(hubspot: JournalServer, client: JournalClient) -> None:
    refusal = http(400, {"status": "BAD_CLIENT_SECRET", "message": "no"})
    hubspot.answers[TOKEN_PATH] = [refusal, http(200, TOKEN)]
    assert client.read_next(None) is not None
    hubspot.answers[TOKEN_PATH] = refusal
    with connect_client(hubspot) as other, pytest.raises(InvalidClient):
        other.read_next(None)


@pytest.mark.parametrize("answer", [http(204), http(200), http(200, {})], ids=["204", "empty", "no fields"])
def test_at_the_end_of_the_journal_there_is_no_file(
    hubspot: JournalServer, client: JournalClient, answer: bytes
) -> None:
    hubspot.answers[NEXT] = hubspot.answers[EARLIEST] = answer
    assert client.read_next("o/1") is None
    assert client.read_next(None) is None


def test_an_empty_journal_may_have_no_earliest_file(hubspot: JournalServer, client: JournalClient) -> None:
    hubspot.answers[EARLIEST] = http(404, {"status": "error", "message": "not found"})
    assert client.read_next(None) is None


@pytest.mark.parametrize("status", [400, 404, 410])
def test_an_offset_that_hubspot_does_not_know_is_lost(
    hubspot: JournalServer, client: JournalClient, status: int
) -> None:
    hubspot.answers[NEXT] = http(status, {"status": "error", "category": "VALIDATION_ERROR"})
    with pytest.raises(OffsetUnknown):
        client.read_next("o/1")


def test_a_token_that_hubspot_no_longer_accepts_is_replaced_once(hubspot: JournalServer, client: JournalClient) -> None:
    client.read_next(None)
    hubspot.answers[EARLIEST] = [http(401, {"status": "error"}), hubspot.answers[EARLIEST]]
    assert client.read_next(None) is not None
    assert hubspot.count(TOKEN_PATH) == 2
    hubspot.answers[EARLIEST] = http(401, {"status": "error"})
    with pytest.raises(TemporarilyUnavailable, match="token_not_accepted"):
        client.read_next(None)
    assert hubspot.count(TOKEN_PATH) == 3


REFUSALS = {
    "scopes": (TOKEN_PATH, http(400, {"status": "BAD_SCOPES", "message": "no"}), "BAD_SCOPES"),
    "a user-level app": (
        TOKEN_PATH,
        http(400, {"status": "USER_LEVEL_CLIENT_CREDENTIALS_NOT_SUPPORTED", "message": "no"}),
        "USER_LEVEL_CLIENT_CREDENTIALS_NOT_SUPPORTED",
    ),
    "no client credentials": (TOKEN_PATH, http(400, {"status": "BAD_GRANT_TYPE"}), "BAD_GRANT_TYPE"),
    "a missing scope": (
        f"GET {SUBSCRIPTIONS_PATH}",
        http(403, {"status": "error", "category": "MISSING_SCOPES"}),
        "missing_scopes",
    ),
    "no journal": (f"GET {SUBSCRIPTIONS_PATH}", http(404, b"<html>"), "no_journal"),
    "another refusal": (
        f"GET {SUBSCRIPTIONS_PATH}",
        http(400, {"status": "error", "category": "VALIDATION_ERROR"}),
        "VALIDATION_ERROR",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_where_an_app_may_not_read_its_journal_that_is_said_as_a_refusal(
    hubspot: JournalServer, client: JournalClient, name: str
) -> None:
    path, answer, code = REFUSALS[name]
    hubspot.answers[path] = answer
    with pytest.raises(JournalRefused) as refusal:
        client.ensure_subscriptions()
    assert refusal.value.code == code


def test_a_fault_that_passes_is_no_refusal(hubspot: JournalServer, client: JournalClient) -> None:
    hubspot.answers[EARLIEST] = http(429, {"status": "error"}, "Retry-After: 7")
    with pytest.raises(Throttled) as throttled:
        client.read_next(None)
    assert throttled.value.retry_after == 7
    for answer in (http(500, b"<html>"), http(200, b"<html>"), http(200, {"currentOffset": "o-1"})):
        hubspot.answers[EARLIEST] = answer
        with pytest.raises(TemporarilyUnavailable):
            client.read_next(None)


def test_only_the_missing_subscriptions_are_made_and_the_apps_number_is_found(
    hubspot: JournalServer, client: JournalClient
) -> None:
    assert client.ensure_subscriptions() == 55
    assert hubspot.count(f"POST {SUBSCRIPTIONS_PATH}") == 0
    hubspot.answers[f"GET {SUBSCRIPTIONS_PATH}"] = http(200, {"results": [{"eventTypeId": "4-1909196"}]})
    hubspot.answers[f"POST {SUBSCRIPTIONS_PATH}"] = http(201, {"id": 1, "appId": 56})
    assert client.ensure_subscriptions() == 56
    body = json.loads(hubspot.requests[-1][1].partition("\r\n\r\n")[2])
    assert body == {"subscriptionType": "APP_LIFECYCLE_EVENT", "eventTypeId": "4-1916193", "properties": []}
    hubspot.answers[f"POST {SUBSCRIPTIONS_PATH}"] = http(409, {"status": "error"})
    assert client.ensure_subscriptions() is None, "another worker has just made it"
    hubspot.answers[f"POST {SUBSCRIPTIONS_PATH}"] = http(500, {"status": "error"})
    with pytest.raises(TemporarilyUnavailable):
        client.ensure_subscriptions()


@pytest.mark.parametrize(
    "url",
    [
        *("http://169.254.169.254/latest", "https://10.0.0.1/x", "https://[::1]/x", "https://internal/x"),
        *(
            "http://files.example.com/x",
            "file:///etc/passwd",
            "gopher://8.8.8.8/x",
            "https://",
            "https://[",
            "not a url",
        ),
    ],
)
def test_a_files_url_that_leads_into_our_network_or_is_none_is_not_called(
    hubspot: JournalServer, client: JournalClient, url: str
) -> None:
    hubspot.answers[EARLIEST] = hubspot.name_file(url)
    with pytest.raises(UnreadableFile) as unreadable:
        client.read_next(None)
    assert (unreadable.value.code, unreadable.value.next_offset) == ("address_not_allowed", "o-0")


def test_another_port_of_a_private_api_is_not_called(hubspot: JournalServer, client: JournalClient) -> None:
    """Only the simulator's own origin is, and a name that a resolver leads to this machine is not either."""
    with serving(hubspot.answer) as neighbour:
        for url in (f"{neighbour.url}/file?signature=s", f"https://127.0.0.1.:{neighbour.port}/x"):
            hubspot.answers[EARLIEST] = hubspot.name_file(url)
            with pytest.raises(ProviderError):
                client.read_next(None)
        assert neighbour.requests == []


BROKEN_FILES = {
    "expired": http(403, b"<Error><Code>AccessDenied</Code></Error>"),
    "not JSON": http(200, b"<html>"),
    "not a file of the journal": http(200, {"results": []}),
    "too large": http(200, b" " * (16 * 1024 * 1024 + 1)),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_file_that_cannot_be_read_is_told_apart_with_the_offset_after_it(
    hubspot: JournalServer, client: JournalClient, name: str
) -> None:
    hubspot.answers["GET /file?signature=s"] = BROKEN_FILES[name]
    with pytest.raises(UnreadableFile) as unreadable:
        client.read_next(None)
    assert unreadable.value.next_offset == "o-0"
    hubspot.answers[EARLIEST] = hubspot.name_file(offset=None)
    with pytest.raises(TemporarilyUnavailable):
        client.read_next(None)


def test_a_host_of_files_that_fails_is_a_fault_that_passes(hubspot: JournalServer, client: JournalClient) -> None:
    for answer in (http(503, b"<html>"), http(200, b"cut")[:-1]):
        hubspot.answers["GET /file?signature=s"] = answer
        with pytest.raises(TemporarilyUnavailable):
            client.read_next(None)


def test_a_file_with_ten_thousand_entries_is_read(hubspot: JournalServer, client: JournalClient) -> None:
    entries = [{**ENTRY, "portalId": number, "padding": "x" * 300} for number in range(1, 10_001)]
    hubspot.answers["GET /file?signature=s"] = http(200, {**FILE, "journalEvents": entries})
    file = client.read_next(None)
    assert file is not None
    assert len(file.entries) == 10_000
    assert {entry.kind for entry in file.entries} == {EntryKind.UNINSTALL}
