"""Posts alerts to the operator's webhook: as JSON that Slack shows as it is, signed. See docs/alerts.md."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Any

import requests

from shared.domain.alerts import Alert, describe_alert
from shared.logs import redact
from shared.net.deadline import deadline, deadline_passed
from shared.net.http_adapter import TRANSPORT_ERRORS, DeadlineAdapter

#: Seconds for one post, whole.
SECONDS = 10.0
#: Seconds; a receiver that asks for longer is tried again sooner.
LONGEST_RETRY_AFTER = 3600.0


class WebhookRejected(Exception):
    """The receiver did not say 2xx. The message is a few words of ours: no URL, and nothing that it said."""

    def __init__(self, why: str, retry_after: float = 0.0) -> None:
        """`retry_after`: seconds for which it asked to be left alone."""
        super().__init__(why)
        self.retry_after = retry_after


class Webhook:
    """Follows no redirects, reads no bodies. The URL may hold a secret (Slack's does) and is never named."""

    def __init__(self, url: str, secret: str, seconds: float = SECONDS) -> None:
        """Without a secret nothing is signed."""
        self._url = url
        self._secret = secret.encode()
        self._seconds = seconds
        self._session = requests.Session()
        self._session.trust_env = False
        self._adapter = DeadlineAdapter()

    def post(self, alert: Alert, now: datetime) -> None:
        """Raises NotTaken. `now` is signed too, so that a receiver can turn away what somebody plays to it again."""
        request = self._request(alert, int(now.timestamp()))
        with deadline(self._seconds):
            try:
                reply = self._adapter.send(request, stream=True)
            except TRANSPORT_ERRORS:
                why = "no answer in time" if deadline_passed() else "no connection, or it broke"
            else:
                reply.close()
                if reply.ok and reply.status_code < 300:  # noqa: PLR2004  2xx
                    return
                raise WebhookRejected(f"HTTP {reply.status_code}", _retry_after(reply.headers))
        raise WebhookRejected(why)

    def _request(self, alert: Alert, timestamp: int) -> requests.PreparedRequest:
        body = json.dumps(payload(alert)).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"tokenkeeper/{version('tokenkeeper')}",
            "Connection": "close",  # alerts are rare: the next one would find this connection dead
            "X-Tokenkeeper-Id": alert.id,
            "X-Tokenkeeper-Timestamp": str(timestamp),
        }
        if self._secret:
            headers["X-Tokenkeeper-Signature"] = f"sha256={signature(self._secret, timestamp, body)}"
        return self._session.prepare_request(requests.Request("POST", self._url, data=body, headers=headers))


def payload(alert: Alert) -> dict[str, Any]:
    """The same at each try."""
    told = {
        "text": describe_alert(alert),
        "id": alert.id,
        "kind": alert.kind.value,
        "recovered": alert.recovered,
        "at": alert.at.isoformat(),
        "subject": alert.subject,
        "detail": alert.detail,
    }
    return {name: _without_secrets(value) for name, value in told.items()}


def signature(secret: bytes, timestamp: int, body: bytes) -> str:
    """HMAC-SHA256 over the timestamp, a point and the body as it was sent, in hexadecimal."""
    return hmac.new(secret, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def _without_secrets(value: Any) -> Any:
    """There are none; this is the net below, as for the log."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {str(name): _without_secrets(item) for name, item in value.items()}
    return [_without_secrets(item) for item in value] if isinstance(value, list) else value


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("Retry-After", "")
    return min(float(text), LONGEST_RETRY_AFTER) if text.isdecimal() and text.isascii() else 0.0
