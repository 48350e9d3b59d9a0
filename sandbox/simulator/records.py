"""What the simulator remembers of an account, a code and a refresh token. Instants are seconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Account:
    hub_id: int
    name: str
    domain: str
    user: str
    generation: int  #: access tokens of an older one are dead


@dataclass(frozen=True, slots=True)
class Code:
    code: str = field(repr=False)
    hub_id: int
    client_id: str
    redirect_uri: str
    scopes: tuple[str, ...]
    expires_at: float


@dataclass(frozen=True, slots=True)
class RefreshToken:
    token: str = field(repr=False)
    hub_id: int
    client_id: str
    scopes: tuple[str, ...]
    dies_at: float | None  #: None: lives on

    def lives(self, now: float) -> bool:
        return self.dies_at is None or self.dies_at > now
