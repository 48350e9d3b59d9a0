"""Alerts about the receiver of events: once when something begins, once when it accepts events again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from shared.db.alerts.raising import raise_alert
from shared.domain.alerts import AlertKind
from shared.domain.events import BatchResult

#: A receiver that accepts nothing for so long is worth an alert.
FAILING_BEFORE_ALERT = timedelta(minutes=10)
#: A later one is worse, and gets another alert while an earlier one stands.
PROBLEMS = ("failing", "dropped", "gone")

READ_NEWEST = text("""
SELECT recovered, detail ->> 'problem' AS problem FROM tokenkeeper.alerts
 WHERE kind = 'events_webhook' ORDER BY number DESC LIMIT 1
""")


def alert_to_receiver(
    connection: Connection, result: BatchResult, *, failing_since: datetime | None, now: datetime
) -> None:
    """What the batch shows about the receiver, if that is news. `failing_since`: before this batch."""
    why = result.failure.why if result.failure else ""
    if result.is_gone:
        _raise_if_news(connection, "gone", {"why": why})
    elif result.dropped:
        _raise_if_news(connection, "dropped", {"count": result.dropped, "why": why})
    elif result.accepted:
        _raise_recovery(connection)
    elif failing_since is not None and now - failing_since > FAILING_BEFORE_ALERT:
        _raise_if_news(connection, "failing", {"why": why, "minutes": int((now - failing_since).total_seconds()) // 60})


def alert_to_skipped(connection: Connection, count: int) -> None:
    """Lines of the history that became too old while nothing was sent."""
    _raise_if_news(connection, "dropped", {"count": count, "why": ""})


def _raise_if_news(connection: Connection, problem: str, detail: dict[str, Any]) -> None:
    newest = connection.execute(READ_NEWEST).one_or_none()
    open_problem = newest.problem if newest is not None and not newest.recovered else None
    if open_problem not in PROBLEMS or PROBLEMS.index(problem) > PROBLEMS.index(open_problem):
        raise_alert(connection, AlertKind.EVENTS, detail={"problem": problem, **detail})


def _raise_recovery(connection: Connection) -> None:
    newest = connection.execute(READ_NEWEST).one_or_none()
    if newest is not None and not newest.recovered:
        raise_alert(connection, AlertKind.EVENTS, recovered=True, detail={"problem": newest.problem})
