"""Receives tokenkeeper's events, verifies their signature, and prints each once: python receiver.py PORT.

EVENTS_WEBHOOK_SECRET is tokenkeeper's: `whsec_…`, or several separated by commas while one is replaced. With a
framework, copy `verify` and give it the raw body; or take a library of www.standardwebhooks.com, which does the same.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRETS = os.environ["EVENTS_WEBHOOK_SECRET"].split(",")
MAX_AGE_SECONDS = 300
MAX_BODY_BYTES = 100_000
#: Keep these in your database, in the transaction that handles the event: tokenkeeper sends each at least once.
handled: set[str] = set()


def verify(headers: Mapping[str, str], body: bytes) -> bool:
    """`body` as it came, before anything has parsed it."""
    content = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.".encode() + body
    given = headers.get("webhook-signature", "").split()
    for secret in SECRETS:
        key = base64.b64decode(secret.strip().removeprefix("whsec_"))
        expected = "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        if any(hmac.compare_digest(each.encode(), expected.encode()) for each in given):
            return abs(time.time() - int(headers["webhook-timestamp"])) <= MAX_AGE_SECONDS
    return False


def handle(event: dict) -> None:
    data = event["data"]
    print(data["id"], event["type"], data["hub_id"], data["customer"], flush=True)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # tokenkeeper keeps its connections open

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)
        if not verify(self.headers, body):
            return self.answer(401)
        if (message_id := self.headers["webhook-id"]) not in handled:
            handle(json.loads(body))
            handled.add(message_id)  # after it, so that an event whose handling fails is sent again
        return self.answer(204)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
    print(f"listening on port {server.server_port}", flush=True)
    server.serve_forever()
