"""What the refreshes of the last hours came to, and how much life is in the tokens served now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row

from shared.db.core.statements import Database, single_statement
from shared.domain.refresh_counters import LATENESS_BOUNDS_SECONDS as LATE
from shared.domain.refresh_counters import LIFETIME_BOUNDS_SECONDS, OUTCOMES, find_lateness_bound

#: With more connections than this, a sample of about so many stands for all of them.
SAMPLE = 20_000


@dataclass(frozen=True, slots=True)
class Slot:
    """Some minutes, from `at` on."""

    at: datetime
    refreshed: int
    failed: int  #: attempts that brought no token


@dataclass(frozen=True, slots=True)
class Totals:
    """Since the database was made. They never go down."""

    attempts: dict[str, int]  #: by outcome, every one of OUTCOMES
    lateness: dict[float, int]  #: refreshes by upper bound in seconds (the last is infinite), each in one of them
    lateness_seconds: float  #: summed up


@dataclass(frozen=True, slots=True)
class Life:
    """What the tokens that are served now have left."""

    lives: dict[float, int]  #: tokens by upper bound in seconds (the last is infinite), each in one of them
    seconds: float  #: summed up
    estimated: bool  #: from a sample


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
TALLY = single_statement("SELECT kind, name, total FROM tokenkeeper.refresh_counters")
CONNECTIONS = single_statement("SELECT connections FROM tokenkeeper.connection_counts")
#: Pages of the table, drawn by lot; with 100 percent all of them.
_DRAWN = "tokenkeeper.connections TABLESAMPLE SYSTEM (:percent)"
_SERVED = "status IN ('active', 'suspect') AND expires_at > clock_timestamp()"
_BOUNDS = ", ".join(str(each) for each in LIFETIME_BOUNDS_SECONDS[:-1])
LIFE = single_statement(f"""
WITH drawn AS MATERIALIZED (
    SELECT CASE WHEN {_SERVED} THEN extract(epoch FROM expires_at - clock_timestamp())::double precision END AS life
      FROM {_DRAWN}
)
SELECT width_bucket(life, ARRAY[{_BOUNDS}]::double precision[]) AS bucket,
       count(*) AS tokens, coalesce(sum(life), 0) AS seconds
  FROM drawn GROUP BY bucket
""")
#: A live connection without a token is due, or has failed, or HubSpot refused our app and it is due again soon: the
#: first retry is never later than this.
SOON = "6 seconds"
_LIVE = "status IN ('active', 'suspect')"
_TOKENLESS = f"{_LIVE} AND (expires_at IS NULL OR expires_at <= now())"
#: The planner would take a backlog's statistics for today's, or today's for a backlog's.
_BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL jit = off; "
CANDIDATES = single_statement(f"""
{_BY_INDEX}SELECT count(*) FROM (
    (SELECT FROM tokenkeeper.connections WHERE due_at <= now() + interval '{SOON}' LIMIT :most)
    UNION ALL
    (SELECT FROM tokenkeeper.connections WHERE failures > 0 LIMIT :most)
) AS candidates
""")
STALE = single_statement(f"""
{_BY_INDEX}SELECT count(*) FROM (
    SELECT hub_id FROM tokenkeeper.connections WHERE due_at <= now() + interval '{SOON}' AND {_TOKENLESS}
    UNION
    SELECT hub_id FROM tokenkeeper.connections WHERE failures > 0 AND {_TOKENLESS}
) AS stale
""")
STALE_OF_SAMPLE = single_statement(
    f"SELECT count(*) AS drawn, count(*) FILTER (WHERE {_TOKENLESS}) AS stale FROM {_DRAWN}"
)
WAITING = single_statement("SELECT count(*) FROM tokenkeeper.alerts WHERE due_at IS NOT NULL")


class RefreshStats:
    """Everything raises StoreUnavailable where PostgreSQL does not answer. Nothing here is slow at a million."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def read_slots(self, *, hours: int = 6, minutes: int = 5) -> list[Slot]:
        """The oldest first, without gaps; the last is the one that is running."""
        rows = self._database.execute(SLOTS, minutes=minutes, count=hours * 60 // minutes)
        return [Slot(row.at, int(row.refreshed), int(row.failed)) for row in rows]

    def read_totals(self) -> Totals:
        totals = Totals(dict.fromkeys(OUTCOMES, 0), dict.fromkeys(LATE, 0), 0.0)
        seconds = 0.0
        for row in self._database.execute(TALLY):
            if row.kind == "attempts":
                totals.attempts[row.name] = int(row.total)
            elif row.kind == "lateness":
                # Of another version's bounds, perhaps: what was counted stays counted.
                totals.lateness[find_lateness_bound(float(row.name))] += int(row.total)
            else:
                seconds = row.total
        return Totals(totals.attempts, totals.lateness, seconds)

    def read_lifetimes(self) -> Life:
        """Drawn from a sample where there are more than SAMPLE connections."""
        connections = self._connections()
        rows = self._database.execute(LIFE, percent=_percent(connections))
        drawn = sum(row.tokens for row in rows)
        return _life(rows, connections / drawn if connections > SAMPLE and drawn else 1.0, connections > SAMPLE)

    def count_without_token(self) -> int:
        """Live connections of which no token can be served. An estimate where more than SAMPLE of them are due."""
        connections = self._connections()
        if connections > SAMPLE and self._database.execute(CANDIDATES, most=SAMPLE)[0][0] >= SAMPLE:
            row = self._database.execute(STALE_OF_SAMPLE, percent=_percent(connections))[0]
            return round(row.stale * connections / row.drawn) if row.drawn else 0
        return int(self._database.execute(STALE)[0][0])

    def count_undelivered_alerts(self) -> int:
        """Alerts that are not delivered yet."""
        return int(self._database.execute(WAITING)[0][0])

    def _connections(self) -> int:
        return int(self._database.execute(CONNECTIONS)[0][0])


def _percent(connections: int) -> float:
    return min(100.0, 100.0 * SAMPLE / max(1, connections))


def _life(rows: Iterable[Row[Any]], factor: float, estimated: bool) -> Life:
    lives = dict.fromkeys(LIFETIME_BOUNDS_SECONDS, 0)
    seconds = 0.0
    for row in rows:
        if row.bucket is not None:  # else they are not served
            lives[LIFETIME_BOUNDS_SECONDS[row.bucket]] = round(row.tokens * factor)
            seconds += row.seconds * factor
    return Life(lives, seconds, estimated)
