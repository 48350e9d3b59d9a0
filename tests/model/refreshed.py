"""What must become of a refresh, and of an operator's word on revocations. Pure.

`asked` is when HubSpot was asked, `at` when PostgreSQL was told.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from shared.domain.connection import EventName, Status
from shared.domain.errors import InvalidClient, InvalidGrant, TemporarilyUnavailable
from shared.domain.grant import Grant
from tests.model.answers import Refused
from tests.model.pace import retried, scheduled
from tests.model.spans import Span
from tests.model.standing import Access, Holding, Standing


@dataclass(slots=True)
class Refreshed(Standing):
    def refreshed(self, holding: Holding, grant: Grant, granted_at: datetime, at: Span) -> bool:
        """Whether it lands: nobody else has claimed, re-installed or disconnected the row meanwhile."""
        if not self._still_of(holding):
            return False
        if self.failures or self.status is not Status.ACTIVE:
            self.tell(EventName.RECOVERED, Status.ACTIVE, at)
        granted = Span.exactly(granted_at)
        self._take(grant, granted)
        self.failures = 0
        self.rescoped(grant.scopes)
        self.due, self.not_before = scheduled(granted, grant.expires_in), None
        self.requested = self.held = False
        return True

    def rescued(self, holding: Holding, grant: Grant, granted_at: datetime, at: Span) -> bool:
        """Whether a new refresh token is kept that came after somebody else had claimed the row: the old one is dead.

        Nothing is told: the refresh that is due at once finds out how it stands.
        """
        newer = self.refreshed_at is None or granted_at > self.refreshed_at.latest
        overtaken = self.generation == holding.generation and self.leases > holding.number
        if not (newer and overtaken and self.refresh_token):
            return False
        self._take(grant, Span.exactly(granted_at))
        if self.status is Status.REVOKED:
            self.access = None
        self.due = at.or_later(self.not_before)
        self.held = False
        self.fence()
        return True

    def refused(self, holding: Holding, answer: Refused, asked: Span, at: Span) -> bool:
        """Whether it lands. `asked`: when HubSpot was; `at`: when it was saved."""
        if not self._still_of(holding) or self._outdated(holding, answer):
            return False
        if isinstance(answer.error, InvalidGrant) and self.status is Status.REVOKED:
            self._refused_again(holding, answer, at)
            return True
        self._fail(answer, asked)
        if isinstance(answer.error, InvalidGrant):
            if self.status is Status.ACTIVE:
                self.tell(EventName.SUSPECTED, Status.SUSPECT, at)
            if answer.alive:
                self.held = False
                self.tell(EventName.RECOVERED, Status.ACTIVE, at)
            if answer.verdict:
                self._condemned(at)
        return True

    def confirmed(self, at: Span) -> bool:
        if not self.held:
            return False
        self.words += 1
        self.requested = False
        self._revoke(at)
        return True

    def dismissed(self, since: datetime, at: Span) -> bool:
        """What the brake holds is active again, and what was revoked after `since`."""
        lately = self.status is Status.REVOKED and self.status_since and self.status_since.earliest > since
        if not (self.held or lately):
            return False
        self.words += 1
        self.tell(EventName.RECOVERED, Status.ACTIVE, at)
        self.due = at.or_later(self.not_before)
        self.failures, self.requested, self.held = 0, False, False
        return True

    def _take(self, grant: Grant, granted: Span) -> None:
        self.access = Access(grant.access_token, granted, grant.expires_in)
        self.life, self.proven, self.refreshed_at = grant.expires_in, True, granted
        self.refresh_token = grant.refresh_token or self.refresh_token

    def _still_of(self, holding: Holding) -> bool:
        ours = self.holding is holding
        if ours:
            self.holding = None  # landed or not, its lease is over
        return ours and self.generation == holding.generation

    def _outdated(self, holding: Holding, answer: Refused) -> bool:
        """An operator has had his word on revocations since: no late failure undoes it."""
        if answer.verdict and holding.dismissals != self.brake.dismissals:
            return True
        unmoved = holding.words == self.words
        return not (unmoved or (self.status is Status.REVOKED and (answer.verdict or answer.alive)))

    def _refused_again(self, holding: Holding, answer: Refused, at: Span) -> None:
        """HubSpot has not changed its mind about a revoked one: nothing to tell, and it is not tried any more."""
        confirmed_meanwhile = holding.words != self.words
        self.due = self.not_before = None
        self.failures += confirmed_meanwhile
        if confirmed_meanwhile and answer.alive:
            self.due = at.plus(0, 900)
            self.tell(EventName.RECOVERED, Status.ACTIVE, at)

    def _fail(self, answer: Refused, asked: Span) -> None:
        if not isinstance(answer.error, InvalidClient):
            if not self.failures:
                self.events.append(EventName.REFRESH_FAILED)
            self.failures += 1
        wait = answer.error.retry_after if isinstance(answer.error, TemporarilyUnavailable) else None
        self.not_before = asked.plus(wait) if wait else None
        self.due = retried(asked, max(self.failures, 1), self.life, wait or 0.0)

    def _condemned(self, at: Span) -> None:
        if self.brake.lets_pass(at):
            self._revoke(at)
        else:
            self.held = True
            self.due = retried(at, max(self.failures, 1), self.life, 0.0)

    def _revoke(self, at: Span) -> None:
        self.access = self.due = self.not_before = None
        self.held = False
        self.tell(EventName.REVOKED, Status.REVOKED, at)
