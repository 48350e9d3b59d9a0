"""The query parameters of the list of connections: parsed from an address, and written into the links of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from shared.db.reports.connection_list import MAX_SEARCH_CHARACTERS, Sort
from shared.domain.connection import Status
from shared.domain.customer import parse_customer
from shared.domain.identity import APP_NAME

MAX_CURSOR_CHARACTERS = 2000


class InvalidListParams(Exception):
    """No page of this application links to such an address."""


@dataclass(frozen=True, slots=True)
class ListParams:
    status: Status | None = None
    app: str | None = None
    customer: str | None = None
    is_lacking_scopes: bool = False
    search: str = ""
    sort: Sort = Sort.HUB
    after: str | None = None  #: a cursor of ConnectionList
    before: str | None = None  #: the same; at most one of the two is set

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Self:
        """Raises InvalidListParams."""
        # Invisible characters come along when a person pastes a domain or an e-mail address.
        search = "".join(filter(str.isprintable, query.get("q", ""))).strip()
        if len(search) > MAX_SEARCH_CHARACTERS:
            raise InvalidListParams
        try:
            status = Status(query["status"]) if query.get("status") else None
            sort = Sort(query["sort"]) if query.get("sort") else Sort.HUB
            customer = parse_customer(query["customer"]) if query.get("customer") else None
        except ValueError:
            raise InvalidListParams from None
        app = query.get("app") or None
        if app is not None and not APP_NAME.fullmatch(app):
            raise InvalidListParams
        after, before = query.get("after") or None, query.get("before") or None
        if (after and before) or len(after or before or "") > MAX_CURSOR_CHARACTERS:
            raise InvalidListParams
        is_lacking_scopes = query.get("lacking") == "scopes"
        return cls(status, app, customer, is_lacking_scopes, search, sort, after, before)

    def next_page(self, after: str) -> ListParams:
        return replace(self, after=after, before=None)

    def previous_page(self, before: str) -> ListParams:
        return replace(self, after=None, before=before)

    def with_status(self, status: Status | None) -> ListParams:
        """The first page of the connections in that status; None: of all."""
        return replace(self, status=status, is_lacking_scopes=False, after=None, before=None)

    def without_filters(self) -> ListParams:
        """The first page of all apps and customers, whatever scopes they have."""
        return replace(self, app=None, customer=None, is_lacking_scopes=False, after=None, before=None)

    def lacking_scopes(self) -> ListParams:
        """The first page of the connections whose grant lacks a scope that the settings require."""
        return replace(self, status=None, is_lacking_scopes=True, after=None, before=None)

    def with_sort(self, sort: Sort) -> ListParams:
        """The first page in that order."""
        return replace(self, sort=sort, after=None, before=None)

    def to_query(self) -> dict[str, str]:
        """Parameters that have their default are left out."""
        values = {
            "status": self.status and self.status.value,
            "app": self.app,
            "customer": self.customer,
            "lacking": "scopes" if self.is_lacking_scopes else None,
            "q": self.search,
            "sort": None if self.sort is Sort.HUB else self.sort.value,
            "after": self.after,
            "before": self.before,
        }
        return {name: value for name, value in values.items() if value}
