"""A webhook receiver: a real server that accepts or refuses alerts and stores the posts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from typing import Any

from tests.support.raw_http_server import Answer, RawServer, replies, serving

TAKEN = replies(204)
#: As in Slack's URLs, the path alone authorises a post.
SECRET_PATH = "/services/T0/B0/path-that-is-a-secret"


class Receiver:
    def __init__(self, server: RawServer) -> None:
        self.server = server
        self.url = f"{server.url}{SECRET_PATH}"

    def posts(self) -> list[tuple[dict[str, str], bytes]]:
        """Headers by their names in lower case (the request line under ""), and the raw body."""
        return [_parse_request(request) for request in list(self.server.requests)]

    def read_alerts(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.posts()]


@contextmanager
def receiving(*answers: Answer) -> Iterator[Receiver]:
    """Gives `answers` in their order, then accepts every post."""
    script = chain(answers, repeat(TAKEN))

    def answer(connection: socket.socket, request: bytes) -> object:
        return next(script)(connection, request)

    with serving(answer) as server:
        yield Receiver(server)


def well_signed(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Check the signature as Standard Webhooks describes, with no code of the product."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return f"v1,{expected}" in headers["webhook-signature"].split()


def _parse_request(request: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = (line.split(": ", 1) for line in lines[1:])
    return {"": lines[0], **{name.lower(): value for name, value in fields}}, body
