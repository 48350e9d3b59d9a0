"""The outbox of alerts: each change once, put there by the transaction that makes it."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, text

from shared.domain.alerts import AlertKind

RAISE = text("""
INSERT INTO tokenkeeper.alerts (kind, recovered, subject, detail)
VALUES (:kind, :recovered, :subject, CAST(:detail AS jsonb))
""")
#: Those of a kind are posted in order, and the first of them may be waiting for an hour: news is worth a try.
HURRY = text("""
UPDATE tokenkeeper.alerts SET due_at = now()
 WHERE due_at > now()
   AND number = (SELECT min(number) FROM tokenkeeper.alerts WHERE kind = :kind AND due_at IS NOT NULL)
""")


def raise_alert(
    connection: Connection,
    kind: AlertKind,
    *,
    recovered: bool = False,
    subject: str = "",
    detail: dict[str, Any],
) -> None:
    """Tell operators, if the caller's transaction commits. `detail`: JSON, and nothing secret in it."""
    values = {"kind": kind.value, "recovered": recovered, "subject": subject, "detail": json.dumps(detail)}
    connection.execute(RAISE, values)
    connection.execute(HURRY, {"kind": kind.value})
