"""The list of connections: every order, filter and search, page by page in both directions, by indexes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from sqlalchemy import Engine

from shared.db.directory import Directory, Listing, Sort
from shared.db.roster import ConnectionSeen
from shared.domain.connection import Status
from tests.integration.store_rig import Sql

#: Of every kind some: statuses, with and without domain, due, failing; several due and failing alike.
PEOPLE = """
INSERT INTO tokenkeeper.connections (hub_id, status, sealed_refresh_token, due_at, failures)
SELECT n * 7, (ARRAY['active', 'active', 'active', 'suspect', 'revoked', 'disconnected'])[1 + n % 6], 'sealed',
       CASE WHEN n % 6 < 4 AND n % 10 > 0 THEN now() + interval '1 minute' * (n % 5) END,
       CASE WHEN n % 4 = 0 THEN n % 3 + 1 ELSE 0 END
  FROM generate_series(1, {count}) AS n;
UPDATE tokenkeeper.accounts
   SET hub_domain = CASE WHEN hub_id % 3 > 0 THEN 'Shop-' || hub_id % 11 || '.example' END,
       installed_by = CASE WHEN hub_id % 4 > 0 THEN 'mia' || hub_id || '@100%_sure.EXAMPLE' END
"""


@pytest.fixture
def directory(engine: Engine) -> Directory:
    return Directory(engine)


def people(sql: Sql, count: int) -> None:
    sql.rows(PEOPLE.format(count=count))


def walked(directory: Directory, **asked: object) -> Iterator[Listing]:
    """Every page from the first to the last."""
    page = directory.page(**asked)
    yield page
    while page.after:
        page = directory.page(after=page.after, **asked)
        yield page


def hubs(pages: Iterator[Listing] | list[Listing]) -> list[int]:
    return [seen.hub_id for page in pages for seen in page.connections]


def expected(everybody: list[ConnectionSeen], status: Status | None, search: str, sort: Sort) -> list[int]:
    """The same, said in Python of all of them."""

    def found(seen: ConnectionSeen) -> bool:
        if search.isdigit():
            return str(seen.hub_id).startswith(search)
        return any(search.lower() in (name or "").lower() for name in (seen.hub_domain, seen.installed_by))

    shown = [seen for seen in everybody if status in (None, seen.status) and found(seen)]
    match sort:
        case Sort.HUB:
            shown.sort(key=lambda seen: seen.hub_id)
        case Sort.DOMAIN:
            shown.sort(key=lambda seen: (seen.hub_domain is None, (seen.hub_domain or "").lower(), seen.hub_id))
        case Sort.DUE:
            shown = [seen for seen in shown if seen.next_refresh_at]
            shown.sort(key=lambda seen: (seen.next_refresh_at, seen.hub_id))
        case Sort.FAILURES:
            shown = [seen for seen in shown if seen.failures]
            shown.sort(key=lambda seen: (-seen.failures, -seen.hub_id))
    return [seen.hub_id for seen in shown]


def test_every_order_filter_and_search_shows_whom_it_should_in_pages(directory: Directory, sql: Sql) -> None:
    people(sql, 150)
    everybody = directory.page(limit=1000).connections
    assert len(everybody) == 150
    statuses = (None, *Status)
    for status, search, sort in product(statuses, ("", "7", "63", "0", "SHOP-1", "100%_sure", "%", "ö"), Sort):
        pages = list(walked(directory, status=status, search=search, sort=sort, limit=9))
        assert hubs(pages) == expected(everybody, status, search, sort), (status, search, sort)
        assert all(len(page.connections) == 9 for page in pages[:-1])


@pytest.mark.parametrize("sort", Sort)
def test_the_way_back_shows_the_same_pages(directory: Directory, sql: Sql, sort: Sort) -> None:
    people(sql, 100)
    for asked in ({}, {"status": Status.SUSPECT}, {"search": "shop-1"}, {"search": "1"}):
        there = list(walked(directory, sort=sort, limit=4, **asked))
        assert (there[0].before, there[-1].after) == (None, None)
        page, back = there[-1], [there[-1]]
        while page.before:
            page = directory.page(before=page.before, sort=sort, limit=4, **asked)
            back.append(page)
        assert hubs(back[::-1]) == hubs(there)
