"""The SQL of one page of the list of connections: which index is scanned, from which row, in which direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.db.reports.page_cursor import Sort
from shared.domain.connection import Status
from shared.domain.hub_id import MAX_HUB_ID

_CONNECTIONS = "tokenkeeper.connections AS c"
_BOTH = f"{_CONNECTIONS} JOIN tokenkeeper.accounts AS a ON a.connection_id = c.id"
#: OFFSET 0 makes the planner fetch these rows, and no others, before it sorts.
_MATCHES = """
(SELECT id, app, customer, hub_id, status, scopes, due_at, failures
   FROM tokenkeeper.connections WHERE id = ANY (CAST(:matches AS bigint[])) OFFSET 0) AS c
  JOIN tokenkeeper.accounts AS a ON a.connection_id = c.id
"""
_RANGES = "unnest(CAST(:lows AS bigint[]), CAST(:highs AS bigint[])) AS r(low, high)"
#: Only scans of an index in its order: a page is short, and statistics may be from before a backlog or an outage.
_SCAN_ONLY = """
SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off;
SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL jit = off;
"""
#: Of few rows, or of a rare status, the planner may fetch all and sort them.
_MAY_SORT = "SET LOCAL enable_seqscan = off; SET LOCAL jit = off;"

PAGE = """
{settings}
WITH page AS MATERIALIZED (
    SELECT id, row_number() OVER () AS place
      FROM ({rows}) AS rows
)
SELECT d.*, d.id AS connection_id
  FROM page JOIN tokenkeeper.connection_details AS d ON d.id = page.id
 ORDER BY page.place
"""
_ROWS = "SELECT {id} AS id FROM {source} WHERE {where} ORDER BY {order} LIMIT :limit"
#: Of each app its first ones, in the order of its part of the index; of those the first ones.
_ROWS_BY_APP = """
SELECT c.id FROM tokenkeeper.connection_counts AS n
 CROSS JOIN LATERAL (
     SELECT {first}, {id} AS id FROM {source} WHERE c.app = n.app AND {where} ORDER BY {order} LIMIT :limit
 ) AS c
 ORDER BY {order} LIMIT :limit
"""
#: Domain and installer are in `search_text`, in small letters; the account's name came later, and is not.
_MATCHES_NAME = "(a.search_text LIKE :pattern OR lower(a.account_name) LIKE :pattern)"
#: The connections that match a search, in no order.
FIND_NAMES = f"SELECT a.connection_id AS id FROM tokenkeeper.accounts AS a WHERE {_MATCHES_NAME} LIMIT :limit"
FIND_NUMBERS = f"""
SELECT c.id FROM {_RANGES} JOIN tokenkeeper.connections AS c ON c.hub_id BETWEEN low AND high LIMIT :limit
"""


@dataclass(frozen=True, slots=True)
class Order:
    """By which columns a list is sorted. The last of them is always the connection's id."""

    key: tuple[str, ...]
    is_descending: bool = False
    condition: str = "true"
    source: str = _CONNECTIONS
    is_by_app: bool = False  #: the index of this order has the app first


_IS_LIVE = "c.status IN ('active', 'suspect')"
ORDERS = {
    Sort.HUB: Order(("c.hub_id", "c.id")),
    Sort.DOMAIN: Order(("a.sort_key", "a.connection_id"), source=_BOTH),
    Sort.DUE: Order(("c.due_at", "c.id"), condition=f"c.due_at IS NOT NULL AND {_IS_LIVE}", is_by_app=True),
    Sort.FAILURES: Order(
        ("c.failures", "c.id"), is_descending=True, condition=f"c.failures > 0 AND {_IS_LIVE}", is_by_app=True
    ),
}


#: As in the view hubspot.connections.
_LACKS_SCOPES = f"""
{_IS_LIVE} AND c.scopes <> '{{}}'
AND EXISTS (SELECT FROM tokenkeeper.apps WHERE apps.app = c.app AND NOT apps.required_scopes <@ c.scopes)
"""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """`limit` rows after the row with the key `at` or, `backwards`, before it, the nearest row first."""

    sort: Sort
    status: Status | None
    at: tuple[Any, ...] | None
    backwards: bool
    limit: int
    app: str | None = None
    customer: str | None = None
    is_lacking_scopes: bool = False  #: only those whose grant lacks a scope that the settings require

    @property
    def is_empty(self) -> bool:
        """No connection of that status has the column by which the list is sorted."""
        return self.sort in (Sort.DUE, Sort.FAILURES) and self.status in (Status.REVOKED, Status.DISCONNECTED)


@dataclass(frozen=True, slots=True)
class Query:
    sql: str
    values: dict[str, Any] = field(default_factory=dict)


def scan(request: PageRequest) -> Query:
    """Scan the index of the order, or that of the status."""
    return _make_page(request, _choose_settings(request), ORDERS[request.sort].source)


def scan_with_digits(request: PageRequest, digits: str) -> Query:
    """As `scan`, only hub ids that begin with these digits."""
    return _make_page(
        request,
        _choose_settings(request),
        ORDERS[request.sort].source,
        "CAST(c.hub_id AS text) LIKE :digits",
        digits=f"{digits}%",
    )


def scan_with_text(request: PageRequest, text: str) -> Query:
    """As `scan`, only accounts whose domain, installer or name contains this text."""
    return _make_page(request, _choose_settings(request), _BOTH, _MATCHES_NAME, pattern=make_pattern(text))


def fetch(request: PageRequest, matches: Sequence[int]) -> Query:
    """Fetch these connections and sort them."""
    return _make_page(request, _MAY_SORT, _MATCHES, matches=list(matches))


def scan_ranges(request: PageRequest, digits: str) -> Query:
    """By hub id: scan each range of the hub ids that begin with these digits."""
    where, values = _make_condition(request, ORDERS[Sort.HUB].key)
    source = f"""{_RANGES} CROSS JOIN LATERAL (
        SELECT c.hub_id, c.id FROM {_CONNECTIONS} WHERE c.hub_id BETWEEN low AND high AND {where}
         ORDER BY {_make_order(request, ORDERS[Sort.HUB].key)} LIMIT :limit
    ) AS c"""
    any_row = PageRequest(Sort.HUB, None, None, request.backwards, request.limit)
    return _make_page(any_row, _MAY_SORT, source, **{**values, **split_ranges(digits)})


def split_ranges(digits: str) -> dict[str, list[int]]:
    """The ranges of the hub ids that begin with `digits`, the ids with the fewest digits first."""
    low = high = int(digits)
    lows, highs = [], []
    while not digits.startswith("0") and low <= MAX_HUB_ID:
        lows.append(low)
        highs.append(min(high, MAX_HUB_ID))
        low, high = low * 10, high * 10 + 9
    return {"lows": lows, "highs": highs}


def make_pattern(text: str) -> str:
    """For LIKE: any text that contains this one, with its special characters escaped."""
    escaped = text.lower().replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
    return f"%{escaped}%"


def _choose_settings(request: PageRequest) -> str:
    is_rare = request.status not in (None, Status.ACTIVE) and request.sort is not Sort.HUB
    return _MAY_SORT if is_rare or request.customer is not None else _SCAN_ONLY


def _make_page(request: PageRequest, settings: str, source: str, extra_condition: str = "true", **values: Any) -> Query:
    key, order = ORDERS[request.sort].key, _make_order(request, ORDERS[request.sort].key)
    where, bound = _make_condition(request, key)
    template = _ROWS
    if ORDERS[request.sort].is_by_app and request.app is None and request.customer is None and source != _MATCHES:
        template = _ROWS_BY_APP
    rows = template.format(id=key[-1], first=key[0], source=source, where=f"{where} AND {extra_condition}", order=order)
    return Query(PAGE.format(settings=settings, rows=rows), {"limit": request.limit, **bound, **values})


def _make_condition(request: PageRequest, key: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    conditions, values = [ORDERS[request.sort].condition], {}
    if request.status is not None:
        conditions.append("c.status = :status")
        values["status"] = request.status.value
    for name, value in (("app", request.app), ("customer", request.customer)):
        if value is not None:
            conditions.append(f"c.{name} = :{name}")
            values[name] = value
    if request.is_lacking_scopes:
        conditions.append(_LACKS_SCOPES)
    if request.at is not None:
        names = [f"at{place}" for place in range(len(key))]
        past = "<" if _is_descending(request) else ">"
        conditions.append(f"({', '.join(key)}) {past} ({', '.join(f':{name}' for name in names)})")
        values |= dict(zip(names, request.at, strict=True))
    return " AND ".join(conditions), values


def _make_order(request: PageRequest, key: tuple[str, ...]) -> str:
    return ", ".join(f"{name} DESC" if _is_descending(request) else name for name in key)


def _is_descending(request: PageRequest) -> bool:
    return ORDERS[request.sort].is_descending is not request.backwards
