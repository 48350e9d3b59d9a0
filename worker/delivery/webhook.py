"""Posts a message to a webhook, signed as in Standard Webhooks: alerts to operators, events to our own product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from time import monotonic

from shared.net.call_engine import CallEngine
from shared.net.http_call import Endpoint
from shared.net.webhook_signature import decode_secret, sign_message

#: For one post as a whole.
POST_TIMEOUT_SECONDS = 10.0
#: A receiver that asks for a longer wait is tried again after this one.
MAX_RETRY_AFTER_SECONDS = 3600.0


class WebhookRejected(Exception):
    """The receiver did not answer 2xx. The message names neither the URL nor anything of the response's body."""

    def __init__(self, why: str, http_status: int = 0, retry_after_seconds: float = 0.0) -> None:
        """`http_status`: 0 where no answer came. `retry_after_seconds`: the response's Retry-After."""
        super().__init__(why)
        self.http_status = http_status
        self.retry_after_seconds = retry_after_seconds


class Webhook:
    """Follows no redirects and ignores response bodies. The URL may hold a secret (Slack's does): never name it."""

    def __init__(
        self,
        url: str,
        secrets: Sequence[str],
        timeout_seconds: float = POST_TIMEOUT_SECONDS,
        *,
        max_idle_connections: int = 0,
    ) -> None:
        """Without `secrets` (`whsec_…`) posts are not signed. `max_idle_connections`: kept open between posts."""
        self._url = url
        self._keys = [decode_secret(secret) for secret in secrets]
        self._timeout_seconds = timeout_seconds
        self._engine = CallEngine(max_idle_connections=max(1, max_idle_connections))
        self._fixed_headers = (
            "Content-Type: application/json",
            f"User-Agent: tokenkeeper/{version('tokenkeeper')}",
            *(() if max_idle_connections else ("Connection: close",)),
        )

    def post(self, message_id: str, body: bytes, now: datetime) -> None:
        """Raises WebhookRejected. `message_id` has no dots, and is the same at each attempt to post the message.

        `now` is signed too, so that a receiver can refuse a replay.
        """
        endpoint = self._make_endpoint(message_id, body, int(now.timestamp()))
        reply = self._engine.call(endpoint, body, ends_at=monotonic() + self._timeout_seconds)
        if reply.http_status // 100 == 2:  # noqa: PLR2004  2xx, however its body ended
            return
        if reply.http_status:
            retry_after_seconds = _parse_retry_after(reply.headers)
            raise WebhookRejected(f"HTTP {reply.http_status}", reply.http_status, retry_after_seconds)
        raise WebhookRejected("no answer in time" if reply.failure == "timeout" else "no connection, or it broke")

    def _make_endpoint(self, message_id: str, body: bytes, timestamp: int) -> Endpoint:
        headers = [*self._fixed_headers, f"webhook-id: {message_id}", f"webhook-timestamp: {timestamp}"]
        if self._keys:
            headers.append(f"webhook-signature: {sign_message(self._keys, message_id, timestamp, body)}")
        return Endpoint("POST", self._url, tuple(headers))


def _parse_retry_after(headers: Mapping[str, str]) -> float:
    """Seconds; 0 without the header, or where it is a date."""
    text = headers.get("retry-after", "")
    return min(float(text), MAX_RETRY_AFTER_SECONDS) if text.isdecimal() and text.isascii() else 0.0
