"""What HubSpot hands out, in clear and sealed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Grant:
    """What HubSpot returned for a code or a refresh token, in clear.

    Never queued, logged or stored as it is: `repr` hides the tokens, and only a `EncryptedInstall` travels.
    Fields that a reply may leave out are None: what is stored already stays.
    """

    access_token: str = field(repr=False)
    expires_in: int  #: seconds, counted from `granted_at`
    granted_at: datetime  #: when the request that brought it was begun
    refresh_token: str | None = field(default=None, repr=False)
    hub_id: int | None = None
    scopes: tuple[str, ...] | None = None

    @property
    def expires_at(self) -> datetime:
        return self.granted_at + timedelta(seconds=self.expires_in)


@dataclass(frozen=True, slots=True)
class Introspection:
    """What HubSpot says of a token it was asked about."""

    active: bool
    hub_id: int | None = None
    hub_domain: str | None = None  #: the customer's web site, not HubSpot's host
    user: str | None = None  #: the e-mail address of the person who installed the app
    scopes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Install:
    """A grant on its way to its first row, in clear.

    The access token may be missing: a cookie is too small for it, and a refresh fetches another.
    """

    install_id: str  #: uuid4 text; storing the same install twice changes nothing
    hub_id: int
    granted_at: datetime
    refresh_token: str = field(repr=False)
    access_token: str | None = field(default=None, repr=False)
    expires_in: int | None = None  #: seconds, counted from `granted_at`
    scopes: tuple[str, ...] | None = None

    def without_access_token(self) -> Install:
        """What is needed to come back, and no more."""
        return replace(self, access_token=None, expires_in=None, scopes=None)


@dataclass(frozen=True, slots=True)
class EncryptedInstall:
    """An `Install` as it travels and waits: the only form that is queued or put into a cookie."""

    install_id: str
    hub_id: int
    ciphertext: str = field(repr=False)
