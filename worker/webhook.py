"""Posts alerts to the operator's webhook: signed JSON that Slack can show as it is. See docs/alerts.md."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Any

from shared.domain.alerts import Alert, describe_alert
from shared.logs import redact
from shared.net.call_engine import CallEngine
from shared.net.http_call import HttpRequest

#: For one post as a whole.
POST_TIMEOUT_SECONDS = 10.0
#: A receiver that asks for a longer wait is tried again after this one.
MAX_RETRY_AFTER_SECONDS = 3600.0


class WebhookRejected(Exception):
    """The receiver did not answer 2xx. The message names neither the URL nor anything of the response's body."""

    def __init__(self, why: str, retry_after_seconds: float = 0.0) -> None:
        """`retry_after_seconds`: the response's Retry-After."""
        super().__init__(why)
        self.retry_after_seconds = retry_after_seconds


class Webhook:
    """Follows no redirects and ignores response bodies. The URL may hold a secret (Slack's does): never name it."""

    def __init__(self, url: str, secret: str, timeout_seconds: float = POST_TIMEOUT_SECONDS) -> None:
        """Without a `secret` posts are not signed."""
        self._url = url
        self._secret = secret.encode()
        self._timeout_seconds = timeout_seconds
        self._engine = CallEngine(max_idle_connections=1)

    def post(self, alert: Alert, now: datetime) -> None:
        """Raises WebhookRejected. `now` is signed too, so that a receiver can refuse a replay."""
        reply = self._engine.call(self._make_request(alert, int(now.timestamp())), self._timeout_seconds)
        if reply.http_status // 100 == 2:  # noqa: PLR2004  2xx, however its body ended
            return
        if reply.http_status:
            raise WebhookRejected(f"HTTP {reply.http_status}", _parse_retry_after(reply.headers))
        raise WebhookRejected("no answer in time" if reply.failure == "timeout" else "no connection, or it broke")

    def _make_request(self, alert: Alert, timestamp: int) -> HttpRequest:
        body = json.dumps(build_payload(alert)).encode()
        headers = [
            "Content-Type: application/json",
            f"User-Agent: tokenkeeper/{version('tokenkeeper')}",
            "Connection: close",  # alerts are rare: this connection would be dead when the next one comes
            f"X-Tokenkeeper-Id: {alert.id}",
            f"X-Tokenkeeper-Timestamp: {timestamp}",
        ]
        if self._secret:
            headers.append(f"X-Tokenkeeper-Signature: sha256={sign(self._secret, timestamp, body)}")
        return HttpRequest("POST", self._url, tuple(headers), body)


def build_payload(alert: Alert) -> dict[str, Any]:
    """The same at each attempt to post the alert."""
    payload = {
        "text": describe_alert(alert),
        "id": alert.id,
        "kind": alert.kind.value,
        "recovered": alert.recovered,
        "at": alert.at.isoformat(),
        "subject": alert.subject,
        "detail": alert.detail,
    }
    return {name: _redact_all(value) for name, value in payload.items()}


def sign(secret: bytes, timestamp: int, body: bytes) -> str:
    """HMAC-SHA256 in hexadecimal over the timestamp, a point and the body as it is sent."""
    return hmac.new(secret, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def _redact_all(value: Any) -> Any:
    """An alert holds no secrets; as for the log, a mistake in that must not publish one."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {str(name): _redact_all(item) for name, item in value.items()}
    return [_redact_all(item) for item in value] if isinstance(value, list) else value


def _parse_retry_after(headers: Mapping[str, str]) -> float:
    """Seconds; 0 without the header, or where it is a date."""
    text = headers.get("retry-after", "")
    return min(float(text), MAX_RETRY_AFTER_SECONDS) if text.isdecimal() and text.isascii() else 0.0
