"""The benchmark's HubSpot sends answers that the product can parse, after its delay, and counts them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from bench.ceiling import make_request
from bench.hubspot import TOKEN_CHARACTERS, UNANSWERED_SECRET, HttpConnection, HubSpot, make_refresh_token
from shared.domain.errors import InvalidClient
from shared.hubspot import response_parsing
from shared.hubspot.response_parsing import Reply

SECRET = "a-secret"
NOW = datetime(2026, 11, 24, tzinfo=UTC)


class RecordingTransport(asyncio.Transport):
    """Stores what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.has_new_data = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)
        self.has_new_data.set()

    def is_closing(self) -> bool:
        return False

    def parse_reply(self) -> Reply:
        head, _, body = self.written.partition(b"\r\n\r\n")
        return Reply(int(head.split()[1]), {}, body)


def run_with_hubspot(play: Callable[[HubSpot, HttpConnection, RecordingTransport], Any], delay: float = 0.0) -> Any:
    """What `play` returns; HubSpot answers after `delay` seconds."""

    async def run() -> Any:
        hubspot, transport = HubSpot(SECRET), RecordingTransport()
        hubspot.delay_seconds = delay
        connection = HttpConnection(hubspot)
        connection.connection_made(transport)
        result = play(hubspot, connection, transport)
        return await result if asyncio.iscoroutine(result) else result

    return asyncio.run(run())


def test_a_refresh_is_answered_with_a_grant_that_the_product_can_parse() -> None:
    def play(hubspot: HubSpot, connection: HttpConnection, transport: RecordingTransport) -> None:
        connection.data_received(make_request(SECRET, 62515, 80))
        grant = response_parsing.parse_refresh(transport.parse_reply(), NOW)
        assert (grant.hub_id, grant.refresh_token, grant.expires_in) == (62515, make_refresh_token(62515), 1800)
        assert len(grant.access_token) == TOKEN_CHARACTERS
        assert hubspot.answers == {"refresh": 1}

    run_with_hubspot(play)


def test_a_request_with_the_secret_that_stands_for_a_timeout_gets_no_answer() -> None:
    def play(hubspot: HubSpot, connection: HttpConnection, transport: RecordingTransport) -> None:
        connection.data_received(make_request(UNANSWERED_SECRET, 62515, 80))
        assert (transport.written, hubspot.answers) == (b"", {"none": 1})

    run_with_hubspot(play)


def test_every_access_token_is_different() -> None:
    def play(_: HubSpot, connection: HttpConnection, transport: RecordingTransport) -> set[str]:
        tokens = set()
        for _ in range(3):
            transport.written = b""
            connection.data_received(make_request(SECRET, 1, 80))
            tokens.add(response_parsing.parse_refresh(transport.parse_reply(), NOW).access_token)
        return tokens

    assert len(run_with_hubspot(play)) == 3


@pytest.mark.parametrize("cut", [1, 60, 200, -1])
def test_a_request_may_arrive_in_pieces(cut: int) -> None:
    def play(_: HubSpot, connection: HttpConnection, transport: RecordingTransport) -> None:
        request = make_request(SECRET, 1, 80)
        connection.data_received(request[:cut])
        assert not transport.written
        connection.data_received(request[cut:])
        assert transport.parse_reply().http_status == 200

    run_with_hubspot(play)


def test_a_wrong_client_secret_is_refused_as_by_hubspot() -> None:
    def play(hubspot: HubSpot, connection: HttpConnection, transport: RecordingTransport) -> None:
        connection.data_received(make_request("another", 1, 80))
        with pytest.raises(InvalidClient):
            response_parsing.parse_refresh(transport.parse_reply(), NOW)
        assert not hubspot.answers

    run_with_hubspot(play)


def test_answers_are_delayed_and_overlapping_refreshes_of_a_hub_are_counted() -> None:
    async def later(hubspot: HubSpot, connection: HttpConnection, transport: RecordingTransport) -> None:
        connection.data_received(make_request(SECRET, 1, 80))
        connection.data_received(make_request(SECRET, 2, 80))
        assert hubspot.overlaps == 0
        connection.data_received(make_request(SECRET, 1, 80))
        assert (transport.written, hubspot.overlaps) == (b"", 1)
        while transport.written.count(b"200 OK") < 3:
            await transport.has_new_data.wait()
            transport.has_new_data.clear()
        assert hubspot.answers == {"refresh": 3}

    run_with_hubspot(later, delay=0.01)


def test_the_control_request_changes_delay_and_token_life() -> None:
    def play(hubspot: HubSpot, connection: HttpConnection, transport: RecordingTransport) -> Any:
        connection.data_received(b"GET /bench?delay=0.5&life=60 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (hubspot.delay_seconds, hubspot.token_seconds) == (0.5, 60)
        return json.loads(transport.parse_reply().body)

    counters = run_with_hubspot(play)
    assert (counters["answers"], counters["overlaps"], counters["waiting"]) == ({}, 0, 0)


def test_the_newest_token_of_each_hub_is_reported_once() -> None:
    def play(_: HubSpot, connection: HttpConnection, transport: RecordingTransport) -> tuple[Any, Any]:
        for hub_id in (7, 8, 7):
            connection.data_received(make_request(SECRET, hub_id, 80))
        replies = []
        for _ in range(2):
            transport.written = b""
            connection.data_received(b"GET /bench/newest HTTP/1.1\r\nHost: x\r\n\r\n")
            replies.append(json.loads(transport.parse_reply().body))
        return replies[0], replies[1]

    assert run_with_hubspot(play) == ({"7": 3, "8": 2}, {})
