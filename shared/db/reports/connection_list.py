"""The list of connections: sorted, filtered, searched, in pages that cost the same with ten rows and with a million.

A page is read along an index. A search for a name scans the accounts, whose rows are short. Where few match, their
connections are fetched and sorted; where many match, a scan of the index of the sort order soon meets some.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Engine, Row

from shared.db.core.statements import Database, single_statement
from shared.db.reports import connection_list_sql
from shared.db.reports.connection_list_sql import ORDERS, PageRequest, Query
from shared.db.reports.connections import ConnectionRow, make_connection_row
from shared.db.reports.page_cursor import BadCursor, Sort, decode_cursor, encode_cursor
from shared.domain.connection import Status

__all__ = ["BadCursor", "ConnectionList", "ConnectionPage", "Sort"]

#: Up to so many matches of a search are fetched and sorted. Fewer of numbers: hub ids that begin alike are scattered
#: over the index of the sort order, so that a scan soon meets one; names may be far from each other there.
MAX_NAME_MATCHES, MAX_NUMBER_MATCHES = 20_000, 5_000
#: The longest stored name.
MAX_SEARCH_CHARACTERS = 320


@dataclass(frozen=True, slots=True)
class ConnectionPage:
    connections: list[ConnectionRow]
    before: str | None  #: cursor of the previous page; None: this is the first
    after: str | None  #: cursor of the next page; None: this is the last


class ConnectionList:
    """Every method raises StoreUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def read_page(
        self,
        *,
        status: Status | None = None,
        app: str | None = None,
        customer: str | None = None,
        is_lacking_scopes: bool = False,
        search: str = "",
        sort: Sort = Sort.HUB,
        after: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> ConnectionPage:
        """The page after the cursor `after`, or the one before the cursor `before`. Raises BadCursor.

        Cursors are of a page with the same `sort`. `search`: digits are the beginning of the hub id; any other text is
        a part of the account's name or domain or of the installer's e-mail address, in upper or lower case.
        """
        backwards = before is not None and after is None
        at = before if backwards else after
        key = None if at is None else decode_cursor(sort, at)
        request = PageRequest(sort, status, key, backwards, limit + 1, app, customer, is_lacking_scopes)
        text = _clean_search(search)
        rows = self._read_rows(request, text)
        if backwards and len(rows) <= limit:  # less than a page is left: show a full first page
            at, backwards = None, False
            rows = self._read_rows(replace(request, at=None, backwards=False), text)
        rows_shown = rows[:limit][::-1] if backwards else rows[:limit]
        if not rows_shown:
            return ConnectionPage([], before=after, after=None)
        return ConnectionPage(
            [make_connection_row(row) for row in rows_shown],
            before=None if at is None else _make_cursor(sort, rows_shown[0]),
            after=_make_cursor(sort, rows_shown[-1]) if backwards or len(rows) > limit else None,
        )

    def _read_rows(self, request: PageRequest, search: str) -> Sequence[Row[Any]]:
        if request.is_empty:
            return ()
        if not search:
            return self._query(connection_list_sql.scan(request))
        if search.isascii() and search.isdigit():
            return self._search_numbers(request, search)
        return self._search_names(request, search)

    def _search_numbers(self, request: PageRequest, digits: str) -> Sequence[Row[Any]]:
        if request.sort is Sort.HUB:
            return self._query(connection_list_sql.scan_ranges(request, digits))
        matches = self._query(
            Query(
                connection_list_sql.FIND_NUMBERS,
                {**connection_list_sql.split_ranges(digits), "limit": MAX_NUMBER_MATCHES + 1},
            )
        )
        if len(matches) > MAX_NUMBER_MATCHES:
            return self._query(connection_list_sql.scan_with_digits(request, digits))
        return self._query(connection_list_sql.fetch(request, [row.id for row in matches]))

    def _search_names(self, request: PageRequest, text: str) -> Sequence[Row[Any]]:
        matches = self._query(
            Query(
                connection_list_sql.FIND_NAMES,
                {"pattern": connection_list_sql.make_pattern(text), "limit": MAX_NAME_MATCHES + 1},
            )
        )
        if len(matches) > MAX_NAME_MATCHES:
            return self._query(connection_list_sql.scan_with_text(request, text))
        return self._query(connection_list_sql.fetch(request, [row.id for row in matches]))

    def _query(self, query: Query) -> Sequence[Row[Any]]:
        return self._database.execute(single_statement(query.sql), **query.values)


def _make_cursor(sort: Sort, row: Row[Any]) -> str:
    return encode_cursor(sort, [getattr(row, name.partition(".")[2]) for name in ORDERS[sort].key])


def _clean_search(search: str) -> str:
    """Without characters that no name contains and PostgreSQL refuses: line ends, NUL, lone surrogates."""
    return "".join(character for character in search if character.isprintable()).strip()[:MAX_SEARCH_CHARACTERS]
