"""A HubSpot that is never the limit: `python -m bench.hubspot`. Answers refreshes, codes and introspections.

Why not `sandbox.simulator`: that answers 1,500 refreshes a second and takes 0.54 ms of CPU for each, nearly as much as
the product does. This one answers 7,700 and takes 0.03 ms (both by `bench.ceiling`, on 2 busy cores).

An asyncio protocol without a framework. All answers take equally long, so that one queue and one timer serve for all of
them: the first in is the first out. It stores no accounts: a refresh token and a code contain their hub id.
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

from shared.domain.identity import DEFAULT_APP
from shared.settings import Settings

#: HubSpot says 300 in some places, and advises room for 512.
TOKEN_CHARACTERS = 300
#: An answer may be sent so much too early: a timer for each answer would be most of the work.
EARLY_SECONDS = 0.001
ACCEPT_BACKLOG = 4096
#: Requests with this client secret get no answer.
UNANSWERED_SECRET = "unanswered"  # noqa: S105  of a simulated app
_UNANSWERED = f"client_secret={UNANSWERED_SECRET}".encode()
_CONTENT_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_REFRESH_TOKEN = re.compile(rb"(?:^|&)refresh_token=([^&]+)")
_HEAD = (
    "HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Type: application/json;charset=utf-8\r\nContent-Length: {length}\r\n"
    "X-HubSpot-Correlation-Id: 0193594f-6d2a-7c3c-8a51-6d5f0e3a9b11\r\nVary: origin, Accept-Encoding\r\n"
    "Strict-Transport-Security: max-age=31536000; includeSubDomains; preload\r\n\r\n"
)
Reply = tuple[str, bytes]  #: status line and body


def make_refresh_token(hub_id: int) -> str:
    """In HubSpot's format. Authorization codes look the same: the grant type says which one it is."""
    return f"na1-aaaa-bbbb-cccc-dddd-{hub_id:012d}"


class HubSpot:
    """The state that all connections share. Needs a running event loop."""

    def __init__(self, client_secret: str) -> None:
        self.delay_seconds = 0.2
        self.token_seconds = 1800
        self.answers: Counter[str] = Counter()
        self.overlaps = 0
        self._secret = f"client_secret={client_secret}".encode()
        self._filler = secrets.token_urlsafe(TOKEN_CHARACTERS)
        self._last_serial = 0
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._refreshing: set[int] = set()
        self._newest_serials: dict[int, int] = {}  # by hub id
        self._loop = asyncio.get_running_loop()
        self._date = ""
        self._date_made_at = 0.0

    def handle(self, path: bytes, body: bytes, answer: Callable[[Reply], None]) -> None:
        """`answer` is called once, after the configured delay."""
        if path.startswith(b"/bench"):
            answer(self._handle_control(path))
        elif path.startswith(b"/account-info/"):
            self._call_after_delay(lambda: answer(("200 OK", b'{"accountType":"STANDARD"}')))
        elif self._secret not in body and _UNANSWERED in body:
            self.answers["none"] += 1
        elif self._secret not in body:
            answer(("400 Bad Request", b'{"status":"BAD_CLIENT_SECRET","error":"invalid_client"}'))
        elif path.endswith(b"/introspect"):
            self._call_after_delay(partial(self._introspect, answer))
        elif match := _REFRESH_TOKEN.search(body):
            hub_id = int(match[1][-12:])
            self.overlaps += hub_id in self._refreshing
            self._refreshing.add(hub_id)
            self._call_after_delay(partial(self._grant, "refresh", hub_id, match[1].decode(), answer))
        else:
            code = parse_qs(body.decode())["code"][0]
            self._call_after_delay(partial(self._grant, "code", int(code[-12:]), code, answer))

    def make_head(self, status: str, length: int) -> bytes:
        if (now := self._loop.time()) - self._date_made_at > 1:
            self._date, self._date_made_at = formatdate(usegmt=True), now
        return _HEAD.format(status=status, date=self._date, length=length).encode()

    def _grant(self, kind: str, hub_id: int, token: str, answer: Callable[[Reply], None]) -> None:
        self.answers[kind] += 1
        self._refreshing.discard(hub_id)
        self._last_serial += 1
        self._newest_serials[hub_id] = self._last_serial
        access_token = f"CI{self._last_serial:012d}{self._filler}"[:TOKEN_CHARACTERS]
        body = (
            f'{{"token_type":"bearer","refresh_token":"{token}","access_token":"{access_token}","hub_id":{hub_id},'
            f'"scopes":["oauth","crm.objects.contacts.read"],"expires_in":{self.token_seconds},'
            '"token_use":"access_token"}'
        )
        answer(("200 OK", body.encode()))

    def _introspect(self, answer: Callable[[Reply], None]) -> None:
        self.answers["introspection"] += 1
        answer(("200 OK", b'{"active":true,"hub_domain":"customer.example","user":"somebody@customer.example"}'))

    def _call_after_delay(self, work: Callable[[], None]) -> None:
        if not self.delay_seconds:
            work()
            return
        due = self._loop.time() + self.delay_seconds
        self._waiting.append((due, work))
        if len(self._waiting) == 1:
            self._loop.call_at(due, self._call_due)

    def _call_due(self) -> None:
        waiting, limit = self._waiting, self._loop.time() + EARLY_SECONDS
        while waiting and waiting[0][0] <= limit:
            waiting.popleft()[1]()
        if waiting:
            self._loop.call_at(waiting[0][0], self._call_due)

    def _handle_control(self, path: bytes) -> Reply:
        """`/bench?delay=…&life=…` changes the behaviour and answers the counters.

        `/bench/newest` answers the newest serial numbers by hub id, and clears them.
        """
        if path == b"/bench/newest":
            newest, self._newest_serials = self._newest_serials, {}
            return "200 OK", json.dumps(newest).encode()
        changes = parse_qs(path.partition(b"?")[2].decode())
        self.delay_seconds = float(changes.get("delay", [self.delay_seconds])[0])
        self.token_seconds = int(changes.get("life", [self.token_seconds])[0])
        counters = {
            "read_at": time.monotonic(),
            "waiting": len(self._waiting),
            "overlaps": self.overlaps,
            "answers": self.answers,
        }
        return "200 OK", json.dumps(counters).encode()


class HttpConnection(asyncio.Protocol):
    """A keep-alive connection: one request after the other, each received in any number of pieces."""

    def __init__(self, hubspot: HubSpot) -> None:
        self._hubspot = hubspot
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        match = _CONTENT_LENGTH.search(self._received, 0, head_end)
        request_end = head_end + 4 + (int(match[1]) if match else 0)
        if len(self._received) < request_end:
            return
        request, self._received = self._received[:request_end], self._received[request_end:]
        self._hubspot.handle(request.split(b" ", 2)[1], request[head_end + 4 :], self._answer)

    def _answer(self, reply: Reply) -> None:
        status, body = reply
        if self._transport and not self._transport.is_closing():
            self._transport.write(self._hubspot.make_head(status, len(body)) + body)


async def _serve(client_secret: str) -> None:
    loop = asyncio.get_running_loop()
    hubspot = HubSpot(client_secret)
    server = await loop.create_server(lambda: HttpConnection(hubspot), "127.0.0.1", 0, backlog=ACCEPT_BACKLOG)
    print(f"listens on port {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    settings = Settings.from_env(os.environ, needs=("HUBSPOT_CLIENT_SECRET",))  # noqa: TID251  an entry point
    sys.exit(asyncio.run(_serve(settings.apps[DEFAULT_APP].client_secrets[0])))
