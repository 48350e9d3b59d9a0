"""The expected result of a refresh, and of an operator's decision on revocations. Pure.

`asked` is when HubSpot was asked, `at` when the result was saved.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from shared.domain.connection import EventName, Status
from shared.domain.errors import InvalidClient, InvalidGrant, TemporarilyUnavailable
from shared.domain.grant import Grant
from tests.model.answers import ErrorAnswer
from tests.model.connection_state import AccessToken, ConnectionState, ModelLease
from tests.model.expected_schedule import expect_due, expect_retry
from tests.model.time_range import TimeRange


@dataclass(slots=True)
class RefreshModel(ConnectionState):
    def apply_refresh(self, lease: ModelLease, grant: Grant, granted_at: datetime, at: TimeRange) -> bool:
        """Whether it is saved: the row was not claimed, installed or disconnected in the meantime."""
        if not self._end_lease(lease):
            return False
        if self.failures or self.status is not Status.ACTIVE:
            self.add_event(EventName.RECOVERED, Status.ACTIVE, at)
        granted = TimeRange.at_instant(granted_at)
        self._take_grant(grant, granted)
        self.failures = 0
        if self.refresh_requested:
            self.requested_refresh_at = granted
        self.set_scopes(grant.scopes)
        self.due, self.not_before = expect_due(granted, grant.expires_in), None
        self.refresh_requested = self.held_by_brake = False
        return True

    def apply_late_refresh(self, lease: ModelLease, grant: Grant, granted_at: datetime, at: TimeRange) -> bool:
        """Whether a new refresh token is stored that came after another worker had claimed the row.

        There is no event: the refresh that is due at once finds the state.
        """
        is_newer = self.refreshed_at is None or granted_at > self.refreshed_at.latest
        was_claimed_again = self.generation == lease.generation and self.leases > lease.number
        if not (is_newer and was_claimed_again and self.refresh_token):
            return False
        self._take_grant(grant, TimeRange.at_instant(granted_at))
        if self.status is Status.REVOKED:
            self.access = None
        self.due = at.or_later(self.not_before)
        self.held_by_brake = False
        self.invalidate_lease()
        return True

    def apply_error(self, lease: ModelLease, answer: ErrorAnswer, asked: TimeRange, at: TimeRange) -> bool:
        """Whether it is saved."""
        if not self._end_lease(lease):
            return False
        was_revoked = self.status is Status.REVOKED and lease.operator_decisions == self.operator_decisions
        if answer.is_revocation and self.other_refresh_token and not was_revoked:
            self._try_other_refresh_token(at)
            return False
        if self._is_overruled(lease, answer):
            return False
        if isinstance(answer.error, InvalidGrant) and self.status is Status.REVOKED:
            self._reject_again(lease, answer, asked, at)
            return True
        self._count_failure(answer, asked)
        if isinstance(answer.error, InvalidGrant):
            if self.status is Status.ACTIVE:
                self.add_event(EventName.SUSPECTED, Status.SUSPECT, at)
            if answer.is_contradicted:
                self.held_by_brake = False
                self.add_event(EventName.RECOVERED, Status.ACTIVE, at)
            if answer.is_revocation:
                self._revoke_or_hold(at)
        return True

    def confirm(self, at: TimeRange) -> bool:
        if not self.held_by_brake:
            return False
        self.operator_decisions += 1
        self.refresh_requested = False
        self._revoke(at)
        return True

    def dismiss(self, since: datetime, at: TimeRange) -> bool:
        """A held connection, or one that was revoked after `since`, is active again."""
        revoked_since = self.status is Status.REVOKED and self.status_since and self.status_since.earliest > since
        if not (self.held_by_brake or revoked_since):
            return False
        self.operator_decisions += 1
        self.add_event(EventName.RECOVERED, Status.ACTIVE, at)
        self.due = at.or_later(self.not_before)
        self.failures, self.refresh_requested, self.held_by_brake = 0, False, False
        return True

    def _take_grant(self, grant: Grant, granted: TimeRange) -> None:
        self.access = AccessToken(grant.access_token, granted, grant.expires_in)
        self.life, self.has_worked, self.refreshed_at = grant.expires_in, True, granted
        self.refresh_token = grant.refresh_token or self.refresh_token

    def _end_lease(self, lease: ModelLease) -> bool:
        if self.lease is not lease:
            return False
        self.lease = None  # saved or not, the lease is over
        return self.generation == lease.generation

    def _is_overruled(self, lease: ModelLease, answer: ErrorAnswer) -> bool:
        """An operator has decided on revocations since the claim: no late failure undoes that."""
        if answer.is_revocation and lease.dismissals != self.brake.dismissals:
            return True
        if lease.operator_decisions == self.operator_decisions:
            return False
        return not (self.status is Status.REVOKED and (answer.is_revocation or answer.is_contradicted))

    def _try_other_refresh_token(self, at: TimeRange) -> None:
        """Nothing else changes: the refresh that is due at once decides."""
        self.refresh_token, self.other_refresh_token = self.other_refresh_token, None
        self.due = at

    def _reject_again(self, lease: ModelLease, answer: ErrorAnswer, asked: TimeRange, at: TimeRange) -> None:
        """HubSpot rejects a revoked connection again: no event, and no further attempt.

        Where introspection contradicts it, the next attempt counts from the answer, however late that is saved.
        """
        was_confirmed = lease.operator_decisions != self.operator_decisions
        self.due = self.not_before = None
        self.failures += int(was_confirmed)
        if was_confirmed and answer.is_contradicted:
            self.due = asked.plus(0, 900)
            self.add_event(EventName.RECOVERED, Status.ACTIVE, at)

    def _count_failure(self, answer: ErrorAnswer, asked: TimeRange) -> None:
        if not isinstance(answer.error, InvalidClient):
            if not self.failures:
                self.events.append(EventName.REFRESH_FAILED)
            self.failures += 1
        wait = answer.error.retry_after if isinstance(answer.error, TemporarilyUnavailable) else None
        self.not_before = asked.plus(wait) if wait else None
        self.due = expect_retry(asked, max(self.failures, 1), self.life, wait or 0.0)

    def _revoke_or_hold(self, at: TimeRange) -> None:
        if self.brake.allow_revocation(at):
            self._revoke(at)
        else:
            self.held_by_brake = True
            self.due = expect_retry(at, max(self.failures, 1), self.life, 0.0)

    def _revoke(self, at: TimeRange) -> None:
        self.access = self.due = self.not_before = None
        self.held_by_brake = False
        self.add_event(EventName.REVOKED, Status.REVOKED, at)
