"""What HubSpot issues, in clear and encrypted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from shared.domain.customer import CustomerClaim
from shared.domain.identity import DEFAULT_APP, ConnectionIdentity
from shared.domain.values import immutable

#: For how long an access token is served where neither its reply nor introspection says how long it lives, unless the
#: last one lived shorter. HubSpot's live for 1,800 (docs/adr/0027).
UNKNOWN_LIFETIME_SECONDS = 60


@immutable
class Grant:
    """What HubSpot returned for a refresh token, in clear. `repr` hides the tokens.

    Never queued, logged or stored in this form: only an `EncryptedInstall` leaves the process. A field that a reply may
    leave out is None there; the stored value then stays.
    """

    access_token: str = field(repr=False)
    expires_in: int  #: seconds, counted from `granted_at`
    granted_at: datetime  #: the start of the request that brought it
    refresh_token: str | None = field(default=None, repr=False)
    hub_id: int | None = None
    scopes: tuple[str, ...] | None = None
    user_id: int | None = None  #: only of a user-level app, where the reply says it
    is_lifetime_known: bool = True  #: False: `expires_in` is UNKNOWN_LIFETIME_SECONDS

    @property
    def expires_at(self) -> datetime:
        return self.granted_at + timedelta(seconds=self.expires_in)


@dataclass(frozen=True, slots=True)
class ExchangedGrant:
    """What HubSpot returned for a code: always with a refresh token and an account.

    The access token is None where the reply had no usable one: then a refresh fetches another.
    """

    refresh_token: str = field(repr=False)
    hub_id: int
    granted_at: datetime  #: the start of the request that brought it
    access_token: str | None = field(default=None, repr=False)
    expires_in: int | None = None  #: seconds, counted from `granted_at`; None without an access token
    scopes: tuple[str, ...] | None = None
    user_id: int | None = None  #: None for an account-level app, and where HubSpot did not say it
    is_dated_by_host: bool = False  #: `granted_at` is by the clock of a web host, not by PostgreSQL's


@dataclass(frozen=True, slots=True)
class Introspection:
    """HubSpot's answer about one token."""

    active: bool
    hub_id: int | None = None
    hub_domain: str | None = None  #: the domain of the customer's account
    user: str | None = None  #: the e-mail address of the user who installed the app
    scopes: tuple[str, ...] | None = None
    expires_in: int | None = None  #: seconds that an access token still lives; None for a refresh token
    user_id: int | None = None  #: of the user who installed the app


@dataclass(frozen=True, slots=True)
class Install:
    """A grant before its row is stored, in clear.

    The access token may be missing, because a cookie is too small for it: then a refresh fetches another.
    """

    install_id: str  #: uuid4 text; storing the same install twice changes nothing
    hub_id: int
    granted_at: datetime
    refresh_token: str = field(repr=False)
    access_token: str | None = field(default=None, repr=False)
    expires_in: int | None = None  #: seconds, counted from `granted_at`
    scopes: tuple[str, ...] | None = None
    is_dated_by_host: bool = False  #: as in ExchangedGrant
    app: str = DEFAULT_APP
    user_id: int | None = None  #: None for an account-level app
    needs_user_id: bool = False  #: of a user-level app, and HubSpot has not said whose it is: ask before it is stored
    customer_claim: CustomerClaim | None = None  #: of the connect link by which the person came

    @property
    def identity(self) -> ConnectionIdentity:
        return ConnectionIdentity(self.app, self.hub_id, self.user_id)

    def without_access_token(self) -> Install:
        """The part that fits into a cookie."""
        return replace(self, access_token=None, expires_in=None, scopes=None)


@dataclass(frozen=True, slots=True)
class EncryptedInstall:
    """An `Install` as a message or a cookie carries it."""

    install_id: str
    hub_id: int
    ciphertext: str = field(repr=False)
