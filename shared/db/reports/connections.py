"""Reports on connections, for pages, commands and metrics. All are fast with a million connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row

from shared.db.core.statements import Database, single_statement
from shared.db.refresh.brake import IS_HELD
from shared.db.refresh.provider import PROVIDER_COLUMNS, row_to_provider
from shared.domain.connection import Status
from shared.domain.identity import ConnectionIdentity
from shared.domain.provider import Provider

#: The soonest expiry is looked for among so many rows that are due soonest, and so many that fail: a token that expires
#: soon is one of these. With fewer connections the result is exact.
MAX_CANDIDATE_ROWS = 2_000
#: Due and failing connections are counted up to this number. Above it, a sample of the table estimates how many.
MAX_COUNTED_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Overview:
    now: datetime  #: PostgreSQL's clock
    counts: dict[Status, int]  #: of every status, also where it is 0
    failing: int  #: active or suspect, and the last attempt brought no token; above MAX_COUNTED_ROWS an estimate
    due: int  #: refreshes that are due now, in flight or not; above MAX_COUNTED_ROWS an estimate
    soonest_due: datetime | None  #: in the past: the refresh that is latest
    soonest_expiry: datetime | None  #: of the tokens served now
    provider: Provider
    swept_at: datetime | None  #: None before the first sweep
    swept_without_beat_since: datetime | None  #: the first of the newest sweeps that workers began; None: beat did
    last_success_at: datetime | None  #: to within five seconds
    brake_since: datetime | None  #: the revocation brake is on since then; None: off
    held: int  #: suspect connections whose revocation the brake holds


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


_COUNTS_BY_STATUS = """
WITH by_status AS (
    SELECT count(*) FILTER (WHERE status = 'suspect') AS suspect,
           count(*) FILTER (WHERE status = 'revoked') AS revoked,
           count(*) FILTER (WHERE status = 'disconnected') AS disconnected
      FROM tokenkeeper.connections WHERE status <> 'active'
)
"""
_ACTIVE = "connection_counts.connections - suspect - revoked - disconnected AS active"
COUNTS = single_statement(
    f"{_COUNTS_BY_STATUS} SELECT now() AS at, by_status.*, {_ACTIVE} FROM tokenkeeper.connection_counts, by_status"
)
#: A revoked connection keeps its count of failures, but is not refreshed any more.
_FAILING = "failures > 0 AND status IN ('active', 'suspect')"
_COUNTED = f"SELECT FROM tokenkeeper.connections WHERE {{}} LIMIT {MAX_COUNTED_ROWS} + 1"
OVERVIEW = single_statement(f"""
{_COUNTS_BY_STATUS}, soon AS (
    (SELECT expires_at FROM tokenkeeper.connections WHERE due_at IS NOT NULL ORDER BY due_at LIMIT {MAX_CANDIDATE_ROWS})
    UNION ALL
    (SELECT expires_at FROM tokenkeeper.connections
      WHERE failures > 0 AND due_at IS NOT NULL LIMIT {MAX_CANDIDATE_ROWS})
)
SELECT now() AS at, {PROVIDER_COLUMNS}, swept_at, swept_without_beat_since, last_success_at, brake_since, by_status.*,
       {_ACTIVE}, connection_counts.connections,
       (SELECT count(*) FROM ({_COUNTED.format(_FAILING)}) AS counted) AS failing,
       (SELECT count(*) FROM tokenkeeper.connections WHERE {IS_HELD}) AS held,
       (SELECT count(*) FROM ({_COUNTED.format("due_at <= now()")}) AS counted) AS due,
       (SELECT min(due_at) FROM tokenkeeper.connections WHERE due_at IS NOT NULL) AS soonest_due,
       (SELECT min(expires_at) FROM soon WHERE expires_at > now()) AS soonest_expiry
  FROM tokenkeeper.provider, tokenkeeper.connection_counts, by_status
""")
#: TABLESAMPLE SYSTEM chooses pages of the table at random.
SAMPLE = single_statement(f"""
SELECT count(*) AS sampled, count(*) FILTER (WHERE {_FAILING}) AS failing,
       count(*) FILTER (WHERE due_at <= now()) AS due
  FROM tokenkeeper.connections TABLESAMPLE SYSTEM (:percent)
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
        row = self._database.execute(OVERVIEW)[0]
        failing, due = row.failing, row.due
        if max(failing, due) > MAX_COUNTED_ROWS:
            failing, due = self._estimate(row.connections, failing, due)
        return Overview(
            now=row.at,
            counts=_count_by_status(row),
            failing=failing,
            due=due,
            soonest_due=row.soonest_due,
            soonest_expiry=row.soonest_expiry,
            provider=row_to_provider(row),
            swept_at=row.swept_at,
            swept_without_beat_since=row.swept_without_beat_since,
            last_success_at=row.last_success_at,
            brake_since=row.brake_since,
            held=row.held,
        )

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

    def _estimate(self, connections: int, failing: int, due: int) -> tuple[int, int]:
        """A count up to MAX_COUNTED_ROWS stays, and a higher one is replaced by an estimate."""
        sample = self._database.execute(SAMPLE, percent=min(100.0, 100.0 * MAX_COUNTED_ROWS / max(1, connections)))[0]
        scale = connections / max(1, sample.sampled)
        return (
            failing if failing <= MAX_COUNTED_ROWS else max(failing, round(sample.failing * scale)),
            due if due <= MAX_COUNTED_ROWS else max(due, round(sample.due * scale)),
        )


def make_connection_row(row: Row[Any]) -> ConnectionRow:
    """From a row that has the columns of `hubspot.connections`; more columns are ignored."""
    values = {name: getattr(row, name) for name in _ROW_FIELDS}
    return ConnectionRow(**{**values, "status": Status(row.status), "scopes": tuple(row.scopes)})


def _count_by_status(row: Row[Any]) -> dict[Status, int]:
    return {status: getattr(row, status.value) for status in Status}
