"""What the list of connections is asked for: from an address to a question, and back to the links of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from shared.db.reports.connection_list import Sort
from shared.domain.connection import Status

#: Characters: longer than any domain or e-mail address.
LONGEST_SEARCH = 320
LONGEST_CURSOR = 2000


class BadQuery(Exception):
    """No page of ours links to this."""


@dataclass(frozen=True, slots=True)
class ListParams:
    status: Status | None = None
    search: str = ""
    sort: Sort = Sort.HUB
    after: str | None = None
    before: str | None = None

    @classmethod
    def of(cls, args: Mapping[str, str]) -> Self:
        """Raises BadQuery."""
        # What was pasted along and nobody sees is not looked for.
        search = "".join(filter(str.isprintable, args.get("q", ""))).strip()
        if len(search) > LONGEST_SEARCH:
            raise BadQuery
        try:
            status = Status(args["status"]) if args.get("status") else None
            sort = Sort(args["sort"]) if args.get("sort") else Sort.HUB
        except ValueError:
            raise BadQuery from None
        after, before = args.get("after") or None, args.get("before") or None
        if (after and before) or len(after or before or "") > LONGEST_CURSOR:
            raise BadQuery
        return cls(status, search, sort, after, before)

    def first(self) -> ListParams:
        """The same question, its first page."""
        return replace(self, after=None, before=None)

    def next(self, after: str) -> ListParams:
        return replace(self, after=after, before=None)

    def previous(self, before: str) -> ListParams:
        return replace(self, after=None, before=before)

    def of_status(self, status: Status | None) -> ListParams:
        return replace(self.first(), status=status)

    def sorted_by(self, sort: Sort) -> ListParams:
        return replace(self.first(), sort=sort)

    def args(self) -> dict[str, str]:
        """For an address: without what is as usual."""
        said = {
            "status": self.status and self.status.value,
            "q": self.search,
            "sort": None if self.sort is Sort.HUB else self.sort.value,
            "after": self.after,
            "before": self.before,
        }
        return {name: value for name, value in said.items() if value}
