"""What people and dashboards are shown. No secrets; nothing here is slow at a million connections."""

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
from shared.domain.provider import Provider

#: The soonest expiry is looked for among so many soonest due, and among as many failing ones: whatever expires
#: soon is one of these. Below this many connections it is exact.
CANDIDATES = 2_000
#: No further than this are those due and those failing counted; past it, a sample of the table says how many.
COUNTED = 20_000


@dataclass(frozen=True, slots=True)
class Overview:
    now: datetime  #: PostgreSQL's clock
    counts: dict[Status, int]  #: every status, also where it is 0
    failing: int  #: active or suspect, and the last attempt brought no token; past COUNTED an estimate
    due: int  #: refreshes that are due now, in flight or not; past COUNTED an estimate
    soonest_due: datetime | None  #: in the past: how late the latest is
    soonest_expiry: datetime | None  #: of the tokens served now
    provider: Provider
    swept_at: datetime | None  #: None before the first sweep
    last_success_at: datetime | None  #: to within five seconds
    brake_since: datetime | None  #: the revocation brake is on since then; None: it is off
    held: int  #: suspect connections that would be revoked, were it not for the brake


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """One line of `hubspot.connections`."""

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


_SEEN = tuple(each.name for each in fields(ConnectionRow))


@dataclass(frozen=True, slots=True)
class HistoryLine:
    at: datetime
    event: str
    detail: dict[str, Any]


_RARE = """
WITH rare AS (
    SELECT count(*) FILTER (WHERE status = 'suspect') AS suspect,
           count(*) FILTER (WHERE status = 'revoked') AS revoked,
           count(*) FILTER (WHERE status = 'disconnected') AS disconnected
      FROM tokenkeeper.connections WHERE status <> 'active'
)
"""
_ACTIVE = "connection_counts.connections - suspect - revoked - disconnected AS active"
COUNTS = single_statement(f"{_RARE} SELECT now() AS at, rare.*, {_ACTIVE} FROM tokenkeeper.connection_counts, rare")
#: A revoked connection keeps its count of failures, and nobody waits for its token any more.
_FAILING = "failures > 0 AND status IN ('active', 'suspect')"
_SOME = f"SELECT FROM tokenkeeper.connections WHERE {{}} LIMIT {COUNTED} + 1"
OVERVIEW = single_statement(f"""
{_RARE}, soon AS (
    (SELECT expires_at FROM tokenkeeper.connections WHERE due_at IS NOT NULL ORDER BY due_at LIMIT {CANDIDATES})
    UNION ALL
    (SELECT expires_at FROM tokenkeeper.connections WHERE failures > 0 AND due_at IS NOT NULL LIMIT {CANDIDATES})
)
SELECT now() AS at, {PROVIDER_COLUMNS}, swept_at, last_success_at, brake_since, rare.*,
       {_ACTIVE}, connection_counts.connections,
       (SELECT count(*) FROM ({_SOME.format(_FAILING)}) AS counted) AS failing,
       (SELECT count(*) FROM tokenkeeper.connections WHERE {IS_HELD}) AS held,
       (SELECT count(*) FROM ({_SOME.format("due_at <= now()")}) AS counted) AS due,
       (SELECT min(due_at) FROM tokenkeeper.connections WHERE due_at IS NOT NULL) AS soonest_due,
       (SELECT min(expires_at) FROM soon WHERE expires_at > now()) AS soonest_expiry
  FROM tokenkeeper.provider, tokenkeeper.connection_counts, rare
""")
#: The table's pages are drawn by lot.
ESTIMATED = single_statement(f"""
SELECT count(*) AS drawn, count(*) FILTER (WHERE {_FAILING}) AS failing,
       count(*) FILTER (WHERE due_at <= now()) AS due
  FROM tokenkeeper.connections TABLESAMPLE SYSTEM (:percent)
""")
_PAGE = "SELECT * FROM hubspot.connections WHERE hub_id > :after {filter} ORDER BY hub_id LIMIT :limit"
PAGE = single_statement(_PAGE.format(filter=""))
PAGE_OF_STATUS = single_statement(_PAGE.format(filter="AND status = :status"))
ONE = single_statement("SELECT * FROM hubspot.connections WHERE hub_id = :hub_id")
HISTORY = single_statement("""
SELECT at, event, detail FROM tokenkeeper.history WHERE hub_id = :hub_id ORDER BY id DESC LIMIT :limit
""")
SEALED = single_statement("""
SELECT hub_id, encrypted_refresh_token FROM tokenkeeper.connections
 WHERE hub_id > :after AND encrypted_refresh_token IS NOT NULL ORDER BY hub_id LIMIT :limit
""")
NOW = single_statement("SELECT clock_timestamp()")


class ConnectionReports:
    """Everything raises StoreUnavailable where PostgreSQL does not answer."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def read_overview(self) -> Overview:
        row = self._database.execute(OVERVIEW)[0]
        failing, due = row.failing, row.due
        if max(failing, due) > COUNTED:
            failing, due = self._estimated(row.connections, failing, due)
        return Overview(
            now=row.at,
            counts=_counts(row),
            failing=failing,
            due=due,
            soonest_due=row.soonest_due,
            soonest_expiry=row.soonest_expiry,
            provider=row_to_provider(row),
            swept_at=row.swept_at,
            last_success_at=row.last_success_at,
            brake_since=row.brake_since,
            held=row.held,
        )

    def read_counts(self) -> tuple[datetime, dict[Status, int]]:
        """PostgreSQL's time, and how many there are in every status: what of the overview costs next to nothing."""
        row = self._database.execute(COUNTS)[0]
        return row.at, _counts(row)

    def read_page(self, *, status: Status | None = None, after: int = -1, limit: int = 100) -> list[ConnectionRow]:
        """By hub, from the first one past `after`: hand in the last one's hub to get the next page."""
        values: dict[str, Any] = {"after": after, "limit": limit}
        if status is None:
            rows = self._database.execute(PAGE, **values)
        else:
            rows = self._database.execute(PAGE_OF_STATUS, status=status.value, **values)
        return [connection_row(row) for row in rows]

    def find(self, hub_id: int) -> ConnectionRow | None:
        rows = self._database.execute(ONE, hub_id=hub_id)
        return connection_row(rows[0]) if rows else None

    def read_history(self, hub_id: int, limit: int = 200) -> list[HistoryLine]:
        """The newest first."""
        rows = self._database.execute(HISTORY, hub_id=hub_id, limit=limit)
        return [HistoryLine(row.at, row.event, row.detail) for row in rows]

    def read_encrypted_tokens(self, *, after: int = -1, limit: int = 1000) -> Sequence[tuple[int, str]]:
        """Hubs and their sealed refresh tokens, a page at a time: to prove that TOKEN_KEYS opens every one."""
        rows = self._database.execute(SEALED, after=after, limit=limit)
        return [(row.hub_id, row.encrypted_refresh_token) for row in rows]

    def _estimated(self, connections: int, failing: int, due: int) -> tuple[int, int]:
        """What was counted, and an estimate in place of what was not counted to its end."""
        drawn = self._database.execute(ESTIMATED, percent=min(100.0, 100.0 * COUNTED / max(1, connections)))[0]
        scale = connections / max(1, drawn.drawn)
        return (
            failing if failing <= COUNTED else max(failing, round(drawn.failing * scale)),
            due if due <= COUNTED else max(due, round(drawn.due * scale)),
        )

    def read_time(self) -> datetime:
        now: datetime = self._database.execute(NOW)[0][0]
        return now


def connection_row(row: Row[Any]) -> ConnectionRow:
    """Of a row that has the columns of `hubspot.connections`, and perhaps more."""
    values = {name: getattr(row, name) for name in _SEEN}
    return ConnectionRow(**{**values, "status": Status(row.status), "scopes": tuple(row.scopes)})


def _counts(row: Row[Any]) -> dict[Status, int]:
    return {status: getattr(row, status.value) for status in Status}
