"""The rows that the simulator stores. Times are seconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Account:
    hub_id: int
    name: str
    domain: str
    user: str
    generation: int  #: access tokens of an older generation are revoked


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
    revoked_at: float | None  #: may lie in the future: a rotated token stays valid until then

    def is_valid(self, now: float) -> bool:
        return self.revoked_at is None or self.revoked_at > now
