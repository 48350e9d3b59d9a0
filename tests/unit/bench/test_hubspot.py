"""The benchmark's HubSpot: it answers what the product understands, in time, and counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from bench.ceiling import request_of
from bench.hubspot import TOKEN_LENGTH, Conversation, HubSpot, refresh_token
from shared.domain.errors import InvalidClient
from shared.hubspot import response_parsing
from shared.hubspot.response_parsing import Reply

SECRET = "a-secret"
NOW = datetime(2026, 11, 24, tzinfo=UTC)


class Wire(asyncio.Transport):
    """Keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.more = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)
        self.more.set()

    def is_closing(self) -> bool:
        return False

    def reply(self) -> Reply:
        head, _, body = self.written.partition(b"\r\n\r\n")
        return Reply(int(head.split()[1]), {}, body)


def told(play: Callable[[HubSpot, Conversation, Wire], Any], delay: float = 0.0) -> Any:
    """What `play` returns, at a HubSpot that answers after `delay` seconds."""

    async def inside() -> Any:
        hubspot, wire = HubSpot(SECRET), Wire()
        hubspot.delay = delay
        conversation = Conversation(hubspot)
        conversation.connection_made(wire)
        result = play(hubspot, conversation, wire)
        return await result if asyncio.iscoroutine(result) else result

    return asyncio.run(inside())


def test_a_refresh_brings_what_the_product_takes_for_a_grant() -> None:
    def play(hubspot: HubSpot, conversation: Conversation, wire: Wire) -> None:
        conversation.data_received(request_of(SECRET, 62515, 80))
        grant = response_parsing.parse_refresh(wire.reply(), NOW)
        assert (grant.hub_id, grant.refresh_token, grant.expires_in) == (62515, refresh_token(62515), 1800)
        assert len(grant.access_token) == TOKEN_LENGTH
        assert hubspot.answered == {"refresh": 1}

    told(play)


def test_no_two_tokens_are_alike() -> None:
    def play(_: HubSpot, conversation: Conversation, wire: Wire) -> set[str]:
        tokens = set()
        for _ in range(3):
            wire.written = b""
            conversation.data_received(request_of(SECRET, 1, 80))
            tokens.add(response_parsing.parse_refresh(wire.reply(), NOW).access_token)
        return tokens

    assert len(told(play)) == 3


@pytest.mark.parametrize("cut", [1, 60, 200, -1])
def test_a_request_may_come_in_pieces(cut: int) -> None:
    def play(_: HubSpot, conversation: Conversation, wire: Wire) -> None:
        request = request_of(SECRET, 1, 80)
        conversation.data_received(request[:cut])
        assert not wire.written
        conversation.data_received(request[cut:])
        assert wire.reply().http_status == 200

    told(play)


def test_another_secret_is_refused_as_hubspot_does() -> None:
    def play(hubspot: HubSpot, conversation: Conversation, wire: Wire) -> None:
        conversation.data_received(request_of("another", 1, 80))
        with pytest.raises(InvalidClient):
            response_parsing.parse_refresh(wire.reply(), NOW)
        assert not hubspot.answered

    told(play)


def test_an_answer_takes_its_time_and_a_second_refresh_of_the_hub_meanwhile_is_counted() -> None:
    async def later(hubspot: HubSpot, conversation: Conversation, wire: Wire) -> None:
        conversation.data_received(request_of(SECRET, 1, 80))
        conversation.data_received(request_of(SECRET, 2, 80))
        assert hubspot.at_once == 0
        conversation.data_received(request_of(SECRET, 1, 80))
        assert (wire.written, hubspot.at_once) == (b"", 1)
        while wire.written.count(b"200 OK") < 3:
            await wire.more.wait()
            wire.more.clear()
        assert hubspot.answered == {"refresh": 3}

    told(later, delay=0.01)


def test_the_benchmark_sets_how_long_it_takes_and_how_long_tokens_live() -> None:
    def play(hubspot: HubSpot, conversation: Conversation, wire: Wire) -> Any:
        conversation.data_received(b"GET /bench?delay=0.5&life=60 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (hubspot.delay, hubspot.life) == (0.5, 60)
        return json.loads(wire.reply().body)

    answer = told(play)
    assert (answer["answered"], answer["at_once"], answer["waiting"]) == ({}, 0, 0)


def test_it_remembers_the_newest_token_of_each_hub_until_it_is_asked() -> None:
    def play(_: HubSpot, conversation: Conversation, wire: Wire) -> tuple[Any, Any]:
        for hub_id in (7, 8, 7):
            conversation.data_received(request_of(SECRET, hub_id, 80))
        told = []
        for _ in range(2):
            wire.written = b""
            conversation.data_received(b"GET /bench/newest HTTP/1.1\r\nHost: x\r\n\r\n")
            told.append(json.loads(wire.reply().body))
        return told[0], told[1]

    assert told(play) == ({"7": 3, "8": 2}, {})
