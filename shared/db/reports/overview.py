"""How things stand now, for each app and as a whole: for pages, commands and metrics."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from shared.db.core.statements import Database, single_statement
from shared.db.refresh.brake import IS_HELD
from shared.db.refresh.provider import PROVIDER_COLUMNS, row_to_provider
from shared.domain.connection import Status
from shared.domain.provider import Condition, Provider

#: The soonest expiry is looked for among so many rows that are due soonest, and so many that fail: a token that expires
#: soon is one of these. With fewer connections the result is exact.
MAX_CANDIDATE_ROWS = 2_000
#: Due and failing connections of an app are counted up to this number. Above it, a sample of the table estimates them.
MAX_COUNTED_ROWS = 20_000
#: The most important first, for the state of several apps in one word.
_CONDITIONS_BY_WEIGHT = (Condition.APP_REJECTED, Condition.UNAVAILABLE, Condition.THROTTLED, Condition.OK)


@dataclass(frozen=True, slots=True)
class AppState:
    """One app. It has a state from its first connection on, or from a worker's start with its settings."""

    app: str
    counts: dict[Status, int]  #: of connections, of every status, also where it is 0
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

    @property
    def live(self) -> int:
        """Connections that HubSpot has not ended, nor the operator."""
        return self.counts[Status.ACTIVE] + self.counts[Status.SUSPECT]


@dataclass(frozen=True, slots=True)
class Overview:
    """The properties are those of all its apps together."""

    now: datetime  #: PostgreSQL's clock
    apps: tuple[AppState, ...]  #: by name; also those that are in no setting any more

    def select(self, names: Collection[str]) -> Overview:
        """Of these apps alone."""
        return replace(self, apps=tuple(state for state in self.apps if state.app in names))

    def find_without_settings(self, configured: Collection[str]) -> list[AppState]:
        """Apps with live connections that the settings do not describe; [] where these describe none at all."""
        return [state for state in self.apps if state.live and configured and state.app not in configured]

    @property
    def counts(self) -> dict[Status, int]:
        return {status: sum(state.counts[status] for state in self.apps) for status in Status}

    @property
    def failing(self) -> int:
        return sum(state.failing for state in self.apps)

    @property
    def due(self) -> int:
        return sum(state.due for state in self.apps)

    @property
    def soonest_due(self) -> datetime | None:
        return _find_first(state.soonest_due for state in self.apps)

    @property
    def soonest_expiry(self) -> datetime | None:
        return _find_first(state.soonest_expiry for state in self.apps)

    @property
    def provider(self) -> Provider:
        """Of the app that HubSpot treats worst."""
        states = [state.provider for state in self.apps]
        return min(states, key=lambda each: _CONDITIONS_BY_WEIGHT.index(each.condition), default=Provider())

    @property
    def swept_at(self) -> datetime | None:
        return max((state.swept_at for state in self.apps if state.swept_at), default=None)

    @property
    def swept_without_beat_since(self) -> datetime | None:
        """Beat's message has all apps swept: the app that was swept last says whether it comes."""
        newest = self.swept_at
        return next(
            (state.swept_without_beat_since for state in self.apps if newest and state.swept_at == newest), None
        )

    @property
    def last_success_at(self) -> datetime | None:
        return max((state.last_success_at for state in self.apps if state.last_success_at), default=None)

    @property
    def brake_since(self) -> datetime | None:
        return _find_first(state.brake_since for state in self.apps)

    @property
    def held(self) -> int:
        return sum(state.held for state in self.apps)


COUNTS_BY_STATUS = """
SELECT app, count(*) FILTER (WHERE status = 'suspect') AS suspect,
       count(*) FILTER (WHERE status = 'revoked') AS revoked,
       count(*) FILTER (WHERE status = 'disconnected') AS disconnected
  FROM tokenkeeper.connections WHERE status <> 'active' GROUP BY app
"""
#: A revoked connection keeps its count of failures, but is not refreshed any more.
_FAILING = "failures > 0 AND status IN ('active', 'suspect')"
_OF_APP = "SELECT {} FROM tokenkeeper.connections AS c WHERE c.app = p.app AND {}"
_COUNTED = f"SELECT count(*) FROM ({_OF_APP} LIMIT {MAX_COUNTED_ROWS} + 1) AS counted"
OVERVIEW = single_statement(f"""
WITH by_status AS MATERIALIZED ({COUNTS_BY_STATUS})
SELECT now() AS at, p.app, {PROVIDER_COLUMNS}, swept_at, swept_without_beat_since, last_success_at, brake_since,
       coalesce(n.connections, 0) AS connections,
       coalesce(n.connections, 0) - coalesce(suspect + revoked + disconnected, 0) AS active,
       coalesce(suspect, 0) AS suspect, coalesce(revoked, 0) AS revoked, coalesce(disconnected, 0) AS disconnected,
       ({_COUNTED.format("", _FAILING)}) AS failing,
       ({_COUNTED.format("", "due_at <= now()")}) AS due,
       ({_OF_APP.format("count(*)", IS_HELD)}) AS held,
       ({_OF_APP.format("min(due_at)", "due_at IS NOT NULL")}) AS soonest_due,
       (SELECT min(expires_at) FROM (
            ({_OF_APP.format("expires_at", "due_at IS NOT NULL")} ORDER BY due_at LIMIT {MAX_CANDIDATE_ROWS})
            UNION ALL
            ({_OF_APP.format("expires_at", "failures > 0 AND due_at IS NOT NULL")} LIMIT {MAX_CANDIDATE_ROWS})
        ) AS soon WHERE expires_at > now()) AS soonest_expiry
  FROM tokenkeeper.provider AS p
  LEFT JOIN tokenkeeper.connection_counts AS n ON n.app = p.app
  LEFT JOIN by_status ON by_status.app = p.app
 ORDER BY p.app
""")
#: TABLESAMPLE SYSTEM chooses pages of the table at random.
SAMPLE = single_statement(f"""
SELECT app, count(*) AS sampled, count(*) FILTER (WHERE {_FAILING}) AS failing,
       count(*) FILTER (WHERE due_at <= now()) AS due
  FROM tokenkeeper.connections TABLESAMPLE SYSTEM (:percent) GROUP BY app
""")


def read_overview(database: Database) -> Overview:
    """Fast with a million connections. Raises StoreUnavailable."""
    rows = database.execute(OVERVIEW)
    estimates: dict[str, tuple[int, int]] = {}
    if any(max(row.failing, row.due) > MAX_COUNTED_ROWS for row in rows):
        estimates = _estimate(database, sum(row.connections for row in rows))
    return Overview(rows[0].at, tuple(_row_to_state(row, *estimates.get(row.app, (0, 0))) for row in rows))


def _estimate(database: Database, connections: int) -> dict[str, tuple[int, int]]:
    """By app, how many fail and how many are due."""
    sample = database.execute(SAMPLE, percent=min(100.0, 100.0 * MAX_COUNTED_ROWS / max(1, connections)))
    scale = connections / max(1, sum(row.sampled for row in sample))
    return {row.app: (round(row.failing * scale), round(row.due * scale)) for row in sample}


def _row_to_state(row: Row[Any], failing_estimate: int, due_estimate: int) -> AppState:
    """A count up to MAX_COUNTED_ROWS stays, and a higher one is replaced by an estimate."""
    return AppState(
        app=row.app,
        counts={status: getattr(row, status.value) for status in Status},
        failing=row.failing if row.failing <= MAX_COUNTED_ROWS else max(row.failing, failing_estimate),
        due=row.due if row.due <= MAX_COUNTED_ROWS else max(row.due, due_estimate),
        soonest_due=row.soonest_due,
        soonest_expiry=row.soonest_expiry,
        provider=row_to_provider(row),
        swept_at=row.swept_at,
        swept_without_beat_since=row.swept_without_beat_since,
        last_success_at=row.last_success_at,
        brake_since=row.brake_since,
        held=row.held,
    )


def _find_first(instants: Iterable[datetime | None]) -> datetime | None:
    return min((each for each in instants if each is not None), default=None)
