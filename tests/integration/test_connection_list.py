"""The list of connections: every order, filter and search, page by page in both directions, by indexes."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from itertools import product

import pytest
from sqlalchemy import Engine, text

from shared.db.reports import connection_list_sql
from shared.db.reports.connection_list import BadCursor, ConnectionList, ConnectionPage, Sort
from shared.db.reports.connection_list_sql import PageRequest, Query
from shared.db.reports.connections import ConnectionRow
from shared.db.reports.page_cursor import encode_cursor
from shared.domain.connection import Status
from tests.support.stores import ConnectionFixture, SqlFixture

#: Connections of every status, with and without domain, due and failing, some with equal sort keys.
CONNECTIONS = """
INSERT INTO tokenkeeper.connections (hub_id, status, encrypted_refresh_token, due_at, failures)
SELECT n * 7, (ARRAY['active', 'active', 'active', 'suspect', 'revoked', 'disconnected'])[1 + n % 6], 'encrypted',
       CASE WHEN n % 6 < 4 AND n % 10 > 0 THEN now() + interval '1 minute' * (n % 5) END,
       CASE WHEN n % 4 = 0 THEN n % 3 + 1 ELSE 0 END
  FROM generate_series(1, {count}) AS n;
UPDATE tokenkeeper.accounts AS a
   SET hub_domain = CASE WHEN hub_id % 3 > 0 THEN 'Shop-' || hub_id % 11 || '.example' END,
       installed_by = CASE WHEN hub_id % 4 > 0 THEN 'mia' || hub_id || '@100%_sure.EXAMPLE' END,
       account_name = CASE WHEN hub_id % 5 > 0 THEN 'Compañía ' || hub_id % 13 END
  FROM tokenkeeper.connections AS c WHERE c.id = a.connection_id
"""


@pytest.fixture
def directory(engine: Engine) -> ConnectionList:
    return ConnectionList(engine)


def people(sql: SqlFixture, count: int) -> None:
    sql.rows(CONNECTIONS.format(count=count))


def read_all_pages(directory: ConnectionList, **asked: object) -> Iterator[ConnectionPage]:
    """All pages from the first to the last."""
    page = directory.read_page(**asked)
    yield page
    while page.after:
        page = directory.read_page(after=page.after, **asked)
        yield page


def hubs(pages: Iterator[ConnectionPage] | list[ConnectionPage]) -> list[int]:
    return [seen.hub_id for page in pages for seen in page.connections]


def find_expected(connections_listed: list[ConnectionRow], status: Status | None, search: str, sort: Sort) -> list[int]:
    """The expected hubs, computed in Python."""

    def matches(seen: ConnectionRow) -> bool:
        if search.isdigit():
            return str(seen.hub_id).startswith(search)
        return any(
            search.lower() in (name or "").lower() for name in (seen.hub_domain, seen.installed_by, seen.account_name)
        )

    shown = [seen for seen in connections_listed if status in (None, seen.status) and matches(seen)]
    match sort:
        case Sort.HUB:
            shown.sort(key=lambda seen: seen.hub_id)
        case Sort.DOMAIN:
            shown.sort(key=lambda seen: (seen.hub_domain is None, (seen.hub_domain or "").lower(), seen.hub_id))
        case Sort.DUE:
            shown = [seen for seen in shown if seen.next_refresh_at]
            shown.sort(key=lambda seen: (seen.next_refresh_at, seen.hub_id))
        case Sort.FAILURES:
            shown = [seen for seen in shown if seen.failures and seen.status in (Status.ACTIVE, Status.SUSPECT)]
            shown.sort(key=lambda seen: (-seen.failures, -seen.hub_id))
    return [seen.hub_id for seen in shown]


def test_every_sort_order_filter_and_search_lists_the_right_connections_in_pages(
    directory: ConnectionList, sql: SqlFixture
) -> None:
    people(sql, 150)
    connections_listed = directory.read_page(limit=1000).connections
    assert len(connections_listed) == 150
    statuses = (None, *Status)
    for status, search, sort in product(
        statuses, ("", "7", "63", "0", "SHOP-1", "compañía 1", "100%_sure", "%", "ö"), Sort
    ):
        pages = list(read_all_pages(directory, status=status, search=search, sort=sort, limit=9))
        assert hubs(pages) == find_expected(connections_listed, status, search, sort), (status, search, sort)
        assert all(len(page.connections) == 9 for page in pages[:-1])


@pytest.mark.parametrize("sort", Sort)
def test_paging_backwards_shows_the_same_pages(directory: ConnectionList, sql: SqlFixture, sort: Sort) -> None:
    people(sql, 100)
    for asked in ({}, {"status": Status.SUSPECT}, {"search": "shop-1"}, {"search": "1"}):
        there = list(read_all_pages(directory, sort=sort, limit=4, **asked))
        assert (there[0].before, there[-1].after) == (None, None)
        page, back = there[-1], [there[-1]]
        while page.before:
            page = directory.read_page(before=page.before, sort=sort, limit=4, **asked)
            back.append(page)
        assert hubs(back[::-1]) == hubs(there)


def encode(value: object) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("sort", "garbage"),
    [
        *((Sort.HUB, text) for text in ("", "!", "=", "é", "A" * 5000, "W" * 1499, "\0", "AAAA")),
        (Sort.HUB, urlsafe_b64encode(b"[" * 1100).decode()),
        (Sort.HUB, encode(7)),
        (Sort.HUB, encode([])),
        (Sort.HUB, encode(["hub"])),
        (Sort.HUB, encode(["hub", 1, 2, 3])),
        (Sort.HUB, encode(["due", 1])),
        (Sort.HUB, encode({"hub": 1})),
        *((Sort.HUB, encode(["hub", 1, each])) for each in (True, None, -1, 2**63, 1.5, "1", "1); DROP TABLE x", [1])),
        *((Sort.DUE, encode(["due", each, 1])) for each in (1, None, "now", "2026-11-24T00:00:00", "infinity")),
        *((Sort.FAILURES, encode(["failures", each, 1])) for each in ("1", False, -1, 10**30)),
        *((Sort.DOMAIN, encode(["domain", each, 1])) for each in (1, None, "a\0", "\ud800")),
    ],
)
def test_an_invalid_cursor_is_refused(directory: ConnectionList, sort: Sort, garbage: str) -> None:
    for where in ({"after": garbage}, {"before": garbage}):
        with pytest.raises(BadCursor):
            directory.read_page(sort=sort, **where)


def test_the_values_of_a_cursor_are_bound_and_never_part_of_the_sql(directory: ConnectionList, sql: SqlFixture) -> None:
    people(sql, 10)
    quoted = encode_cursor(Sort.DOMAIN, ["\tz' OR true --", 1])
    assert len(directory.read_page(sort=Sort.DOMAIN, after=quoted).connections) == 3, "those without a domain"
    assert directory.read_page(search="' OR true --").connections == []
    assert directory.read_page(search="\0\ud800\n").connections != [], "nothing is left of it"


def test_a_page_whose_rows_are_gone_leads_back(directory: ConnectionList, sql: SqlFixture) -> None:
    people(sql, 10)
    page = directory.read_page(limit=4)
    sql.rows("DELETE FROM tokenkeeper.connections WHERE hub_id > 21")
    after = directory.read_page(after=page.after, limit=4)
    assert (after.connections, after.after) == ([], None)
    assert hubs([directory.read_page(before=after.before, limit=4)]) == [7, 14, 21]
    assert sql.value("SELECT count(*) FROM tokenkeeper.accounts") == 3, "whose account it was goes with it"


def test_a_hub_without_account_info_is_in_every_sort_order(
    directory: ConnectionList, connections: ConnectionFixture
) -> None:
    connections.import_due(1)
    for sort in (Sort.HUB, Sort.DOMAIN, Sort.DUE):
        assert hubs([directory.read_page(sort=sort)]) == [1]


def test_a_hub_without_a_row_of_account_info_is_in_the_list(
    directory: ConnectionList, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    """Every connection has one from the start, unless an operator deletes it by SQL."""
    connections.import_due(1)
    sql.rows("DELETE FROM tokenkeeper.accounts")
    sql.set("failures = 1")
    for asked in ({}, {"sort": Sort.DUE}, {"sort": Sort.FAILURES}, {"search": "1"}):
        assert hubs([directory.read_page(**asked)]) == [1]
    connections.stores.account_info.claim_missing(1)
    connections.stores.save_account_info(1, "acme.example", None)
    assert hubs([directory.read_page(sort=Sort.DOMAIN)]) == [1]


#: Where autovacuum saw the table of a test before, which was empty, PostgreSQL expects one row, and would take minutes.
NAME_ACCOUNTS = """;
SET LOCAL enable_nestloop = off;
UPDATE tokenkeeper.accounts AS a SET hub_domain = 'shop-' || hub_id || '.example'
  FROM tokenkeeper.connections AS c WHERE c.id = a.connection_id
"""
MANY = f"""
INSERT INTO tokenkeeper.connections (hub_id, status, encrypted_refresh_token, due_at, failures)
SELECT n, CASE WHEN n % 500 = 0 THEN 'suspect' WHEN n % 300 = 1 THEN 'revoked' ELSE 'active' END, 'encrypted',
       now() + interval '1 second' * (n % 1100), CASE WHEN n % 1000 = 7 THEN 1 ELSE 0 END
  FROM generate_series(1, 50000) AS n {NAME_ACCOUNTS}
"""


def plan(engine: Engine, query: Query) -> str:
    """PostgreSQL's plan, with the settings of the query."""
    before, _, statement = query.sql.partition("WITH page")
    with engine.begin() as connection:
        connection.exec_driver_sql(before)
        rows = connection.execute(text(f"EXPLAIN WITH page{statement}"), query.values)
        return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("analyzed", [True, False])
def test_a_page_is_read_along_an_index(
    directory: ConnectionList, engine: Engine, sql: SqlFixture, analyzed: bool
) -> None:
    """Also with the statistics of a table that has lost all rows: an outage or an import is faster than ANALYZE."""
    if not analyzed:
        sql.rows("INSERT INTO tokenkeeper.connections (hub_id, status, due_at) VALUES (7, 'disconnected', now())")
        sql.rows("DELETE FROM tokenkeeper.connections")
        sql.rows("ALTER TABLE tokenkeeper.connections SET (autovacuum_enabled = false)")
        sql.rows("ANALYZE tokenkeeper.connections, tokenkeeper.accounts")
    sql.rows(MANY)
    if analyzed:
        sql.rows("ANALYZE tokenkeeper.connections, tokenkeeper.accounts")
    expected = {
        (Sort.HUB, None): "connections_identity",
        (Sort.HUB, Status.ACTIVE): "connections_identity",
        (Sort.HUB, Status.REVOKED): "connections_not_active",
        (Sort.DUE, None): "connections_due",
        (Sort.DUE, Status.ACTIVE): "connections_due",
        (Sort.FAILURES, None): "connections_failing",
        (Sort.FAILURES, Status.ACTIVE): "connections_failing",
        (Sort.DOMAIN, None): "accounts_sorted",
        (Sort.DOMAIN, Status.ACTIVE): "accounts_sorted",
    }
    keys = {Sort.HUB: (9, 9), Sort.DUE: (sql.now(), 9), Sort.FAILURES: (1, 9), Sort.DOMAIN: ("\tshop", 9)}
    for (sort, status), index in expected.items():
        for at, backwards in ((None, False), (keys[sort], False), (keys[sort], True)):
            query_plan = plan(engine, connection_list_sql.scan(PageRequest(sort, status, at, backwards, 51)))
            page = query_plan.partition("CTE page")[2].partition("CTE Scan")[0]
            assert index in page, query_plan
            assert "Seq Scan" not in query_plan, query_plan
            # By hub, the few connections of one hub are sorted: the index has them next to each other.
            # The indexes by due time and by failures have the app first: the first rows of each app are merged.
            assert page.count("Sort  (") == (sort is not Sort.DOMAIN and status is not Status.REVOKED), query_plan


def test_a_rare_status_is_read_by_its_index(engine: Engine, sql: SqlFixture) -> None:
    sql.rows(MANY)
    sql.rows("ANALYZE tokenkeeper.connections, tokenkeeper.accounts")
    for sort in (Sort.HUB, Sort.DOMAIN, Sort.FAILURES):
        query_plan = plan(engine, connection_list_sql.scan(PageRequest(sort, Status.REVOKED, None, False, 51)))
        assert "Seq Scan" not in query_plan, query_plan


def test_a_search_that_thousands_of_ids_and_names_match_is_sorted_and_paged(
    directory: ConnectionList, sql: SqlFixture
) -> None:
    sql.rows(f"""
        INSERT INTO tokenkeeper.connections (hub_id, status, encrypted_refresh_token, due_at)
        SELECT n, 'active', 'encrypted', now() + interval '1 second' * (30000 - n)
          FROM generate_series(10000, 30001) AS n {NAME_ACCOUNTS}
    """)
    ids = directory.read_page(search="1", sort=Sort.DUE)
    assert hubs([ids])[:3] == [19_999, 19_998, 19_997]
    names = directory.read_page(search="shop-", sort=Sort.DUE)
    assert hubs([names])[:3] == [30_001, 30_000, 29_999]
    assert hubs([directory.read_page(search="shop-", sort=Sort.DUE, after=names.after)])[0] < hubs([names])[-1]
