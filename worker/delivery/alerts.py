"""Delivers the alerts of the outbox: each is logged once, and posted to the webhook until that accepts it.

What is posted is JSON that Slack can show as it is. See docs/alerts.md.
"""

from __future__ import annotations

import json
from typing import Any

import structlog

from shared.db.alerts.outbox import ClaimedAlert, Outbox
from shared.domain.alerts import Alert, describe_alert, post_retry_seconds
from shared.logs import redact_all
from worker.delivery.webhook import Webhook, WebhookRejected

log = structlog.get_logger(__name__)

#: Posted by one task at most: the next sweep has the rest posted.
BATCH_POSTS = 20


def deliver_alerts(outbox: Outbox, webhook: Webhook | None) -> None:
    """Without a webhook alerts are only logged. What fails now stays in the outbox and is delivered later.

    Raises StoreUnavailable.
    """
    # 1. Log each alert once.
    outbox.log_new_alerts(_log_alert)
    # 2. Post them, in order per kind.
    if webhook is None:
        outbox.finish_without_posting()
    else:
        for _ in range(BATCH_POSTS):
            claimed = outbox.claim()
            if claimed is None:
                break
            _post(outbox, webhook, claimed)
    # 3. Delete old ones.
    outbox.prune()


def build_payload(alert: Alert) -> dict[str, Any]:
    """The same at each attempt to post the alert. It holds no secrets; a mistake in that must not publish one."""
    payload = {
        "text": describe_alert(alert),
        "id": alert.id,
        "kind": alert.kind.value,
        "recovered": alert.recovered,
        "at": alert.at.isoformat(),
        "subject": alert.subject,
        "app": alert.app,
        "detail": alert.detail,
    }
    return {name: redact_all(value) for name, value in payload.items()}


def _log_alert(alert: Alert) -> None:
    log_at_level = log.info if alert.recovered else log.warning
    log_at_level("alert", kind=alert.kind.value, recovered=alert.recovered, text=describe_alert(alert), alert=alert.id)


def _post(outbox: Outbox, webhook: Webhook, claimed: ClaimedAlert) -> None:
    alert = claimed.alert
    try:
        webhook.post(alert.id, json.dumps(build_payload(alert)).encode(), claimed.now)
    except WebhookRejected as error:
        seconds = max(post_retry_seconds(alert.attempts), error.retry_after_seconds)
        fields = {"alert": alert.id, "kind": alert.kind.value, "attempt": alert.attempts, "why": str(error)}
        if outbox.schedule_retry(alert, seconds):
            log.warning("the webhook did not accept an alert; it is posted again", **fields, seconds=seconds)
        else:
            log.warning("the webhook did not accept an alert for too long; it is not posted any more", **fields)
    else:
        outbox.mark_delivered(alert)
