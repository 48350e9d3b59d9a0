"""Puts an alert into the outbox, in the transaction that makes the change which it is about."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, text

from shared.domain.alerts import AlertKind

INSERT = text("""
INSERT INTO tokenkeeper.alerts (kind, app, recovered, subject, detail)
VALUES (:kind, :app, :recovered, :subject, CAST(:detail AS jsonb))
""")
#: Alerts of one kind about one app are posted in order, and the first one may be waiting up to an hour for its next
#: attempt: with a new alert behind it, it is attempted at once. SKIP LOCKED: the caller may have locked the provider's
#: row.
RETRY_FIRST_NOW = text("""
WITH first AS MATERIALIZED (
    SELECT number FROM tokenkeeper.alerts
     WHERE due_at > now()
       AND number = (SELECT min(number) FROM tokenkeeper.alerts
                      WHERE kind = :kind AND app IS NOT DISTINCT FROM CAST(:app AS text) AND due_at IS NOT NULL)
       FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE tokenkeeper.alerts AS a SET due_at = now() FROM first WHERE a.number = first.number
""")


def raise_alert(
    connection: Connection,
    kind: AlertKind,
    *,
    app: str | None = None,
    recovered: bool = False,
    subject: str = "",
    detail: dict[str, Any],
) -> None:
    """Alert operators, if the caller's transaction commits. `detail` becomes JSON; no secrets in it.

    `app`: None where it is about the whole installation.
    """
    values = {"kind": kind.value, "app": app, "recovered": recovered, "subject": subject, "detail": json.dumps(detail)}
    connection.execute(INSERT, values)
    connection.execute(RETRY_FIRST_NOW, {"kind": kind.value, "app": app})
