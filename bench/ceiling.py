"""How many requests a simulated HubSpot can answer: `python -m bench.ceiling PORT SECONDS CONNECTIONS`.

Each connection sends its next request as soon as the last is answered. Prints the answers a second.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from urllib.parse import urlencode

from bench.hubspot import make_refresh_token
from shared.domain.identity import DEFAULT_APP
from shared.settings import Settings

_CONTENT_LENGTH = re.compile(rb"Content-Length: (\d+)")


class RequestLoop(asyncio.Protocol):
    """`answers`: a list of one number, shared by all connections."""

    def __init__(self, request: bytes, answers: list[int]) -> None:
        self._request = request
        self._answers = answers
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
            transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        match = _CONTENT_LENGTH.search(self._received, 0, head_end) if head_end >= 0 else None
        if match and self._transport and len(self._received) == head_end + 4 + int(match[1]):
            self._received = b""
            self._answers[0] += 1
            self._transport.write(self._request)


def make_request(client_secret: str, hub_id: int, port: int) -> bytes:
    form = {"grant_type": "refresh_token", "refresh_token": make_refresh_token(hub_id), "client_id": "bench"}
    body = urlencode({**form, "client_secret": client_secret}).encode()
    head = (
        f"POST /oauth/2026-09/token HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _measure_rate(client_secret: str, port: int, seconds: float, connections: int) -> float:
    """Answers a second."""
    loop, answers = asyncio.get_running_loop(), [0]
    for hub_id in range(1, connections + 1):
        request = make_request(client_secret, hub_id, port)
        await loop.create_connection(lambda request=request: RequestLoop(request, answers), "127.0.0.1", port)  # type: ignore[misc]
    before, start = answers[0], time.monotonic()
    await asyncio.sleep(seconds)
    return (answers[0] - before) / (time.monotonic() - start)


if __name__ == "__main__":
    settings = Settings.from_env(os.environ, needs=("HUBSPOT_CLIENT_SECRET",))  # noqa: TID251  an entry point
    port, seconds, connections = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    print(asyncio.run(_measure_rate(settings.apps[DEFAULT_APP].client_secrets[0], port, seconds, connections)))
