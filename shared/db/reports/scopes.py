"""Which connections lack scopes that their app requires."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from shared.db.core.statements import Database, single_statement
from shared.domain.connection import Status
from shared.domain.identity import ConnectionIdentity

PAGE_ROWS = 500


@dataclass(frozen=True, slots=True)
class LackingConnection:
    """Active or suspect."""

    identity: ConnectionIdentity
    customer: str | None
    status: Status
    scopes: tuple[str, ...]
    missing_scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScopeCounts:
    """How many active and suspect connections of an app lack scopes; above half a million an estimate."""

    app: str
    lacking: int
    by_scope: dict[str, int]
    counted_at: datetime | None  #: None: not yet


_IS_BEHIND = "(hub_id, app, coalesce(user_id, 0)) > (:hub_id, :app, coalesce(CAST(:user_id AS bigint), 0))"
LACKING = single_statement(f"""
SELECT hub_id, app, user_id, customer, status, scopes, missing_scopes FROM hubspot.connections
 WHERE missing_scopes <> '{{}}' AND status IN ('active', 'suspect')
   AND (CAST(:only_app AS text) IS NULL OR app = :only_app) AND hub_id >= :hub_id AND {_IS_BEHIND}
 ORDER BY hub_id, app, coalesce(user_id, 0) LIMIT {PAGE_ROWS}
""")
COUNTS = single_statement("SELECT app, lacking, lacking_by_scope, counted_at FROM tokenkeeper.apps ORDER BY app")


class ScopeReports:
    """Every method raises StoreUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def read_lacking(self, app: str | None = None) -> Iterator[Sequence[LackingConnection]]:
        """Page by page, by hub id. `app`: of this one alone."""
        after = ConnectionIdentity("", -1)
        while page := self._read_page(after, app):
            yield page
            after = page[-1].identity

    def read_counts(self) -> list[ScopeCounts]:
        rows = self._database.execute(COUNTS)
        return [ScopeCounts(row.app, row.lacking, row.lacking_by_scope, row.counted_at) for row in rows]

    def _read_page(self, after: ConnectionIdentity, app: str | None) -> list[LackingConnection]:
        values = {"hub_id": after.hub_id, "app": after.app, "user_id": after.user_id}
        return [
            LackingConnection(
                ConnectionIdentity(row.app, row.hub_id, row.user_id),
                row.customer,
                Status(row.status),
                tuple(row.scopes),
                tuple(row.missing_scopes),
            )
            for row in self._database.execute(LACKING, only_app=app, **values)
        ]
