"""The history of all connections, by its cursor, and how far it is sent to our own product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row

from shared.db.core.statements import Database, single_statement

#: Of one page.
PAGE_LINES = 500


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One row of `hubspot.history`."""

    id: int
    at: datetime
    hub_id: int
    app: str
    user_id: int | None
    customer: str | None
    event: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """How far events are sent to EVENTS_WEBHOOK_URL."""

    is_enabled: bool
    lag_seconds: float  #: since the oldest event happened that is not accepted yet; 0: all are
    waiting_connections: int  #: whose oldest event was not accepted
    failing_since: datetime | None  #: the receiver has accepted nothing since then; None: the newest were accepted
    stopped_at: datetime | None  #: the receiver answered 410 Gone
    accepted: int  #: in all
    dropped: int  #: in all: not accepted for three days
    last_error: str | None  #: of the newest post that failed, of those that wait
    now: datetime  #: PostgreSQL's clock


_COLUMNS = "id, at, hub_id, app, user_id, customer, event, detail"
AFTER = single_statement(f"SELECT {_COLUMNS} FROM tokenkeeper.history WHERE id > :after ORDER BY id LIMIT :limit")
NEWEST = single_statement(f"""
SELECT * FROM (SELECT {_COLUMNS} FROM tokenkeeper.history ORDER BY id DESC LIMIT :limit) AS newest ORDER BY id
""")
DELIVERY = single_statement("""
SELECT d.is_enabled, d.failing_since, d.stopped_at, d.accepted, d.dropped, clock_timestamp() AS now,
       (SELECT count(*) FROM tokenkeeper.event_retries) AS waiting_connections,
       (SELECT last_error FROM tokenkeeper.event_retries ORDER BY failed_at DESC NULLS LAST LIMIT 1) AS last_error,
       CASE WHEN d.is_enabled THEN coalesce(extract(epoch FROM clock_timestamp() - least(
           (SELECT h.at FROM tokenkeeper.history AS h WHERE h.id > d.cursor_id ORDER BY h.id LIMIT 1),
           (SELECT min(h.at) FROM tokenkeeper.event_retries AS r JOIN tokenkeeper.history AS h ON h.id = r.history_id)
       )), 0) ELSE 0 END AS lag_seconds
  FROM tokenkeeper.event_delivery AS d
""")


class HistoryReader:
    """Every method raises StoreUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def read_after(self, line_id: int, limit: int = PAGE_LINES) -> Sequence[HistoryEntry]:
        """What follows that line. A line that is not there yet never comes before one that is."""
        return [_to_entry(row) for row in self._database.execute(AFTER, after=line_id, limit=limit)]

    def read_newest(self, limit: int) -> Sequence[HistoryEntry]:
        """The newest lines, in order."""
        return [_to_entry(row) for row in self._database.execute(NEWEST, limit=limit)]

    def read_delivery(self) -> DeliveryReport:
        row = self._database.execute(DELIVERY)[0]
        names = ("is_enabled", "waiting_connections", "failing_since", "stopped_at", "accepted", "dropped")
        values = {name: getattr(row, name) for name in (*names, "last_error", "now")}
        return DeliveryReport(lag_seconds=max(0.0, float(row.lag_seconds)), **values)


def _to_entry(row: Row[Any]) -> HistoryEntry:
    return HistoryEntry(row.id, row.at, row.hub_id, row.app, row.user_id, row.customer, row.event, row.detail)
