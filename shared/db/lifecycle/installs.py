"""Stores installs, in whatever order and however often they arrive: the newest grant of a hub wins."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from shared.db.core.statements import Database, single_statement
from shared.domain.connection import Event, EventName, Status


@dataclass(frozen=True, slots=True)
class NewInstall:
    """An install, ready to be stored.

    `granted_at` is the web host's date; PostgreSQL counts one in the future as now. `due_at` is the schedule's
    pure function (`Schedule.due_at`), given the date that PostgreSQL agreed to.
    """

    hub_id: int
    granted_at: datetime
    encrypted_refresh_token: str = field(repr=False)
    due_at: Callable[[int, datetime, float], datetime] = field(repr=False)
    install_id: str | None = None  #: uuid text
    access_token: str | None = field(default=None, repr=False)
    expires_in: int | None = None  #: seconds from `granted_at`
    scopes: tuple[str, ...] | None = None


class InstallOutcome(StrEnum):
    """What became of an install that was handed in."""

    INSTALLED = "installed"
    REINSTALLED = "reinstalled"
    #: It was stored before.
    ALREADY_STORED = "already_stored"
    #: A newer install of this hub is stored.
    OLDER_THAN_STORED = "older_than_stored"
    #: The operator disconnected this hub after it was granted.
    DISCONNECTED_SINCE = "disconnected_since"

    @property
    def is_stored(self) -> bool:
        return self in (InstallOutcome.INSTALLED, InstallOutcome.REINSTALLED)


@dataclass(frozen=True, slots=True)
class InstallResult:
    outcome: InstallOutcome
    needs_account_info: bool  #: HubSpot has yet to be asked whose account it is


@dataclass(frozen=True, slots=True)
class StoredInstall:
    """What the waiting page tells of a stored install: how its connection stands now."""

    hub_id: int
    hub_domain: str | None
    scopes: tuple[str, ...]
    status: Status


#: One install of a hub at a time, also of one that has no row yet.
LOCK_HUB = text("SELECT pg_advisory_xact_lock(:hub_id)")
LOOK = text("""
SELECT clock_timestamp() AS now, seen.install_id AS seen, c.*
  FROM (SELECT) AS always
  LEFT JOIN tokenkeeper.installs AS seen ON seen.install_id = CAST(:install_id AS uuid)
  LEFT JOIN LATERAL (
      SELECT hub_id, status, status_since, installed_at, install_id, scopes, refreshed_at, lifetime_seconds,
             account_info_due_at
        FROM tokenkeeper.connections WHERE hub_id = :hub_id FOR NO KEY UPDATE
  ) AS c ON true
""")
REMEMBER = text("""
INSERT INTO tokenkeeper.installs (install_id, hub_id, granted_at)
VALUES (CAST(:install_id AS uuid), :hub_id, :granted_at) ON CONFLICT DO NOTHING
""")
#: A lease is not touched: a call may be in flight, and no hub ever has two. Web's role may read neither token, and
#: `excluded` would be reading: so they are said twice (shared/db/schema/privileges.py).
_WRITE = """
INSERT INTO tokenkeeper.connections AS c (
    hub_id, status, status_since, access_token, expires_at, lifetime_seconds, scopes, refreshed_at,
    encrypted_refresh_token, installed_at, install_id, account_info_due_at, due_at)
VALUES (
    :hub_id, 'active', :now, :access_token, :expires_at, :lifetime_seconds, :scopes, :refreshed_at, :sealed,
    :granted_at, CAST(:install_id AS uuid), :now, :due_at)
ON CONFLICT (hub_id) DO UPDATE
   SET status = 'active',
       status_since = CASE WHEN c.status = 'active' THEN c.status_since ELSE excluded.status_since END,
       status_reason = NULL,
       {access}
       lifetime_seconds = excluded.lifetime_seconds,
       scopes = excluded.scopes,
       refreshed_at = excluded.refreshed_at,
       encrypted_refresh_token = :sealed,
       installed_at = excluded.installed_at,
       install_id = excluded.install_id,
       account_info_due_at = excluded.account_info_due_at,
       due_at = excluded.due_at,
       retry_not_before = NULL,
       failures = 0,
       last_error = NULL,
       pending_revocation = NULL,
       refresh_requested = false,
       generation = c.generation + 1
"""
WRITE = text(_WRITE.format(access="access_token = :access_token, expires_at = excluded.expires_at,"))
#: The access token that is served now goes on being served.
WRITE_KEEPING = text(_WRITE.format(access=""))
TELL = text("""
INSERT INTO tokenkeeper.history (hub_id, event, detail, status)
VALUES (:hub_id, :event, CAST(:detail AS jsonb), :status)
""")
INSTALLED = single_statement("""
SELECT c.hub_id, a.hub_domain, c.scopes, c.status
  FROM tokenkeeper.installs AS i
  JOIN tokenkeeper.connections AS c ON c.hub_id = i.hub_id
  LEFT JOIN tokenkeeper.accounts AS a ON a.hub_id = i.hub_id
 WHERE i.install_id = CAST(:install_id AS uuid)
""")


class InstallStore:
    """Installs. Every method raises StoreUnavailable where PostgreSQL does not answer."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def add(self, install: NewInstall) -> InstallResult:
        """Store it, unless it is stored already, or something newer is."""
        with self._database.transaction() as connection:
            connection.execute(LOCK_HUB, {"hub_id": install.hub_id})
            row = connection.execute(LOOK, {"install_id": install.install_id, "hub_id": install.hub_id}).one()
            granted_at = min(install.granted_at, row.now)
            became = _became(install, granted_at, row)
            if became is InstallOutcome.ALREADY_STORED:
                return InstallResult(became, row.account_info_due_at is not None)
            if install.install_id is not None:
                values = {"install_id": install.install_id, "hub_id": install.hub_id, "granted_at": granted_at}
                connection.execute(REMEMBER, values)
            if not became.is_stored:
                return InstallResult(became, row.account_info_due_at is not None)
            _write(connection, install, granted_at, row)
            return InstallResult(became, needs_account_info=True)

    def find(self, install_id: str) -> StoredInstall | None:
        """None where no install of that id is stored."""
        rows = self._database.execute(INSTALLED, install_id=install_id)
        if not rows:
            return None
        row = rows[0]
        return StoredInstall(row.hub_id, row.hub_domain, tuple(row.scopes), Status(row.status))


def _became(install: NewInstall, granted_at: datetime, row: Row[Any]) -> InstallOutcome:
    if row.hub_id is None:
        return InstallOutcome.INSTALLED
    nameless_twin = install.install_id is None and granted_at == row.installed_at
    # The row remembers its newest install longer than the list of all of them does.
    newest = install.install_id is not None and install.install_id == str(row.install_id)
    if row.seen is not None or nameless_twin or newest:
        return InstallOutcome.ALREADY_STORED
    if row.installed_at is not None and granted_at < row.installed_at:
        return InstallOutcome.OLDER_THAN_STORED
    if row.status == Status.DISCONNECTED and granted_at < row.status_since:
        return InstallOutcome.DISCONNECTED_SINCE
    return InstallOutcome.REINSTALLED


def _write(connection: Connection, install: NewInstall, granted_at: datetime, row: Row[Any]) -> None:
    scopes = list(row.scopes or ()) if install.scopes is None else list(install.scopes)
    access = _access(install, granted_at, row)
    values = {
        "hub_id": install.hub_id,
        "now": row.now,
        "sealed": install.encrypted_refresh_token,
        "granted_at": granted_at,
        "install_id": install.install_id,
        "scopes": scopes,
        **access,
    }
    # What the operator ended is not served again, even where it is not wiped yet.
    keeps = access["access_token"] is None and row.status != Status.DISCONNECTED
    connection.execute(WRITE_KEEPING if keeps else WRITE, values)
    for event in _events(row, scopes):
        told = {"event": event.name.value, "detail": json.dumps(event.detail), "status": event.status}
        connection.execute(TELL, {"hub_id": install.hub_id, **told})


def _access(install: NewInstall, granted_at: datetime, row: Row[Any]) -> dict[str, Any]:
    """The access token to serve: the grant's, if it came along and lives; else none of ours.

    A cookie is too small for an access token, and an install may be stored long after it was granted: then a
    refresh is due at once.
    """
    if install.access_token is not None and install.expires_in is not None:
        expires_at = granted_at + timedelta(seconds=install.expires_in)
        if expires_at > row.now:
            return {
                "access_token": install.access_token,
                "expires_at": expires_at,
                "refreshed_at": granted_at,
                "lifetime_seconds": install.expires_in,
                "due_at": install.due_at(install.hub_id, granted_at, install.expires_in),
            }
    return {
        "access_token": None,
        "expires_at": None,
        "refreshed_at": row.refreshed_at,
        "lifetime_seconds": row.lifetime_seconds if install.expires_in is None else install.expires_in,
        "due_at": row.now,
    }


def _events(row: Row[Any], scopes: Sequence[str]) -> Sequence[Event]:
    if row.hub_id is None:
        return [Event(EventName.INSTALLED, status=Status.ACTIVE)]
    was_active = row.status == Status.ACTIVE
    detail = {} if was_active else {"was": row.status}
    events = [Event(EventName.REINSTALLED, detail, None if was_active else Status.ACTIVE)]
    if row.scopes and set(scopes) != set(row.scopes):
        events.append(Event(EventName.SCOPES_CHANGED, {"before": sorted(row.scopes), "after": sorted(scopes)}))
    return events
