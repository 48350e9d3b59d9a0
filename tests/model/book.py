"""The book on one hub: what must come of each deed, by the contract's words. Where they leave a choice, the
documented one is kept here too. Pure; an `at` is when PostgreSQL did it.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.db.lifecycle.installs import InstallOutcome
from shared.db.refresh.requests import RefreshRequestOutcome
from shared.domain.connection import EventName, Status
from shared.domain.grant import Install
from tests.model.pace import scheduled
from tests.model.refreshed import Refreshed
from tests.model.spans import Span
from tests.model.standing import LIVE, UNFINISHED, Access


@dataclass(slots=True)
class HubBook(Refreshed):
    def installed(self, install: Install, at: Span) -> InstallOutcome:
        """A date in the future counts as now; the newest install wins, however often and in whatever order."""
        granted = at if install.granted_at > at.earliest else Span.exactly(install.granted_at)
        became = self._became(install, granted)
        self.installs.add(install.install_id)
        if became.is_stored:
            self._restart(at, install.refresh_token)
            self.installed_at, self.proven = granted, True
            self._take_access(install, granted, at)
            first = became is InstallOutcome.INSTALLED
            self.tell(EventName.INSTALLED if first else EventName.REINSTALLED, Status.ACTIVE, at)
            self.rescoped(install.scopes)
        return became

    def imported(self, refresh_token: str, at: Span) -> bool:
        """What works, and what the operator ended, is left alone; a wrong line can be put right."""
        if self.status is not None and (not self.replaceable() or refresh_token == self.refresh_token):
            return False
        self._restart(at, refresh_token)
        self.tell(EventName.IMPORTED, Status.ACTIVE, at)
        return True

    def replaceable(self) -> bool:
        return self.status is Status.REVOKED or (self.status in LIVE and not self.proven)

    def disconnected(self, at: Span) -> bool:
        """The first step: not served any more. False where there is nothing to disconnect."""
        if self.refresh_token is None:
            return False
        if self.status is not Status.DISCONNECTED:
            self.generation += 1
            self.tell(EventName.DISCONNECTED, Status.DISCONNECTED, at)
        self.due = self.not_before = None
        self.requested = self.held = False
        return True

    def wiped(self) -> None:
        if self.status is Status.DISCONNECTED:
            self.refresh_token = self.access = None

    def left_over(self, at: Span) -> bool:
        """Whether a disconnect was begun and never finished; whoever is told of it has the row for a while."""
        unfinished = self.status is Status.DISCONNECTED and self.refresh_token is not None
        if not unfinished or self.status_since is None or self.is_held_by_somebody(at):
            return False
        if self.status_since.plus(UNFINISHED).latest > at.earliest:
            return False
        self.claimed(at)
        return True

    def job_asks(self, access_token: str | None, at: Span) -> bool:
        if self.status not in LIVE:
            return False
        if access_token is not None and self.access and self.access.lives(at) and access_token != self.access.token:
            return False
        if self.is_held_by_somebody(at):
            self.due_by(at)
            return True
        if self.requested:
            return False
        self.due_by(at.or_later(self.not_before))
        return True

    def operator_asks(self, verdict: RefreshRequestOutcome, at: Span) -> None:
        """May ask again after a failure, and for a revoked one. A due time in the midst of the call leaves a choice."""
        at_once = at.or_later(self.not_before)
        if self.status in (None, Status.DISCONNECTED):
            expected = {RefreshRequestOutcome.UNKNOWN if self.status is None else RefreshRequestOutcome.DISCONNECTED}
        elif self.is_held_by_somebody(at):
            expected = {RefreshRequestOutcome.IN_FLIGHT}
        elif self.due is None or self.due.earliest > at_once.latest:
            expected = {RefreshRequestOutcome.ASKED}
        elif self.due.latest <= at_once.earliest:
            expected = {RefreshRequestOutcome.ALREADY_DUE}
        else:
            expected = {RefreshRequestOutcome.ASKED, RefreshRequestOutcome.ALREADY_DUE}
        assert verdict in expected
        if verdict in (RefreshRequestOutcome.ASKED, RefreshRequestOutcome.IN_FLIGHT):
            self.due_by(at_once)

    def woken(self, at: Span) -> None:
        """What was put off because of an outage is due at once, but for a Retry-After of its own."""
        if self.failures and self.status in LIVE and self.due:
            self.due = self.due.or_sooner(at.or_later(self.not_before))

    def _became(self, install: Install, granted: Span) -> InstallOutcome:
        if self.status is None:
            return InstallOutcome.INSTALLED
        if install.install_id in self.installs:
            return InstallOutcome.ALREADY_STORED
        if self.installed_at is not None and granted.latest < self.installed_at.earliest:
            return InstallOutcome.OLDER_THAN_STORED
        ended = self.status_since if self.status is Status.DISCONNECTED else None
        if ended is not None and granted.latest < ended.earliest:
            return InstallOutcome.DISCONNECTED_SINCE
        return InstallOutcome.REINSTALLED

    def _restart(self, at: Span, refresh_token: str) -> None:
        """Everything begins anew, but a call that is out is still out."""
        if self.status is not None:
            self.generation += 1
        if self.status is Status.DISCONNECTED:
            self.access = None  # what the operator ended is not served again
        self.refresh_token, self.due, self.not_before = refresh_token, at, None
        self.failures, self.requested, self.held = 0, False, False

    def _take_access(self, install: Install, granted: Span, at: Span) -> None:
        """The install's token if it came along and lives; else the one that is served, and a refresh at once."""
        if install.expires_in is None or install.access_token is None:
            return
        self.life = install.expires_in
        access = Access(install.access_token, granted, install.expires_in)
        if access.lives(at):
            self.access, self.refreshed_at = access, granted
            self.due = scheduled(granted, install.expires_in)
