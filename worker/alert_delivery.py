"""Tells operators what the outbox holds: each alert in the log once, and at the webhook until it was taken."""

from __future__ import annotations

import structlog

from shared.db.alerts.outbox import ClaimedAlert, Outbox
from shared.db.core.errors import StoreError
from shared.domain.alerts import Alert, describe_alert, post_retry_seconds
from worker.webhook import Webhook, WebhookRejected

log = structlog.get_logger(__name__)

#: Posted by one task at most: what is left is the next sweep's.
BATCH = 20


def tell(outbox: Outbox, webhook: Webhook | None) -> None:
    """Without a webhook alerts are logged and kept. What fails now is told later: the outbox knows what is owed."""
    try:
        outbox.log_new_alerts(_say)
        if webhook is None:
            outbox.finish_without_posting()
        else:
            _post_some(outbox, webhook)
        outbox.prune()
    except StoreError as error:
        log.warning("PostgreSQL does not answer; the next sweep tells of alerts", why=str(error))


def _say(alert: Alert) -> None:
    say = log.info if alert.recovered else log.warning
    say("alert", kind=alert.kind.value, recovered=alert.recovered, told=describe_alert(alert), alert=alert.id)


def _post_some(outbox: Outbox, webhook: Webhook) -> None:
    for _ in range(BATCH):
        post = outbox.claim()
        if post is None:
            return
        _post(outbox, webhook, post)


def _post(outbox: Outbox, webhook: Webhook, post: ClaimedAlert) -> None:
    alert = post.alert
    try:
        webhook.post(alert, post.now)
    except WebhookRejected as error:
        seconds = max(post_retry_seconds(alert.attempts), error.retry_after)
        again = outbox.schedule_retry(alert, seconds)
        said = "the webhook did not take an alert; tried again" if again else "gave up on an alert for the webhook"
        told = {"seconds": seconds} if again else {}
        log.warning(said, alert=alert.id, kind=alert.kind.value, attempt=alert.attempts, why=str(error), **told)
    else:
        outbox.mark_delivered(alert)
