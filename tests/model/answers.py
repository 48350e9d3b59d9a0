"""What HubSpot may answer to a refresh, as plain values, and HubSpot played by one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from hypothesis import strategies as st

from shared.domain.errors import (
    AccountMigrating,
    InvalidClient,
    InvalidGrant,
    ProviderError,
    TemporarilyUnavailable,
    Throttled,
    UnknownRefusal,
    WrongHub,
)
from shared.domain.grant import Grant, Introspection

#: Seconds that tokens live: HubSpot's, and one that ends before a back-off of minutes is over.
LIVES = st.sampled_from([1800, 60])
SCOPES = st.sampled_from([("oauth", "contacts"), ("contacts", "oauth", "files")])


class Rotation(StrEnum):
    """What of a refresh token is in the reply."""

    SAME = "same"
    NEW = "new"
    LEFT_OUT = "left out"


@dataclass(frozen=True, slots=True)
class Granted:
    expires_in: int = 1800
    rotation: Rotation = Rotation.SAME
    scopes: tuple[str, ...] | None = None
    names_hub: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    error: ProviderError
    witness: Introspection | ProviderError | None = None  #: what introspection says, where it is asked

    @property
    def verdict(self) -> bool:
        """Both witnesses call the grant dead. One of another account is no witness of this one's death."""
        accused = isinstance(self.error, InvalidGrant) and not isinstance(self.error, WrongHub)
        return accused and isinstance(self.witness, Introspection) and not self.witness.active

    @property
    def alive(self) -> bool:
        """The second witness contradicts the first."""
        accused = isinstance(self.error, InvalidGrant) and not isinstance(self.error, WrongHub)
        return accused and isinstance(self.witness, Introspection) and self.witness.active


Answer = Granted | Refused
DEAD, ALIVE = Introspection(active=False), Introspection(active=True)
SUCCESSES = st.builds(
    Granted,
    expires_in=LIVES,
    rotation=st.sampled_from(Rotation),
    scopes=st.one_of(st.none(), SCOPES),
    names_hub=st.booleans(),
)
CALLED_DEAD = [
    Refused(InvalidGrant("BAD_REFRESH_TOKEN", http_status=400), DEAD),
    Refused(InvalidGrant("BAD_REFRESH_TOKEN", http_status=400), ALIVE),
    Refused(InvalidGrant("BAD_REFRESH_TOKEN", http_status=400), TemporarilyUnavailable("timeout")),
    Refused(WrongHub("another_hub"), DEAD),
]
TROUBLES = [
    Refused(TemporarilyUnavailable("timeout")),
    Refused(AccountMigrating("477", http_status=477, retry_after=7200.0)),
    Refused(Throttled("429", http_status=429, retry_after=30.0)),
    Refused(InvalidClient("BAD_CLIENT_SECRET", http_status=400)),
    Refused(UnknownRefusal("NEW_WORD", http_status=400)),
]
ANSWERS: st.SearchStrategy[Answer] = st.one_of(SUCCESSES, st.sampled_from(CALLED_DEAD), st.sampled_from(TROUBLES))


@dataclass(slots=True)
class PlayedHubSpot:
    """Gives one answer, and remembers when it was asked and what it handed out."""

    answer: Answer
    hub_id: int
    refresh_token: str  #: the one that it expects
    number: int  #: of what it hands out
    asked_at: datetime | None = None
    granted: Grant | None = None
    witnesses: list[str] = field(default_factory=list)

    def refresh(self, refresh_token: str, clock: Callable[[], datetime]) -> Grant:
        assert refresh_token == self.refresh_token, "another refresh token than the newest one of the claim"
        self.asked_at = clock()
        answer = self.answer
        if isinstance(answer, Granted):
            self.granted = self._grant(answer, self.asked_at)
            return self.granted
        if isinstance(answer.error, WrongHub):
            return Grant(f"access-{self.number}", 1800, self.asked_at, f"refresh-{self.number}", self.hub_id + 1)
        raise answer.error

    def introspect(self, token: str, kind: str) -> Introspection:
        assert (token, kind) == (self.refresh_token, "refresh_token")
        assert isinstance(self.answer, Refused)
        self.witnesses.append(token)
        witness = self.answer.witness
        if isinstance(witness, Introspection):
            return witness
        raise witness or TemporarilyUnavailable("timeout")

    def _grant(self, answer: Granted, asked_at: datetime) -> Grant:
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
