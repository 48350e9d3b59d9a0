"""The list of connections: sorted, filtered, searched, in pages that cost the same at ten rows and at a million.

A page is a walk along an index. What is sought in names is one scan of the accounts, which are narrow, and, where few
are found, a look at each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Row

from shared.db.core.statements import Database, single_statement
from shared.db.reports import connection_list_sql
from shared.db.reports.connection_list_sql import ORDERS, Asked, Query
from shared.db.reports.connections import ConnectionRow, connection_row
from shared.db.reports.page_cursor import BadCursor, Sort, cursor, position
from shared.domain.connection import Status

__all__ = ["BadCursor", "ConnectionList", "ConnectionPage", "Sort"]

#: With no more found than so many, each is looked at; of more, a walk along an index soon meets some. Names may stand
#: in the list's own order, numbers that begin alike do not: so more of the former are looked at.
FEW_NAMED, FEW_NUMBERED = 20_000, 5_000
#: No name that is kept is longer.
LONGEST_SEARCH = 320


@dataclass(frozen=True, slots=True)
class ConnectionPage:
    connections: list[ConnectionRow]
    before: str | None  #: cursor of the page before; None: this is the first
    after: str | None  #: cursor of the page after; None: this is the last


class ConnectionList:
    """Raises StoreUnavailable where PostgreSQL does not answer."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def read_page(
        self,
        *,
        status: Status | None = None,
        search: str = "",
        sort: Sort = Sort.HUB,
        after: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> ConnectionPage:
        """From `after` on, or else up to `before`: cursors of a listing that was sorted alike. Raises BadCursor.

        `search`: digits are what the account number begins with. Any other text stands somewhere in the domain or in
        the installer's e-mail address, in capitals or not.
        """
        backwards = before is not None and after is None
        at = before if backwards else after
        asked = Asked(sort, status, None if at is None else position(sort, at), backwards, limit + 1)
        rows = self._rows(asked, _plain(search))
        if backwards and len(rows) <= limit:
            return self.read_page(status=status, search=search, sort=sort, limit=limit)  # the first, and a full one
        shown = rows[:limit][::-1] if backwards else rows[:limit]
        if not shown:
            return ConnectionPage([], before=after, after=None)
        return ConnectionPage(
            [connection_row(row) for row in shown],
            before=None if at is None else _cursor(sort, shown[0]),
            after=_cursor(sort, shown[-1]) if backwards or len(rows) > limit else None,
        )

    def _rows(self, asked: Asked, search: str) -> Sequence[Row[Any]]:
        if asked.empty:
            return ()
        if not search:
            return self._ask(connection_list_sql.walk(asked))
        if search.isascii() and search.isdigit():
            return self._numbered(asked, search)
        return self._named(asked, search)

    def _numbered(self, asked: Asked, digits: str) -> Sequence[Row[Any]]:
        if asked.sort is Sort.HUB:
            return self._ask(connection_list_sql.in_ranges(asked, digits))
        found = self._ask(
            Query(connection_list_sql.NUMBERED, {**connection_list_sql.ranges(digits), "limit": FEW_NUMBERED + 1})
        )
        if len(found) > FEW_NUMBERED:
            return self._ask(connection_list_sql.walk_numbered(asked, digits))
        return self._ask(connection_list_sql.look(asked, [row.hub_id for row in found]))

    def _named(self, asked: Asked, text: str) -> Sequence[Row[Any]]:
        found = self._ask(
            Query(connection_list_sql.NAMED, {"pattern": connection_list_sql.pattern(text), "limit": FEW_NAMED + 1})
        )
        if len(found) > FEW_NAMED:
            return self._ask(connection_list_sql.walk_named(asked, text))
        return self._ask(connection_list_sql.look(asked, [row.hub_id for row in found]))

    def _ask(self, query: Query) -> Sequence[Row[Any]]:
        return self._database.execute(single_statement(query.sql), **query.values)


def _cursor(sort: Sort, row: Row[Any]) -> str:
    return cursor(sort, [getattr(row, name.partition(".")[2]) for name in ORDERS[sort].key])


def _plain(search: str) -> str:
    """Without what no name contains, and PostgreSQL would not take: line ends, NUL, lone surrogates."""
    return "".join(each for each in search if each.isprintable()).strip()[:LONGEST_SEARCH]
