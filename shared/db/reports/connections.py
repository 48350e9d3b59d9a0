"""Reports on connections, for pages, commands and metrics. All are fast with a million connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row

from shared.db.core.statements import Database, single_statement
from shared.db.reports.overview import COUNTS_BY_STATUS, Overview, read_overview
from shared.domain.connection import Status
from shared.domain.identity import ConnectionIdentity


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """One row of `hubspot.connections`."""

    hub_id: int
    status: Status
    hub_domain: str | None
    installed_by: str | None
    scopes: tuple[str, ...]
    installed_at: datetime | None
    expires_at: datetime | None
    next_refresh_at: datetime | None
    failures: int
    last_error: str | None
    status_reason: str | None
    status_since: datetime
    account_name: str | None
    account_type: str | None
    region: str | None


@dataclass(frozen=True, slots=True)
class ConnectionKey:
    """What a person calls a connection, and the key that statements use."""

    id: int
    identity: ConnectionIdentity


_ROW_FIELDS = tuple(each.name for each in fields(ConnectionRow))


@dataclass(frozen=True, slots=True)
class HistoryLine:
    at: datetime
    event: str
    detail: dict[str, Any]


COUNTS = single_statement(f"""
SELECT now() AS at, total - coalesce(suspect + revoked + disconnected, 0) AS active, coalesce(suspect, 0) AS suspect,
       coalesce(revoked, 0) AS revoked, coalesce(disconnected, 0) AS disconnected
  FROM (SELECT coalesce(sum(connections), 0)::bigint AS total FROM tokenkeeper.connection_counts) AS counted,
       (SELECT sum(suspect)::bigint AS suspect, sum(revoked)::bigint AS revoked,
               sum(disconnected)::bigint AS disconnected FROM ({COUNTS_BY_STATUS}) AS by_app) AS by_status
""")
_PAGE = "SELECT * FROM hubspot.connections WHERE hub_id > :after {filter} ORDER BY hub_id LIMIT :limit"
PAGE = single_statement(_PAGE.format(filter=""))
PAGE_OF_STATUS = single_statement(_PAGE.format(filter="AND status = :status"))
FIND = single_statement("SELECT * FROM hubspot.connections WHERE hub_id = :hub_id")
FIND_KEYS = single_statement("""
SELECT id, app, hub_id, user_id FROM tokenkeeper.connections
 WHERE hub_id = ANY (CAST(:hub_ids AS bigint[])) ORDER BY hub_id, app, user_id
""")
HISTORY = single_statement("""
SELECT at, event, detail FROM tokenkeeper.history WHERE hub_id = :hub_id ORDER BY id DESC LIMIT :limit
""")
NOW = single_statement("SELECT clock_timestamp()")


class ConnectionReports:
    """Every method raises StoreUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def read_overview(self) -> Overview:
        return read_overview(self._database)

    def read_counts(self) -> tuple[datetime, dict[Status, int]]:
        """PostgreSQL's time, and the number of connections of every status: the cheap part of the overview."""
        row = self._database.execute(COUNTS)[0]
        return row.at, _count_by_status(row)

    def read_page(self, *, status: Status | None = None, after: int = -1, limit: int = 100) -> list[ConnectionRow]:
        """By hub id, from the first one above `after`: pass the last hub id of a page to get the next."""
        values: dict[str, Any] = {"after": after, "limit": limit}
        if status is None:
            rows = self._database.execute(PAGE, **values)
        else:
            rows = self._database.execute(PAGE_OF_STATUS, status=status.value, **values)
        return [make_connection_row(row) for row in rows]

    def find(self, hub_id: int) -> ConnectionRow | None:
        rows = self._database.execute(FIND, hub_id=hub_id)
        return make_connection_row(rows[0]) if rows else None

    def find_keys(self, hub_ids: Sequence[int]) -> list[ConnectionKey]:
        """Of all connections of these hubs, by hub, app and user."""
        rows = self._database.execute(FIND_KEYS, hub_ids=list(hub_ids))
        return [ConnectionKey(row.id, ConnectionIdentity(row.app, row.hub_id, row.user_id)) for row in rows]

    def read_history(self, hub_id: int, limit: int = 200) -> list[HistoryLine]:
        """The newest first."""
        rows = self._database.execute(HISTORY, hub_id=hub_id, limit=limit)
        return [HistoryLine(row.at, row.event, row.detail) for row in rows]

    def read_time(self) -> datetime:
        now: datetime = self._database.execute(NOW)[0][0]
        return now


def make_connection_row(row: Row[Any]) -> ConnectionRow:
    """From a row that has the columns of `hubspot.connections`; more columns are ignored."""
    values = {name: getattr(row, name) for name in _ROW_FIELDS}
    return ConnectionRow(**{**values, "status": Status(row.status), "scopes": tuple(row.scopes)})


def _count_by_status(row: Row[Any]) -> dict[Status, int]:
    return {status: getattr(row, status.value) for status in Status}
