"""The SQL of one page of the list of connections: which index is walked, from which row, in which direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.db.reports.page_cursor import Sort
from shared.domain.connection import Status
from shared.domain.hub_id import MAX_HUB_ID

_CONNECTIONS = "tokenkeeper.connections AS c"
_BOTH = f"{_CONNECTIONS} JOIN tokenkeeper.accounts AS a ON a.hub_id = c.hub_id"
#: Fetched before they are sorted (OFFSET 0): whatever way the planner would rather go, it is these and no more.
_FOUND = """
(SELECT hub_id, status, due_at, failures
   FROM tokenkeeper.connections WHERE hub_id = ANY (CAST(:found AS bigint[])) OFFSET 0) AS c
  JOIN tokenkeeper.accounts AS a ON a.hub_id = c.hub_id
"""
_RANGES = "unnest(CAST(:lows AS bigint[]), CAST(:highs AS bigint[])) AS r(low, high)"
#: The index's own order is what is wanted: a page is short, and statistics may be of before a backlog or an outage.
_WALK = """
SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off;
SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL jit = off;
"""
#: Of a few, or of a rare status, the planner may fetch all and sort them.
_SORT = "SET LOCAL enable_seqscan = off; SET LOCAL jit = off;"

PAGE = """
{settings}
WITH page AS MATERIALIZED (
    SELECT {hub} AS hub_id FROM {source} WHERE {where} ORDER BY {order} LIMIT :limit
)
SELECT c.hub_id, c.status, a.hub_domain, a.installed_by, c.scopes, c.installed_at, c.expires_at,
       CASE WHEN c.status IN ('active', 'suspect') THEN c.due_at END AS next_refresh_at,
       c.failures, c.last_error, c.status_reason, c.status_since, c.due_at, a.sort_key
  FROM page
  JOIN tokenkeeper.connections AS c ON c.hub_id = page.hub_id
  LEFT JOIN tokenkeeper.accounts AS a ON a.hub_id = page.hub_id
 ORDER BY {order}
"""
#: The hubs that a search finds, in no order.
NAMED = "SELECT hub_id FROM tokenkeeper.accounts WHERE search_text LIKE :pattern LIMIT :limit"
NUMBERED = f"""
SELECT c.hub_id FROM {_RANGES} JOIN tokenkeeper.connections AS c ON c.hub_id BETWEEN low AND high LIMIT :limit
"""


@dataclass(frozen=True, slots=True)
class Order:
    """What a list is sorted by; the last of its key is always the hub."""

    key: tuple[str, ...]
    downwards: bool = False
    only: str = "true"
    source: str = _CONNECTIONS


_TRIED = "c.status IN ('active', 'suspect')"
ORDERS = {
    Sort.HUB: Order(("c.hub_id",)),
    Sort.DOMAIN: Order(("a.sort_key", "a.hub_id"), source=_BOTH),
    Sort.DUE: Order(("c.due_at", "c.hub_id"), only=f"c.due_at IS NOT NULL AND {_TRIED}"),
    Sort.FAILURES: Order(("c.failures", "c.hub_id"), downwards=True, only=f"c.failures > 0 AND {_TRIED}"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One page: `limit` rows past the one with the key `at`, or, backwards, up to it; then the nearest comes first."""

    sort: Sort
    status: Status | None
    at: tuple[Any, ...] | None
    backwards: bool
    limit: int

    @property
    def empty(self) -> bool:
        """Nobody in that state has what the list is sorted by."""
        return self.sort in (Sort.DUE, Sort.FAILURES) and self.status in (Status.REVOKED, Status.DISCONNECTED)


@dataclass(frozen=True, slots=True)
class Query:
    sql: str
    values: dict[str, Any] = field(default_factory=dict)


def walk(asked: Asked) -> Query:
    """Along the index of its order, or of its status."""
    return _page(asked, _settings(asked), ORDERS[asked.sort].source)


def walk_numbered(asked: Asked, digits: str) -> Query:
    """As `walk`, leaving out account numbers that do not begin so."""
    return _page(
        asked, _settings(asked), ORDERS[asked.sort].source, "CAST(c.hub_id AS text) LIKE :digits", digits=f"{digits}%"
    )


def walk_named(asked: Asked, text: str) -> Query:
    """As `walk`, leaving out names without this text."""
    return _page(asked, _settings(asked), _BOTH, "a.search_text LIKE :pattern", pattern=pattern(text))


def look(asked: Asked, found: Sequence[int]) -> Query:
    """At each of those."""
    return _page(asked, _SORT, _FOUND, found=list(found))


def in_ranges(asked: Asked, digits: str) -> Query:
    """By hub: a walk through each range of numbers that begin so."""
    where, values = _where(asked, ORDERS[Sort.HUB].key)
    source = f"""{_RANGES} CROSS JOIN LATERAL (
        SELECT c.hub_id FROM {_CONNECTIONS} WHERE c.hub_id BETWEEN low AND high AND {where}
         ORDER BY {_order(asked, ORDERS[Sort.HUB].key)} LIMIT :limit
    ) AS c"""
    anything = Asked(Sort.HUB, None, None, asked.backwards, asked.limit)
    return _page(anything, _SORT, source, **{**values, **ranges(digits)})


def ranges(digits: str) -> dict[str, list[int]]:
    """Between which numbers are those that begin with `digits`: the shortest first, up to a bigint's end."""
    low = high = int(digits)
    lows, highs = [], []
    while not digits.startswith("0") and low <= MAX_HUB_ID:
        lows.append(low)
        highs.append(min(high, MAX_HUB_ID))
        low, high = low * 10, high * 10 + 9
    return {"lows": lows, "highs": highs}


def pattern(text: str) -> str:
    """For LIKE, in which it means itself."""
    escaped = text.lower().replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
    return f"%{escaped}%"


def _settings(asked: Asked) -> str:
    rare = asked.status not in (None, Status.ACTIVE)
    return _SORT if rare and asked.sort is not Sort.HUB else _WALK


def _page(asked: Asked, settings: str, source: str, also: str = "true", **values: Any) -> Query:
    key = ORDERS[asked.sort].key
    where, bound = _where(asked, key)
    sql = PAGE.format(
        settings=settings,
        hub=key[-1],
        source=source,
        where=f"{where} AND {also}",
        order=_order(asked, key),
    )
    return Query(sql, {"limit": asked.limit, **bound, **values})


def _where(asked: Asked, key: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    conditions, values = [ORDERS[asked.sort].only], {}
    if asked.status is not None:
        conditions.append("c.status = :status")
        values["status"] = asked.status.value
    if asked.at is not None:
        names = [f"at{place}" for place in range(len(key))]
        past = "<" if _downwards(asked) else ">"
        conditions.append(f"({', '.join(key)}) {past} ({', '.join(f':{name}' for name in names)})")
        values |= dict(zip(names, asked.at, strict=True))
    return " AND ".join(conditions), values


def _order(asked: Asked, key: tuple[str, ...]) -> str:
    return ", ".join(f"{name} DESC" if _downwards(asked) else name for name in key)


def _downwards(asked: Asked) -> bool:
    return ORDERS[asked.sort].downwards is not asked.backwards
