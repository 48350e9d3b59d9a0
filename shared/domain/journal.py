"""HubSpot's Webhooks Journal, which says that accounts have uninstalled an app: what one of its entries means.

An entry alone ends no connection. It may be repeated, late or out of order, and the app may have been installed again
since. So an entry counts only against a grant that is older than it, and a refresh decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from shared.domain.connection import Status
from shared.domain.errors import ProviderError

#: HubSpot keeps entries for three days: an offset that is older leads nowhere.
RETENTION = timedelta(days=3)
#: What HubSpot's clock and ours may differ by. An entry that is older than the grant by less is worth a refresh.
CLOCK_TOLERANCE = timedelta(seconds=30)
#: Where HubSpot does not know an offset so soon after a restart from the earliest file, it means that there is no newer
#: file: that restart has led to the offset. HubSpot does not document what it answers there.
RESTART_INTERVAL = timedelta(hours=1)
#: A journal that has worked is reported as stopped when its end has not been reached for so long.
STOPPED_AFTER = timedelta(minutes=5)


class JournalState(StrEnum):
    STARTING = "starting"
    #: Its end was reached by the newest turn, or files are still being read.
    READING = "reading"
    #: HubSpot or the network is failing: tried again soon.
    FAILING = "failing"
    #: HubSpot does not let the app read it: tried again now and then.
    REFUSED = "refused"


class JournalRefused(ProviderError):
    """HubSpot does not let this app read its journal: scopes, a user-level app, or no journal at all."""


class OffsetUnknown(ProviderError):
    """HubSpot does not know the offset: it is older than RETENTION, or was lost."""


class UnreadableFile(ProviderError):
    """HubSpot names a file of the journal that cannot be fetched or read. Another attempt may succeed."""

    def __init__(self, code: str, *, next_offset: str, http_status: int | None = None) -> None:
        """`next_offset`: the offset after the file."""
        super().__init__(code, http_status=http_status)
        self.next_offset = next_offset


class EntryKind(StrEnum):
    INSTALL = "install"
    UNINSTALL = "uninstall"


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One event in the life of an app, as far as HubSpot says it. Times are by HubSpot's clock."""

    kind: EntryKind
    hub_id: int
    occurred_at: datetime | None  #: None: not said
    user_id: int | None = None  #: the user whose install it was; None: not said
    app_id: int | None = None  #: HubSpot's number of the app; None: not said


@dataclass(frozen=True, slots=True)
class JournalFile:
    offset: str  #: the next file is read from here
    entries: tuple[JournalEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportedUninstall:
    """An uninstall that was reported for a connection, by the journal or by an introspection of its refresh token."""

    occurred_at: datetime | None  #: by HubSpot's clock; None: not said
    reported_at: datetime  #: by PostgreSQL's clock
    user_id: int | None = None  #: as in JournalEntry


@dataclass(frozen=True, slots=True)
class GrantFacts:
    """What the stored grant of a connection says about an uninstall. Times are by PostgreSQL's clock."""

    status: Status
    user_id: int | None  #: of a user-level app
    installed_at: datetime | None  #: the newest install; None: imported
    refreshed_at: datetime | None  #: the newest request to which HubSpot issued a token; None: none yet


class UninstallDecision(StrEnum):
    #: It is about another grant than the stored one, which is newer, or about one that has ended.
    IGNORE = "ignore"
    #: It may be about the stored grant: refresh it now. The status stays.
    CHECK = "check"
    #: It is about the stored grant: the connection is suspect, and is refreshed now.
    SUSPECT = "suspect"


def select_uninstalls(entries: Iterable[JournalEntry], app_id: int | None) -> list[JournalEntry]:
    """Those of the app. Installs create nothing. `app_id`: HubSpot's number of the app; None: not known."""
    return [
        entry
        for entry in entries
        if entry.kind is EntryKind.UNINSTALL and (app_id is None or entry.app_id in (None, app_id))
    ]


def decide_uninstall(report: ReportedUninstall, grant: GrantFacts) -> UninstallDecision:
    """What follows for a connection after an uninstall of its account was reported.

    1. A connection that has ended stays as it is.
    2. A grant that was issued, or proved good, after the uninstall is not the one that ended.
    3. Where the order is not certain, or another user of the account uninstalled, only a refresh can tell.
    """
    if grant.status not in (Status.ACTIVE, Status.SUSPECT):
        return UninstallDecision.IGNORE
    proven_at = max(filter(None, (grant.installed_at, grant.refreshed_at)), default=None)
    if report.occurred_at is None or proven_at is None:
        return UninstallDecision.CHECK
    # A date in the future comes from a clock that is wrong: it must not count against grants yet to come.
    ended_at = min(report.occurred_at, report.reported_at)
    if ended_at <= proven_at - CLOCK_TOLERANCE:
        return UninstallDecision.IGNORE
    is_of_other_user = grant.user_id is not None and report.user_id not in (None, grant.user_id)
    if ended_at <= proven_at or is_of_other_user or grant.status is Status.SUSPECT:
        return UninstallDecision.CHECK
    return UninstallDecision.SUSPECT
