"""HubSpot's possible answers to a refresh as plain values, and a HubSpot that gives one of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from hypothesis import strategies as st

from shared.domain.errors import (
    AccountMigrating,
    InvalidClient,
    InvalidGrant,
    ProviderError,
    ScopesRejected,
    TemporarilyUnavailable,
    Throttled,
    UnknownRefusal,
    WrongHub,
)
from shared.domain.grant import Grant, Introspection
from tests.support.hubspot import StepsByCalls

#: The lifetime of HubSpot's tokens, and one that is shorter than a backoff of minutes.
LIFETIMES_SECONDS = st.sampled_from([1800, 60])
SCOPES = st.sampled_from([("oauth", "contacts"), ("contacts", "oauth", "files")])


class Rotation(StrEnum):
    """The refresh token in the reply."""

    SAME = "same"
    NEW = "new"
    LEFT_OUT = "left out"


@dataclass(frozen=True, slots=True)
class GrantAnswer:
    expires_in: int = 1800
    rotation: Rotation = Rotation.SAME
    scopes: tuple[str, ...] | None = None
    names_hub: bool = True


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    error: ProviderError
    introspection: Introspection | ProviderError | None = None  #: the answer to introspection, where it is asked

    @property
    def is_revocation(self) -> bool:
        """Refresh and introspection both reject the grant. A grant of another account is never revoked."""
        is_invalid_grant = isinstance(self.error, InvalidGrant) and not isinstance(self.error, WrongHub)
        return is_invalid_grant and isinstance(self.introspection, Introspection) and not self.introspection.active

    @property
    def is_contradicted(self) -> bool:
        """HubSpot refused the refresh, but its introspection says that the grant is active."""
        is_invalid_grant = isinstance(self.error, InvalidGrant) and not isinstance(self.error, WrongHub)
        return is_invalid_grant and isinstance(self.introspection, Introspection) and self.introspection.active


Answer = GrantAnswer | ErrorAnswer
INACTIVE, ACTIVE = Introspection(active=False), Introspection(active=True)
SUCCESSES = st.builds(
    GrantAnswer,
    expires_in=LIFETIMES_SECONDS,
    rotation=st.sampled_from(Rotation),
    scopes=st.one_of(st.none(), SCOPES),
    names_hub=st.booleans(),
)
INVALID_GRANTS = [
    ErrorAnswer(InvalidGrant("BAD_REFRESH_TOKEN", http_status=400), INACTIVE),
    ErrorAnswer(InvalidGrant("BAD_REFRESH_TOKEN", http_status=400), ACTIVE),
    ErrorAnswer(InvalidGrant("BAD_REFRESH_TOKEN", http_status=400), TemporarilyUnavailable("timeout")),
    ErrorAnswer(WrongHub("another_hub"), INACTIVE),
]
OTHER_ERRORS = [
    ErrorAnswer(TemporarilyUnavailable("timeout")),
    ErrorAnswer(AccountMigrating("477", http_status=477, retry_after=7200.0)),
    ErrorAnswer(Throttled("429", http_status=429, retry_after=30.0)),
    ErrorAnswer(InvalidClient("BAD_CLIENT_SECRET", http_status=400)),
    ErrorAnswer(UnknownRefusal("NEW_WORD", http_status=400)),
    ErrorAnswer(ScopesRejected("BAD_SCOPES", http_status=403)),
]
ANSWERS: st.SearchStrategy[Answer] = st.one_of(
    SUCCESSES, st.sampled_from(INVALID_GRANTS), st.sampled_from(OTHER_ERRORS)
)


@dataclass(slots=True)
class ScriptedHubSpot(StepsByCalls):
    """Gives one answer, and records when it was asked and what it issued."""

    answer: Answer
    hub_id: int
    refresh_token: str  #: the expected one
    number: int  #: in the tokens that it issues
    asked_at: datetime | None = None
    granted: Grant | None = None

    def refresh(self, refresh_token: str, granted_at: datetime) -> Grant:
        assert refresh_token == self.refresh_token, "another refresh token than the newest one of the claim"
        self.asked_at = granted_at
        answer = self.answer
        if isinstance(answer, GrantAnswer):
            self.granted = self._grant(answer, self.asked_at)
            return self.granted
        if isinstance(answer.error, WrongHub):
            return Grant(f"access-{self.number}", 1800, self.asked_at, f"refresh-{self.number}", self.hub_id + 1)
        raise answer.error

    def introspect(self, token: str, kind: str) -> Introspection:
        assert (token, kind) == (self.refresh_token, "refresh_token")
        assert isinstance(self.answer, ErrorAnswer)
        introspection = self.answer.introspection
        if isinstance(introspection, Introspection):
            return introspection
        raise introspection or TemporarilyUnavailable("timeout")

    def _grant(self, answer: GrantAnswer, asked_at: datetime) -> Grant:
        refresh_tokens = {
            Rotation.SAME: self.refresh_token,
            Rotation.NEW: f"refresh-{self.number}",
            Rotation.LEFT_OUT: None,
        }
        return Grant(
            access_token=f"access-{self.number}",
            expires_in=answer.expires_in,
            granted_at=asked_at,
            refresh_token=refresh_tokens[answer.rotation],
            hub_id=self.hub_id if answer.names_hub else None,
            scopes=answer.scopes,
        )
