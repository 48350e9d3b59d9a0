"""Stores installs, in any order and any number of times: the newest grant of a hub wins."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, Row

from shared.db.core.recent_writes import RecentWrites
from shared.db.core.statements import Database
from shared.db.lifecycle.customer_claims import settle_claim
from shared.db.lifecycle.install_sql import (
    FIND,
    FIND_LOST,
    IS_CONNECTED,
    LOCK_HUB,
    READ,
    REMEMBER,
    WRITE,
    WRITE_HISTORY,
    WRITE_KEEPING_ACCESS_TOKEN,
)
from shared.db.refresh.uncertain_installs import KEEP_UNCERTAIN_INSTALL, is_order_uncertain
from shared.domain.account import describe_account
from shared.domain.connection import Event, EventName, Status
from shared.domain.customer import CustomerClaim
from shared.domain.identity import DEFAULT_APP, ConnectionIdentity

log = structlog.get_logger(__name__)

#: Of this process, remembered for a minute.
MAX_RECENT_INSTALLS = 1_000


@dataclass(frozen=True, slots=True)
class NewInstall:
    """An install to store.

    `granted_at` is by PostgreSQL's clock as web knows it (web/oauth/grant_clock.py); a date in the future counts as
    now. `due_at` is `Schedule.due_at`, which is called with that date.
    """

    hub_id: int
    granted_at: datetime
    encrypted_refresh_token: str = field(repr=False)
    due_at: Callable[[int, datetime, float], datetime] = field(repr=False)
    install_id: str | None = None  #: uuid text
    app: str = DEFAULT_APP
    user_id: int | None = None  #: None for an account-level app
    access_token: str | None = field(default=None, repr=False)
    expires_in: int | None = None  #: seconds from `granted_at`
    scopes: tuple[str, ...] | None = None
    customer_claim: CustomerClaim | None = None  #: of the connect link by which the person came
    is_dated_by_host: bool = False  #: `granted_at` is by the clock of a web host, which may be wrong by minutes


#: By which account information is due earlier for an install than for an import of the same moment, which can be of
#: thousands: people wait for an install's domain.
ACCOUNT_INFO_PRIORITY = timedelta(days=30)


class InstallOutcome(StrEnum):
    """The result of storing an install."""

    INSTALLED = "installed"
    REINSTALLED = "reinstalled"
    #: The same install was stored before.
    ALREADY_STORED = "already_stored"
    #: A newer install of the hub is stored.
    OLDER_THAN_STORED = "older_than_stored"
    #: The operator disconnected the hub after the grant.
    DISCONNECTED_SINCE = "disconnected_since"

    @property
    def is_stored(self) -> bool:
        return self in (InstallOutcome.INSTALLED, InstallOutcome.REINSTALLED)


@dataclass(frozen=True, slots=True)
class InstallResult:
    outcome: InstallOutcome
    needs_account_info: bool  #: HubSpot is still to be asked for domain and installer


@dataclass(frozen=True, slots=True)
class StoredInstall:
    """The connection of a stored install as it is now, for the waiting page."""

    hub_id: int
    hub_domain: str | None
    scopes: tuple[str, ...]
    status: Status
    account_name: str | None = None
    account: str = ""  #: name, type and region in words, as far as they are known
    customer: str | None = None


class InstallStore:
    """Installs. Every method raises StoreUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)
        self._recent: RecentWrites[str, NewInstall] = RecentWrites(
            engine, self._store_lost_again, max_items=MAX_RECENT_INSTALLS, name="recent-installs"
        )

    def add(self, install: NewInstall) -> InstallResult:
        """Store it, unless it or a newer one is stored already."""
        result = self._add(install)
        if result.outcome.is_stored and install.install_id is not None:
            self._recent.remember({install.install_id: install})
        return result

    def _add(self, install: NewInstall) -> InstallResult:
        with self._database.transaction() as connection:
            # 1. One install of a hub at a time. PostgreSQL's clock limits the web host's.
            connection.execute(LOCK_HUB, {"hub_id": install.hub_id})
            identity = {"app": install.app, "hub_id": install.hub_id, "user_id": install.user_id}
            row = connection.execute(READ, {"install_id": install.install_id, **identity}).one()
            granted_at = min(install.granted_at, row.now)

            # 2. Is it news?
            has_host_date = install.is_dated_by_host or row.is_stored_uncertain
            is_uncertain = has_host_date and is_order_uncertain(granted_at, row.installed_at)
            outcome = _decide_outcome(install, granted_at, row, is_uncertain=is_uncertain)
            if outcome is InstallOutcome.ALREADY_STORED:
                return InstallResult(outcome, row.account_info_due_at is not None)

            # 3. Whose is it? A connect link is spent by this, also where a newer install is stored.
            claim = settle_claim(
                connection, install.customer_claim, install.install_id, row, is_newest_grant=outcome.is_stored
            )

            # 4. Write the connection. Where another install may be the newer one, keep its grant.
            connection_id, scopes = row.id, list(row.scopes or ()) if install.scopes is None else list(install.scopes)
            if outcome.is_stored:
                # HubSpot may issue the same refresh token again: a refresh after this grant may have rotated it.
                is_refreshed_since = row.refreshed_at is not None and row.refreshed_at > granted_at
                has_uncertain_date = is_uncertain or install.is_dated_by_host
                is_kept = has_uncertain_date or is_refreshed_since
                if is_kept and row.id is not None:
                    values = {"connection_id": row.id, "has_other": True, "is_order_uncertain": has_uncertain_date}
                    connection.execute(KEEP_UNCERTAIN_INSTALL, values)
                connection_id = _write_connection(
                    connection, install, granted_at, scopes, row, customer=claim.customer, refresh_now=is_uncertain
                )
                if is_kept and row.id is None:
                    values = {"connection_id": connection_id, "has_other": False, "is_order_uncertain": True}
                    connection.execute(KEEP_UNCERTAIN_INSTALL, values)

            # 5. Remember the install's id, also where a newer one is stored: the waiting page looks for it.
            if install.install_id is not None:
                values = {"install_id": install.install_id, "connection_id": connection_id, "granted_at": granted_at}
                connection.execute(REMEMBER, values)

            # 6. Write its history.
            for event in [*(_make_events(row, scopes) if outcome.is_stored else ()), *claim.events]:
                values = {"event": event.name.value, "detail": json.dumps(event.detail), "status": event.status}
                connection.execute(WRITE_HISTORY, {"connection_id": connection_id, **values})
            return InstallResult(outcome, outcome.is_stored or row.account_info_due_at is not None)

    def find(self, install_id: str) -> StoredInstall | None:
        """None where no install with this id is stored."""
        rows = self._database.execute(FIND, install_id=install_id)
        if not rows:
            return None
        row = rows[0]
        return StoredInstall(
            row.hub_id,
            row.hub_domain,
            tuple(row.scopes),
            Status(row.status),
            row.account_name,
            describe_account(row.account_name, row.account_type, row.region),
            row.customer,
        )

    def is_connected(self, app: str, hub_id: int) -> bool:
        """Whether the app has a connection of the account that works, or may still work; of whichever user."""
        return bool(self._database.execute(IS_CONNECTED, app=app, hub_id=hub_id)[0].is_connected)

    def finish(self, timeout_seconds: float) -> None:
        """As RefreshResults.finish."""
        self._recent.finish(timeout_seconds)

    def _store_lost_again(self, installs: Sequence[NewInstall]) -> bool:
        """After a failover. An install or a disconnect since then wins, as over any install that comes late."""
        given = [install.install_id for install in installs]
        lost = {str(row.install_id) for row in self._database.execute(FIND_LOST, install_ids=given)}
        for install in installs:
            if install.install_id in lost:
                outcome = self.add(install).outcome
                identity = ConnectionIdentity(install.app, install.hub_id, install.user_id)
                log.warning(
                    "stored an install again that a failover had lost", **identity.log_fields(), outcome=outcome.value
                )
        return True


def _decide_outcome(install: NewInstall, granted_at: datetime, row: Row[Any], *, is_uncertain: bool) -> InstallOutcome:
    if row.hub_id is None:
        return InstallOutcome.INSTALLED
    # Without an id the date identifies an install. The row keeps its newest id for longer than the list of all ids.
    is_same_date = install.install_id is None and granted_at == row.installed_at
    is_newest = install.install_id is not None and install.install_id == str(row.install_id)
    if row.known_install_id is not None or is_same_date or is_newest:
        return InstallOutcome.ALREADY_STORED
    # A stored date in the future is of a clock that was ahead: it does not make an install older.
    is_older = row.installed_at is not None and granted_at < row.installed_at <= row.now
    if is_older and not is_uncertain:
        return InstallOutcome.OLDER_THAN_STORED
    if row.status == Status.DISCONNECTED and granted_at < row.status_since <= row.now:
        return InstallOutcome.DISCONNECTED_SINCE
    return InstallOutcome.REINSTALLED


def _write_connection(
    connection: Connection,
    install: NewInstall,
    granted_at: datetime,
    scopes: list[str],
    row: Row[Any],
    *,
    customer: str | None,
    refresh_now: bool,
) -> int:
    """Serve the grant's access token if it came along and has not expired; otherwise a refresh is due at once.

    A cookie is too small for an access token, and an install may be stored long after it was granted. Then the stored
    access token is still served, unless the operator has disconnected the connection.
    """
    values: dict[str, Any] = {
        "hub_id": install.hub_id,
        "app": install.app,
        "user_id": install.user_id,
        "customer": customer,
        "now": row.now,
        "account_info_due_at": row.now - ACCOUNT_INFO_PRIORITY,
        "encrypted_refresh_token": install.encrypted_refresh_token,
        "granted_at": granted_at,
        "install_id": install.install_id,
        "scopes": scopes,
        "access_token": None,
        "expires_at": None,
        "refreshed_at": row.refreshed_at,
        "lifetime_seconds": row.lifetime_seconds if install.expires_in is None else install.expires_in,
        "due_at": row.now,
    }
    if install.access_token is not None and install.expires_in is not None:
        expires_at = granted_at + timedelta(seconds=install.expires_in)
        if expires_at > row.now:
            values |= {
                "access_token": install.access_token,
                "expires_at": expires_at,
                "refreshed_at": granted_at,
                "due_at": row.now if refresh_now else install.due_at(install.hub_id, granted_at, install.expires_in),
            }
    keeps_access_token = values["access_token"] is None and row.status != Status.DISCONNECTED
    statement = WRITE_KEEPING_ACCESS_TOKEN if keeps_access_token else WRITE
    return int(connection.execute(statement, values).scalar_one())


def _make_events(row: Row[Any], scopes: Sequence[str]) -> Sequence[Event]:
    if row.hub_id is None:
        return [Event(EventName.INSTALLED, status=Status.ACTIVE)]
    was_active = row.status == Status.ACTIVE
    detail = {} if was_active else {"was": row.status}
    events = [Event(EventName.REINSTALLED, detail, None if was_active else Status.ACTIVE)]
    if row.scopes and set(scopes) != set(row.scopes):
        events.append(Event(EventName.SCOPES_CHANGED, {"before": sorted(row.scopes), "after": sorted(scopes)}))
    return events
