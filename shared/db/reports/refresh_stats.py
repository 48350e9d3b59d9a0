"""Statistics of refreshes: by time, by outcome, by lateness, and the lifetimes of the tokens that are served."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Engine

from shared.db.core.statements import Database, single_statement
from shared.db.reports.journals import JournalReport, read_journals
from shared.db.reports.oldest_snapshot import OldestSnapshot, read_oldest_snapshot
from shared.domain.refresh_counters import (
    LATENESS_BOUNDS_SECONDS,
    LIFETIME_BOUNDS_SECONDS,
    OUTCOMES,
    find_lateness_bound,
)

#: With more connections than this, a random sample of about so many rows is read.
SAMPLE_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Slot:
    """Some minutes that begin at `at`."""

    at: datetime
    refreshed: int
    failed: int  #: attempts that brought no token


@dataclass(frozen=True, slots=True)
class Totals:
    """Counters since the database was created. They never decrease."""

    attempts: dict[str, int]  #: by outcome, all of OUTCOMES
    lateness: dict[float, int]  #: refreshes by upper bound in seconds, in one bucket each
    lateness_seconds: float  #: sum

    @classmethod
    def empty(cls) -> Totals:
        return cls(dict.fromkeys(OUTCOMES, 0), dict.fromkeys(LATENESS_BOUNDS_SECONDS, 0), 0.0)


@dataclass(frozen=True, slots=True)
class TokenLifetimes:
    """The seconds that served tokens have left."""

    counts: dict[float, int]  #: tokens by upper bound in seconds, in one bucket each
    total_seconds: float  #: sum
    is_estimated: bool  #: from a sample


SLOTS = single_statement("""
WITH slots AS (
    SELECT date_bin(make_interval(mins => :minutes), now(), to_timestamp(0)) AS last,
           make_interval(mins => :minutes) AS width
)
SELECT at, coalesce(sum(m.refreshed), 0) AS refreshed, coalesce(sum(m.failed), 0) AS failed
  FROM slots
 CROSS JOIN LATERAL generate_series(last - width * (:count - 1), last, width) AS at
  LEFT JOIN tokenkeeper.refreshes_by_minute AS m ON m.minute >= at AND m.minute < at + width
 GROUP BY at ORDER BY at
""")
COUNTERS = single_statement("SELECT app, kind, name, total FROM tokenkeeper.refresh_counters")
COUNT_CONNECTIONS = single_statement("SELECT sum(connections) FROM tokenkeeper.connection_counts")
#: Random pages of the table; with 100 percent all of them.
_SAMPLED = "tokenkeeper.connections TABLESAMPLE SYSTEM (:percent)"
_SERVED = "status IN ('active', 'suspect') AND expires_at > clock_timestamp()"
_BOUNDS = ", ".join(str(each) for each in LIFETIME_BOUNDS_SECONDS[:-1])
LIFETIMES = single_statement(f"""
WITH sampled AS MATERIALIZED (
    SELECT CASE WHEN {_SERVED} THEN extract(epoch FROM expires_at - clock_timestamp())::double precision
           END AS seconds_left
      FROM {_SAMPLED}
)
SELECT width_bucket(seconds_left, ARRAY[{_BOUNDS}]::double precision[]) AS bucket,
       count(*) AS tokens, coalesce(sum(seconds_left), 0) AS seconds
  FROM sampled GROUP BY bucket
""")
#: A live connection without a token is due, has failed, or is due again within this time, because HubSpot refused our
#: app: the longest wait before a first retry.
_FIRST_RETRY = "6 seconds"
_LIVE = "status IN ('active', 'suspect')"
_WITHOUT_TOKEN = f"{_LIVE} AND (expires_at IS NULL OR expires_at <= now())"
#: The planner's statistics may be from before a backlog, or from one that is over.
_BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL jit = off; "
COUNT_CANDIDATES = single_statement(f"""
{_BY_INDEX}SELECT count(*) FROM (
    (SELECT FROM tokenkeeper.connections WHERE due_at <= now() + interval '{_FIRST_RETRY}' LIMIT :limit)
    UNION ALL
    (SELECT FROM tokenkeeper.connections WHERE failures > 0 LIMIT :limit)
) AS candidates
""")
COUNT_WITHOUT_TOKEN = single_statement(f"""
{_BY_INDEX}SELECT count(*) FROM (
    SELECT hub_id FROM tokenkeeper.connections WHERE due_at <= now() + interval '{_FIRST_RETRY}' AND {_WITHOUT_TOKEN}
    UNION
    SELECT hub_id FROM tokenkeeper.connections WHERE failures > 0 AND {_WITHOUT_TOKEN}
) AS without_token
""")
SAMPLE_WITHOUT_TOKEN = single_statement(
    f"SELECT count(*) AS sampled, count(*) FILTER (WHERE {_WITHOUT_TOKEN}) AS without_token FROM {_SAMPLED}"
)
COUNT_UNDELIVERED_ALERTS = single_statement("SELECT count(*) FROM tokenkeeper.alerts WHERE due_at IS NOT NULL")


class RefreshStats:
    """Every method raises StoreUnavailable, and is fast with a million connections."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._database = Database(engine)

    def read_slots(self, *, hours: int = 6, minutes: int = 5) -> list[Slot]:
        """The oldest first, without gaps; the last one has not ended yet."""
        rows = self._database.execute(SLOTS, minutes=minutes, count=hours * 60 // minutes)
        return [Slot(row.at, int(row.refreshed), int(row.failed)) for row in rows]

    def read_totals(self) -> dict[str, Totals]:
        """By app; an app without a refresh yet is left out."""
        totals_by_app: dict[str, Totals] = {}
        for row in self._database.execute(COUNTERS):
            totals = totals_by_app.setdefault(row.app, Totals.empty())
            if row.kind == "attempts":
                totals.attempts[row.name] = int(row.total)
            elif row.kind == "lateness":
                # The bounds of another version may differ: its counts are kept in the nearest bucket above.
                totals.lateness[find_lateness_bound(float(row.name))] += int(row.total)
            else:
                totals_by_app[row.app] = replace(totals, lateness_seconds=row.total)
        return totals_by_app

    def read_lifetimes(self) -> TokenLifetimes:
        """From a sample where there are more than SAMPLE_ROWS connections."""
        connections = self._count_connections()
        rows = self._database.execute(LIFETIMES, percent=_sample_percent(connections))
        sampled = sum(row.tokens for row in rows)
        is_estimated = connections > SAMPLE_ROWS
        scale = connections / sampled if is_estimated and sampled else 1.0
        counts = dict.fromkeys(LIFETIME_BOUNDS_SECONDS, 0)
        total_seconds = 0.0
        for row in rows:
            if row.bucket is not None:  # None: rows without a token to serve
                counts[LIFETIME_BOUNDS_SECONDS[row.bucket]] = round(row.tokens * scale)
                total_seconds += row.seconds * scale
        return TokenLifetimes(counts, total_seconds, is_estimated)

    def count_without_token(self) -> int:
        """Active and suspect connections without a valid token. An estimate with more than SAMPLE_ROWS candidates."""
        connections = self._count_connections()
        if (
            connections > SAMPLE_ROWS
            and self._database.execute(COUNT_CANDIDATES, limit=SAMPLE_ROWS)[0][0] >= SAMPLE_ROWS
        ):
            row = self._database.execute(SAMPLE_WITHOUT_TOKEN, percent=_sample_percent(connections))[0]
            return round(row.without_token * connections / row.sampled) if row.sampled else 0
        return int(self._database.execute(COUNT_WITHOUT_TOKEN)[0][0])

    def read_journals(self) -> list[JournalReport]:
        return read_journals(self._engine)

    def read_oldest_snapshot(self) -> OldestSnapshot:
        return read_oldest_snapshot(self._engine)

    def count_undelivered_alerts(self) -> int:
        return int(self._database.execute(COUNT_UNDELIVERED_ALERTS)[0][0])

    def _count_connections(self) -> int:
        return int(self._database.execute(COUNT_CONNECTIONS)[0][0])


def _sample_percent(connections: int) -> float:
    return min(100.0, 100.0 * SAMPLE_ROWS / max(1, connections))
