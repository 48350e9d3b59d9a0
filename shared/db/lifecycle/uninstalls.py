"""Acts on reported uninstalls: lock, re-read, decide, save.

A report alone revokes nothing: the connection is refreshed, and HubSpot's introspection decides.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from shared.db.core.statements import Database, single_statement
from shared.domain.connection import Status
from shared.domain.journal import GrantFacts, ReportedUninstall, UninstallDecision, decide_uninstall

#: Reports that one transaction acts upon: each may lock a row.
BATCH_ROWS = 500
#: A report of an account that has no connection waits so long: its install may still be in the queue.
UNKNOWN_HUB_WAIT = timedelta(minutes=10)
#: Reports are kept for longer than HubSpot keeps the entries, so that one that is read again is recognised.
KEPT_FOR = "4 days"
#: Connections that one search for those not heard of looks through.
SEARCH_ROWS = 5000
#: The witness of a report that the journal did not make.
INTROSPECTION = "introspection"
#: A lease that ends later was given out by a clock that was ahead: as in shared/db/refresh/claims.py.
_MAX_LEASE_SECONDS = "2 * :lease_seconds + 60"

READ_UNSETTLED = text(f"""
SELECT id, hub_id, user_id, occurred_at, reported_at, witness, now() AS now FROM tokenkeeper.reported_uninstalls
 WHERE app = :app AND settled_at IS NULL AND id > :after ORDER BY id LIMIT {BATCH_ROWS} FOR UPDATE SKIP LOCKED
""")
FIND_CONNECTIONS = text("""
SELECT id, hub_id FROM tokenkeeper.connections
 WHERE app = :app AND hub_id = ANY (CAST(:hub_ids AS bigint[]))
""")
#: One that another transaction has locked, or a worker is refreshing, is left to a later batch.
LOCK_CONNECTIONS = text(f"""
SELECT id, hub_id, user_id, status, installed_at, refreshed_at FROM tokenkeeper.connections
 WHERE id = ANY (CAST(:ids AS bigint[]))
   AND (lease_until IS NULL OR lease_until <= now()
        OR lease_until > now() + make_interval(secs => {_MAX_LEASE_SECONDS}))
 ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
""")
#: Due now: the refresh is answered by another refusal, and introspection confirms it, or by a token.
MAKE_DUE = text("""
UPDATE tokenkeeper.connections SET due_at = least(due_at, greatest(now(), retry_not_before))
 WHERE id = ANY (CAST(:ids AS bigint[]))
""")
MAKE_SUSPECT = text("""
WITH report AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:reasons AS text[]), CAST(:details AS text[]))
                  AS report(id, reason, detail)
), suspected AS (
    UPDATE tokenkeeper.connections AS c
       SET status = 'suspect', status_since = clock_timestamp(), status_reason = report.reason,
           due_at = least(c.due_at, greatest(now(), c.retry_not_before))
      FROM report WHERE c.id = report.id
    RETURNING c.id, c.app, c.hub_id, c.user_id, c.customer, report.detail
)
INSERT INTO tokenkeeper.history (app, hub_id, user_id, customer, event, detail, status)
SELECT app, hub_id, user_id, customer, 'suspected', CAST(detail AS jsonb), 'suspect' FROM suspected ORDER BY id
""")
SETTLE = text("""
UPDATE tokenkeeper.reported_uninstalls SET settled_at = now() WHERE id = ANY (CAST(:ids AS bigint[]))
""")
HAS_BACKLOG = single_statement(f"""
SELECT count(*) > {BATCH_ROWS} FROM (
    SELECT FROM tokenkeeper.connections WHERE app = :app AND due_at <= now() LIMIT {BATCH_ROWS + 1}
) AS due
""")
IS_BRAKE_ON = single_statement("""
SELECT EXISTS (SELECT FROM tokenkeeper.provider WHERE app = :app AND brake_since IS NOT NULL)
""")
PRUNE = single_statement(f"""
DELETE FROM tokenkeeper.reported_uninstalls WHERE reported_at < now() - interval '{KEPT_FOR}'
""")
FIND_UNHEARD = single_statement(f"""
WITH page AS MATERIALIZED (
    SELECT id, app, hub_id, user_id, status, refreshed_at, encrypted_refresh_token FROM tokenkeeper.connections
     WHERE id > :after ORDER BY id LIMIT {SEARCH_ROWS}
)
SELECT id, hub_id, user_id, encrypted_refresh_token, (SELECT max(id) FROM page) AS page_end, now() AS now,
       (SELECT count(*) FROM page) = {SEARCH_ROWS} AS has_more
  FROM (SELECT 1) AS always
  LEFT JOIN (SELECT * FROM page
              WHERE app = :app AND status = 'active' AND encrypted_refresh_token IS NOT NULL
                AND coalesce(refreshed_at < CAST(:unheard_since AS timestamptz), true)
              ORDER BY id LIMIT :limit) AS unheard ON true
 ORDER BY id
""")
REPORT_INACTIVE = single_statement(f"""
INSERT INTO tokenkeeper.reported_uninstalls (app, hub_id, user_id, occurred_at, witness)
VALUES (:app, :hub_id, :user_id, :at, '{INTROSPECTION}') ON CONFLICT DO NOTHING
""")


@dataclass(frozen=True, slots=True)
class SettledBatch:
    """What became of some reports."""

    last_id: int = 0  #: of the reports looked at
    is_full: bool = False  #: there may be more after `last_id`
    suspected: int = 0  #: connections that became suspect, and are due now
    checked: int = 0  #: connections that are due now, of the same status as before
    deferred: int = 0  #: reports whose connections are being refreshed, or locked by another transaction


@dataclass(frozen=True, slots=True)
class UnheardConnection:
    """A connection that an entry may have been lost about."""

    id: int
    hub_id: int
    user_id: int | None
    encrypted_refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class UnheardPage:
    connections: tuple[UnheardConnection, ...]
    now: datetime  #: PostgreSQL's clock
    searched_up_to: int | None  #: ids up to this one need not be searched again; None: all are searched


class UninstallStore:
    """The reports of one app. Every method raises StoreUnavailable where PostgreSQL does not answer."""

    def __init__(self, engine: Engine, app: str, *, lease_seconds: float) -> None:
        """`lease_seconds`: the setting LEASE_SECONDS."""
        self._database = Database(engine)
        self._app = app
        self._lease_seconds = lease_seconds

    def settle_batch(self, after: int = 0) -> SettledBatch:
        """Act on some reports that nothing was done about yet, with ids above `after`.

        One of a connection that is just being refreshed waits: that refresh must not overwrite what is saved here.
        """
        with self._database.transaction() as connection:
            # 1. Lock the reports, and the connections of their accounts. A user-level app has several of one account.
            reports = connection.execute(READ_UNSETTLED, {"app": self._app, "after": after}).all()
            if not reports:
                return SettledBatch()
            ids_by_hub = self._find_connections(connection, {report.hub_id for report in reports})
            free = self._lock_free(connection, [each for ids in ids_by_hub.values() for each in ids])
            # 2. Judge.
            ready = [report for report in reports if all(each in free for each in ids_by_hub.get(report.hub_id, ()))]
            decided = [
                (decide_uninstall(_to_report(report), _to_facts(free[each])), free[each].id, report)
                for report in ready
                for each in ids_by_hub.get(report.hub_id, ())
            ]
            suspects = {each: report for decision, each, report in decided if decision is UninstallDecision.SUSPECT}
            checks = {each for decision, each, _ in decided if decision is UninstallDecision.CHECK} - suspects.keys()
            # 3. Save.
            _save(connection, suspects, checks)
            settled = [report.id for report in ready if report.hub_id in ids_by_hub or _is_given_up(report)]
            connection.execute(SETTLE, {"ids": settled})
        return SettledBatch(
            last_id=reports[-1].id,
            is_full=len(reports) == BATCH_ROWS,
            suspected=len(suspects),
            checked=len(checks),
            deferred=len(reports) - len(ready),
        )

    def has_backlog(self) -> bool:
        """Whether more of the app's connections are due than one batch makes due."""
        return bool(self._database.execute(HAS_BACKLOG, app=self._app)[0][0])

    def is_brake_on(self) -> bool:
        """Whether the revocation brake holds the app's revocations."""
        return bool(self._database.execute(IS_BRAKE_ON, app=self._app)[0][0])

    def find_unheard(self, after: int, unheard_since: datetime, limit: int) -> UnheardPage:
        """Active connections with ids above `after` to which HubSpot issued no token since. It searches a page only."""
        rows = self._database.execute(
            FIND_UNHEARD, app=self._app, after=after, unheard_since=unheard_since, limit=limit
        )
        first = rows[0]
        found = tuple(
            UnheardConnection(row.id, row.hub_id, row.user_id, row.encrypted_refresh_token)
            for row in rows
            if row.id is not None
        )
        is_cut = len(found) == limit
        searched_up_to = found[-1].id if is_cut else first.page_end if first.has_more else None
        return UnheardPage(found, first.now, searched_up_to)

    def report_inactive(self, connection: UnheardConnection, at: datetime) -> None:
        """An introspection that began `at` that time called the connection's refresh token inactive."""
        self._database.execute(
            REPORT_INACTIVE, app=self._app, hub_id=connection.hub_id, user_id=connection.user_id, at=at
        )

    def prune(self) -> None:
        self._database.execute(PRUNE)

    def _find_connections(self, connection: Connection, hub_ids: Collection[int]) -> dict[int, list[int]]:
        ids_by_hub: dict[int, list[int]] = {}
        for row in connection.execute(FIND_CONNECTIONS, {"app": self._app, "hub_ids": list(hub_ids)}):
            ids_by_hub.setdefault(row.hub_id, []).append(row.id)
        return ids_by_hub

    def _lock_free(self, connection: Connection, ids: Sequence[int]) -> Mapping[int, Row[Any]]:
        """Those that no other transaction has locked, and no worker is refreshing."""
        rows = connection.execute(LOCK_CONNECTIONS, {"ids": list(ids), "lease_seconds": self._lease_seconds})
        return {row.id: row for row in rows}


def _save(connection: Connection, suspects: Mapping[int, Row[Any]], checks: Iterable[int]) -> None:
    if suspects:
        values = {
            "ids": list(suspects),
            "reasons": [_describe(report) for report in suspects.values()],
            "details": [json.dumps(_make_detail(report)) for report in suspects.values()],
        }
        connection.execute(MAKE_SUSPECT, values)
    connection.execute(MAKE_DUE, {"ids": list(checks)})


def _to_report(row: Row[Any]) -> ReportedUninstall:
    return ReportedUninstall(row.occurred_at, row.reported_at, row.user_id)


def _to_facts(row: Row[Any]) -> GrantFacts:
    return GrantFacts(Status(row.status), row.user_id, row.installed_at, row.refreshed_at)


def _is_given_up(report: Row[Any]) -> bool:
    """No install of its account was stored in that time."""
    return bool(report.now - report.reported_at > UNKNOWN_HUB_WAIT)


def _describe(report: Row[Any]) -> str:
    if report.witness == INTROSPECTION:
        return "HubSpot's introspection says that its refresh token is not active"
    return f"HubSpot reported at {report.occurred_at:%Y-%m-%d %H:%M} UTC that the account uninstalled the app"


def _make_detail(report: Row[Any]) -> dict[str, Any]:
    """For the history."""
    return {"witness": report.witness, "occurred_at": report.occurred_at.isoformat()}
