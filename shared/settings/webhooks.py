"""Where alerts and events are posted, and how they are signed."""

from __future__ import annotations

from dataclasses import dataclass

from shared.settings import parsers
from shared.settings.declaration import setting

SIGNING_KEY_HINT = "whsec_ and Base64 of 24 to 64 bytes: make one with: echo whsec_$(openssl rand -base64 32)"


@dataclass(frozen=True)
class WebhookSettings:
    alert_webhook_url: str = setting(
        "ALERT_WEBHOOK_URL",
        parsers.parse_webhook_url,
        "",
        hint="https://…, and no link-local address",
        example="https://hooks.slack.com/services/T000/B000/XXXX",
        meaning="where alerts are posted: [alerts.md](alerts.md)",
        is_secret=True,  # of Slack's, the URL itself
    )
    alert_webhook_secrets: tuple[str, ...] = setting(
        "ALERT_WEBHOOK_SECRET",
        parsers.parse_webhook_secrets,
        (),
        hint=SIGNING_KEY_HINT,
        example="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        meaning="signs alerts ([Standard Webhooks](alerts.md#the-signature)): one, or several separated by commas "
        "while one is replaced",
        is_secret=True,
    )
    events_webhook_url: str = setting(
        "EVENTS_WEBHOOK_URL",
        parsers.parse_webhook_url,
        "",
        hint="https://…, and no link-local address",
        example="https://product.example.com/hubspot-events",
        meaning="where our own product is told what happens to connections: [events.md](events.md)",
        is_secret=True,
    )
    events_webhook_secrets: tuple[str, ...] = setting(
        "EVENTS_WEBHOOK_SECRET",
        parsers.parse_webhook_secrets,
        (),
        hint=SIGNING_KEY_HINT,
        example="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        meaning="signs these events: one, or several separated by commas while one is replaced",
        is_secret=True,
    )
