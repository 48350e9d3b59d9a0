"""Reports on connections, for pages, commands and metrics. All are fast with a million connections."""

from __future__ import annotations

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
    """One row of `hubspot.connections`, and its key."""

    id: int
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
    app: str
    user_id: int | None
    customer: str | None
    account_name: str | None
    account_type: str | None
    region: str | None
    missing_scopes: tuple[str, ...] | None  #: None: not known

    @property
    def identity(self) -> ConnectionIdentity:
        return ConnectionIdentity(self.app, self.hub_id, self.user_id)


_ROW_FIELDS = tuple(each.name for each in fields(ConnectionRow))


@dataclass(frozen=True, slots=True)
class HistoryLine:
    at: datetime
    event: str
    detail: dict[str, Any]
    app: str
    user_id: int | None
    customer: str | None  #: at that time


COUNTS = single_statement(f"""
SELECT now() AS at, total - coalesce(suspect + revoked + disconnected, 0) AS active, coalesce(suspect, 0) AS suspect,
       coalesce(revoked, 0) AS revoked, coalesce(disconnected, 0) AS disconnected
  FROM (SELECT coalesce(sum(connections), 0)::bigint AS total FROM tokenkeeper.connection_counts) AS counted,
       (SELECT sum(suspect)::bigint AS suspect, sum(revoked)::bigint AS revoked,
               sum(disconnected)::bigint AS disconnected FROM ({COUNTS_BY_STATUS}) AS by_app) AS by_status
""")
_FITS = """
hub_id = :hub_id AND (CAST(:app AS text) IS NULL OR app = :app)
   AND (CAST(:user_id AS bigint) IS NULL OR user_id = :user_id)
"""
FIND = single_statement(f"SELECT * FROM tokenkeeper.connection_details WHERE {_FITS} ORDER BY app, user_id")
HISTORY = single_statement(f"""
SELECT at, event, detail, app, user_id, customer FROM tokenkeeper.history WHERE {_FITS} ORDER BY id DESC LIMIT :limit
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

    def find(self, hub_id: int, app: str | None = None, user_id: int | None = None) -> list[ConnectionRow]:
        """The connections of this hub that fit, by app and user: usually one. `app` and `user_id`: None fits any."""
        rows = self._database.execute(FIND, hub_id=hub_id, app=app, user_id=user_id)
        return [make_connection_row(row) for row in rows]

    def read_history(
        self, hub_id: int, limit: int = 200, *, app: str | None = None, user_id: int | None = None
    ) -> list[HistoryLine]:
        """The newest first. `app` and `user_id`: None fits any."""
        rows = self._database.execute(HISTORY, hub_id=hub_id, app=app, user_id=user_id, limit=limit)
        return [HistoryLine(**row._asdict()) for row in rows]

    def read_time(self) -> datetime:
        now: datetime = self._database.execute(NOW)[0][0]
        return now


def make_connection_row(row: Row[Any]) -> ConnectionRow:
    """From a row of tokenkeeper.connection_details; more columns are ignored."""
    values = {name: getattr(row, name) for name in _ROW_FIELDS}
    missing = None if row.missing_scopes is None else tuple(row.missing_scopes)
    changes = {"status": Status(row.status), "scopes": tuple(row.scopes), "missing_scopes": missing}
    return ConnectionRow(**{**values, **changes})


def _count_by_status(row: Row[Any]) -> dict[Status, int]:
    return {status: getattr(row, status.value) for status in Status}
