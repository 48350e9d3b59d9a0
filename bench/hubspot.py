"""A HubSpot that is never the limit: `python -m bench.hubspot`. Answers refreshes, codes and introspections.

A protocol right on asyncio, no framework. Each answer waits for its time in one queue: as all wait equally long, the
first in is the first out, and one timer does for all. It knows no accounts: a refresh token and a code name their hub.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from urllib.parse import parse_qs

from shared.settings import Settings

#: Characters of an access token. HubSpot says 300 in some places, and advises room for 512.
TOKEN_LENGTH = 300
#: Seconds by which an answer may come early: a timer per answer would be most of the work.
EARLY = 0.001
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_REFRESH_TOKEN = re.compile(rb"(?:^|&)refresh_token=([^&]+)")
_HEAD = (
    "HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Type: application/json;charset=utf-8\r\nContent-Length: {length}\r\n"
    "X-HubSpot-Correlation-Id: 0193594f-6d2a-7c3c-8a51-6d5f0e3a9b11\r\nVary: origin, Accept-Encoding\r\n"
    "Strict-Transport-Security: max-age=31536000; includeSubDomains; preload\r\n\r\n"
)
Reply = tuple[str, bytes]


def refresh_token(hub_id: int) -> str:
    """In HubSpot's shape."""
    return f"na1-aaaa-bbbb-cccc-dddd-{hub_id:012d}"


def code(hub_id: int) -> str:
    """The same: what it is good for is said by the grant type."""
    return refresh_token(hub_id)


class HubSpot:
    """What all its connections share. `answered` counts by kind; `at_once` those of a hub that was being answered."""

    def __init__(self, client_secret: str) -> None:
        self.delay = 0.2
        self.life = 1800
        self.answered: Counter[str] = Counter()
        self.at_once = 0
        self._secret = f"client_secret={client_secret}".encode()
        self._filler = secrets.token_urlsafe(TOKEN_LENGTH)
        self._serial = 0
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._in_flight: set[int] = set()
        self._newest: dict[int, int] = {}  # by hub, the number of the token that it was given last
        self._loop = asyncio.get_running_loop()
        self._date = ""
        self._dated = 0.0

    def ask(self, path: bytes, body: bytes, answer: Callable[[Reply], None]) -> None:
        """`answer` is called once, when HubSpot would have answered."""
        if path.startswith(b"/bench"):
            answer(self._asked_by_bench(path))
        elif self._secret not in body:
            answer(("400 Bad Request", b'{"status":"BAD_CLIENT_SECRET","error":"invalid_client"}'))
        elif path.endswith(b"/introspect"):
            self._later(partial(self._introspected, answer))
        elif found := _REFRESH_TOKEN.search(body):
            self._refresh(int(found[1][-12:]), found[1].decode(), answer)
        else:
            form = parse_qs(body.decode())
            self._later(partial(self._granted, "code", int(form["code"][0][-12:]), form["code"][0], answer))

    def head(self, status: str, length: int) -> bytes:
        if (now := self._loop.time()) - self._dated > 1:
            self._date, self._dated = formatdate(usegmt=True), now
        return _HEAD.format(status=status, date=self._date, length=length).encode()

    def _refresh(self, hub_id: int, token: str, answer: Callable[[Reply], None]) -> None:
        if hub_id in self._in_flight:
            self.at_once += 1
        self._in_flight.add(hub_id)
        self._later(partial(self._granted, "refresh", hub_id, token, answer))

    def _granted(self, kind: str, hub_id: int, token: str, answer: Callable[[Reply], None]) -> None:
        self.answered[kind] += 1
        self._in_flight.discard(hub_id)
        self._serial += 1
        self._newest[hub_id] = self._serial
        access_token = f"CI{self._serial:012d}{self._filler}"[:TOKEN_LENGTH]
        body = (
            f'{{"token_type":"bearer","refresh_token":"{token}","access_token":"{access_token}","hub_id":{hub_id},'
            f'"scopes":["oauth","crm.objects.contacts.read"],"expires_in":{self.life},"token_use":"access_token"}}'
        )
        answer(("200 OK", body.encode()))

    def _introspected(self, answer: Callable[[Reply], None]) -> None:
        self.answered["introspection"] += 1
        answer(("200 OK", b'{"active":true,"hub_domain":"customer.example","user":"somebody@customer.example"}'))

    def _later(self, work: Callable[[], None]) -> None:
        if not self.delay:
            work()
            return
        due = self._loop.time() + self.delay
        self._waiting.append((due, work))
        if len(self._waiting) == 1:
            self._loop.call_at(due, self._answer_due)

    def _answer_due(self) -> None:
        waiting, soon = self._waiting, self._loop.time() + EARLY
        while waiting and waiting[0][0] <= soon:
            waiting.popleft()[1]()
        if waiting:
            self._loop.call_at(waiting[0][0], self._answer_due)

    def _asked_by_bench(self, path: bytes) -> Reply:
        """`/bench?delay=…&life=…` sets, and tells what was answered so far. `/bench/newest` tells, and forgets."""
        if path == b"/bench/newest":
            newest, self._newest = self._newest, {}
            return "200 OK", json.dumps(newest).encode()
        wishes = parse_qs(path.partition(b"?")[2].decode())
        self.delay = float(wishes.get("delay", [self.delay])[0])
        self.life = int(wishes.get("life", [self.life])[0])
        told = {
            "at": time.monotonic(),
            "waiting": len(self._waiting),
            "at_once": self.at_once,
            "answered": self.answered,
        }
        return "200 OK", json.dumps(told).encode()


class Conversation(asyncio.Protocol):
    """One connection, kept alive: requests come one after the other, head and body in any pieces."""

    def __init__(self, hubspot: HubSpot) -> None:
        self._hubspot = hubspot
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        found = _LENGTH.search(self._received, 0, end)
        whole = end + 4 + (int(found[1]) if found else 0)
        if len(self._received) < whole:
            return
        request, self._received = self._received[:whole], self._received[whole:]
        self._hubspot.ask(request.split(b" ", 2)[1], request[end + 4 :], self._answer)

    def _answer(self, reply: Reply) -> None:
        status, body = reply
        if self._transport and not self._transport.is_closing():
            self._transport.write(self._hubspot.head(status, len(body)) + body)


async def _serve(client_secret: str) -> None:
    loop = asyncio.get_running_loop()
    hubspot = HubSpot(client_secret)
    server = await loop.create_server(lambda: Conversation(hubspot), "127.0.0.1", 0, backlog=4096)
    print(f"listens on port {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    settings = Settings.from_env(os.environ, needs=("HUBSPOT_CLIENT_SECRET",))  # noqa: TID251  an entry point
    sys.exit(asyncio.run(_serve(settings.hubspot_client_secrets[0])))
