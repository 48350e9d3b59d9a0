"""Expected results of every operation on one connection, as the contract says. Where the contract leaves a choice,
the model follows the documentation. Pure; an `at` is when PostgreSQL ran the operation.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.db.lifecycle.installs import InstallOutcome
from shared.db.refresh.requests import RefreshRequestOutcome
from shared.domain.connection import EventName, Status
from shared.domain.grant import Install
from tests.model.connection_state import LIVE, UNFINISHED_SECONDS, AccessToken
from tests.model.expected_schedule import expect_due
from tests.model.refresh_model import RefreshModel
from tests.model.time_range import TimeRange


@dataclass(slots=True)
class ConnectionModel(RefreshModel):
    def apply_install(self, install: Install, at: TimeRange) -> InstallOutcome:
        """A date in the future counts as now; the newest install wins, in any order and any number of times."""
        granted = at if install.granted_at > at.earliest else TimeRange.at_instant(install.granted_at)
        outcome = self._expect_outcome(install, granted)
        self.installs.add(install.install_id)
        if outcome.is_stored:
            if self.refreshed_at is not None and self.refreshed_at.earliest > granted.latest:
                self.other_refresh_token = self.refresh_token if self.status in LIVE else None
            self._restart(at, install.refresh_token)
            self.installed_at, self.has_worked = granted, True
            self._take_access(install, granted, at)
            is_first = outcome is InstallOutcome.INSTALLED
            self.add_event(EventName.INSTALLED if is_first else EventName.REINSTALLED, Status.ACTIVE, at)
            self.set_scopes(install.scopes)
        return outcome

    def apply_import(self, refresh_token: str, at: TimeRange) -> bool:
        """A connection that works, or that the operator ended, stays as it is."""
        if self.status is not None and (not self.is_replaceable() or refresh_token == self.refresh_token):
            return False
        self._restart(at, refresh_token)
        self.add_event(EventName.IMPORTED, Status.ACTIVE, at)
        return True

    def is_replaceable(self) -> bool:
        return self.status is Status.REVOKED or (self.status in LIVE and not self.has_worked)

    def apply_disconnect(self, at: TimeRange) -> bool:
        """The first step. False where there is nothing to disconnect."""
        if self.refresh_token is None:
            return False
        if self.status is not Status.DISCONNECTED:
            self.generation += 1
            self.add_event(EventName.DISCONNECTED, Status.DISCONNECTED, at)
        self.due = self.not_before = None
        self.refresh_requested = self.held_by_brake = False
        return True

    def apply_wipe(self, at: TimeRange) -> bool:
        """The last step of the newest disconnect. An install since then stays, and is refreshed at once."""
        if self.status is Status.DISCONNECTED:
            self.refresh_token = self.access = None
            return True
        if self.status is Status.ACTIVE and self.due:
            self.due = self.due.or_earlier(at.or_later(self.not_before))
        return False

    def claim_unfinished(self, at: TimeRange) -> bool:
        """Whether an unfinished disconnect is claimed now; a claim leases the row."""
        unfinished = self.status is Status.DISCONNECTED and self.refresh_token is not None
        if not unfinished or self.status_since is None or self.is_leased(at):
            return False
        if self.status_since.plus(UNFINISHED_SECONDS).latest > at.earliest:
            return False
        self.take_lease(at)
        return True

    def request_by_job(self, access_token: str | None, at: TimeRange) -> bool:
        if self.status not in LIVE:
            return False
        if access_token is not None and self.access and self.access.is_valid(at) and access_token != self.access.token:
            return False
        if self.refresh_requested:
            return self.is_leased(at)
        self.make_due_by(at.or_later(self.not_before).or_later(self.next_request_at()))
        return True

    def check_operator_request(self, outcome: RefreshRequestOutcome, at: TimeRange) -> None:
        """Allowed after a failure and for a revoked connection. A due time within the call allows two results."""
        at_once = at.or_later(self.not_before)
        if self.status in (None, Status.DISCONNECTED):
            expected = {RefreshRequestOutcome.UNKNOWN if self.status is None else RefreshRequestOutcome.DISCONNECTED}
        elif self.is_leased(at):
            expected = {RefreshRequestOutcome.IN_FLIGHT}
        elif self.due is None or self.due.earliest > at_once.latest:
            expected = {RefreshRequestOutcome.ASKED}
        elif self.due.latest <= at_once.earliest:
            expected = {RefreshRequestOutcome.ALREADY_DUE}
        else:
            expected = {RefreshRequestOutcome.ASKED, RefreshRequestOutcome.ALREADY_DUE}
        assert outcome in expected
        if outcome in (RefreshRequestOutcome.ASKED, RefreshRequestOutcome.IN_FLIGHT):
            self.make_due_by(at_once)

    def make_postponed_due(self, at: TimeRange) -> None:
        """A failed connection is due at once, but not before its own Retry-After."""
        if self.failures and self.status in LIVE and self.due:
            self.due = self.due.or_earlier(at.or_later(self.not_before))

    def _expect_outcome(self, install: Install, granted: TimeRange) -> InstallOutcome:
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

    def _restart(self, at: TimeRange, refresh_token: str) -> None:
        """Everything is reset, except for a call in flight."""
        if self.status is not None:
            self.generation += 1
        if self.status is Status.DISCONNECTED:
            self.access = None  # the old token of a disconnected connection is not served again
        self.refresh_token, self.due, self.not_before = refresh_token, at, None
        self.failures, self.refresh_requested, self.held_by_brake = 0, False, False

    def _take_access(self, install: Install, granted: TimeRange, at: TimeRange) -> None:
        """The install's token if it has one that is valid; else the stored one, and a refresh at once."""
        if install.expires_in is None or install.access_token is None:
            return
        self.life = install.expires_in
        access = AccessToken(install.access_token, granted, install.expires_in)
        if access.is_valid(at):
            self.access, self.refreshed_at = access, granted
            self.due = expect_due(granted, install.expires_in)
