"""Connect links: a JWT (HS256) by which our own product says for which customer a person connects an account.

Our product makes them with any JWT library, and calls nothing here (docs/connect-links.md). A link names the customer,
so it is worth as much as a sign-in to that customer: it lives for a short time and brings one installation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from shared.domain.customer import (
    MAX_CUSTOMER_CHARACTERS,
    MAX_LINK_ID_CHARACTERS,
    CustomerClaim,
    InvalidText,
    parse_customer,
    parse_text,
)
from shared.domain.hub_id import is_hub_id
from shared.domain.identity import DEFAULT_APP
from shared.domain.return_urls import parse_return_to
from shared.optional_imports import hide_optional
from shared.settings.hubspot_app import HubSpotApp

with hide_optional("cryptography.x509"):  # for signatures by public keys, which no link has: 2 MB
    import jwt

T = TypeVar("T")

ALGORITHM = "HS256"
MAX_LIFETIME = timedelta(days=7)
#: By which the clock of our product may be ahead of this one.
MAX_CLOCK_SKEW = timedelta(minutes=1)
#: Below what gunicorn takes as a request line (gunicorn.conf.py), whatever path is in front of it.
MAX_LINK_CHARACTERS = 7500
MAX_SCOPES, MAX_SCOPE_CHARACTERS = 100, 200
MAX_APP_CHARACTERS = 32
#: What some libraries add by themselves. Any other name is refused: a misspelt `hub_id` must not allow every account.
_IGNORED_CLAIMS = frozenset({"aud", "iat", "iss", "nbf", "sub"})
_CLAIMS = frozenset({"customer", "exp", "jti", "name", "return_to", "hub_id", "app", "scopes", "move"})
#: The times are checked here, by a given clock.
_DECODE_OPTIONS: Any = {f"verify_{name}": False for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}


class LinkRejected(Exception):
    """The link is not valid. `why` contains nothing of it but the names of claims. Never raised directly."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class LinkForged(LinkRejected):
    """Not signed with one of CONNECT_LINK_KEYS, or damaged on the way."""


class LinkMalformed(LinkRejected):
    """Signed with our key, and a claim is not as it has to be: a fault of the program that made it."""


class LinkExpired(LinkRejected):
    """Too old, or not valid yet."""


@dataclass(frozen=True, slots=True)
class ConnectLink:
    claim: CustomerClaim
    name: str | None = None  #: of the customer, for people
    return_to: str | None = None
    app: str | None = None  #: None: the link names none
    scopes: tuple[str, ...] = ()  #: of the app's conditional and optional ones


class ConnectLinks:
    """Signs and reads links."""

    def __init__(self, keys: Sequence[str], return_to_origins: Collection[str]) -> None:
        """`keys`, newest first: the first signs, all are accepted."""
        self._keys = keys
        self._return_to_origins = return_to_origins

    @property
    def are_enabled(self) -> bool:
        return bool(self._keys)

    def sign(self, link: ConnectLink) -> str:
        claims = {
            "customer": link.claim.customer,
            "exp": math.ceil(link.claim.link_expires_at.timestamp()),
            "jti": link.claim.link_id,
            "name": link.name,
            "return_to": link.return_to,
            "hub_id": link.claim.hub_id,
            "app": link.app,
            "scopes": list(link.scopes) or None,
            "move": link.claim.may_move or None,
        }
        given = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(given, self._keys[0], algorithm=ALGORITHM)

    def read(self, text: str, clock: Callable[[], datetime]) -> ConnectLink:
        """Raises LinkRejected. Not checked: whether it is spent, and whether its app has these scopes.

        `clock`, which may ask PostgreSQL, is called for a link with a valid signature only.
        """
        claims = self._verify_signature(text)
        if unknown := claims.keys() - _CLAIMS - _IGNORED_CLAIMS:
            raise LinkMalformed(f"unknown claims: {len(unknown)} (known are {', '.join(sorted(_CLAIMS))})")
        expires_at = _check_times(claims, clock())
        claim = CustomerClaim(
            customer=_require(claims, "customer", parse_customer),
            link_id=_require(claims, "jti", partial(parse_text, max_characters=MAX_LINK_ID_CHARACTERS)),
            link_expires_at=expires_at,
            may_move=_find(claims, "move", _parse_boolean) or False,
            hub_id=_find(claims, "hub_id", _parse_hub_id),
        )
        return ConnectLink(
            claim=claim,
            name=_find(claims, "name", partial(parse_text, max_characters=MAX_CUSTOMER_CHARACTERS)),
            return_to=_find(claims, "return_to", partial(parse_return_to, origins=self._return_to_origins)),
            app=_find(claims, "app", partial(parse_text, max_characters=MAX_APP_CHARACTERS)),
            scopes=_find(claims, "scopes", _parse_scopes) or (),
        )

    def _verify_signature(self, text: str) -> dict[str, Any]:
        if len(text) > MAX_LINK_CHARACTERS:
            raise LinkForged("it is too long")
        for key in self._keys:
            try:
                claims: dict[str, Any] = jwt.decode(text, key, algorithms=[ALGORITHM], options=_DECODE_OPTIONS)
            except jwt.InvalidSignatureError:
                continue
            except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
                raise LinkForged(f"it is no JWT signed by {ALGORITHM}: {type(error).__name__}") from None
            return claims
        raise LinkForged("none of CONNECT_LINK_KEYS signed it")


def find_app(link: ConnectLink, apps: Mapping[str, HubSpotApp]) -> HubSpotApp:
    """The app of the link; where it names none the only app, or the one named `default`. Raises LinkMalformed."""
    name = link.app or (DEFAULT_APP if len(apps) > 1 else next(iter(apps), DEFAULT_APP))
    app = apps.get(name)
    if app is None:
        raise LinkMalformed("app: the settings describe no such app" if link.app else "app: it is missing")
    if set(link.scopes) - {*app.conditional_scopes, *app.optional_scopes}:
        raise LinkMalformed("scopes: they must be conditional or optional ones of the app")
    return app


def _check_times(claims: Mapping[str, Any], now: datetime) -> datetime:
    """When the link expires. Raises LinkExpired, LinkMalformed."""
    expires_at = _require(claims, "exp", _parse_time)
    if expires_at <= now:
        raise LinkExpired("its exp is over")
    if expires_at > now + MAX_LIFETIME + MAX_CLOCK_SKEW:
        raise LinkMalformed(f"exp: it must be at most {MAX_LIFETIME.days} days ahead")
    for name in ("nbf", "iat"):
        begins_at = _find(claims, name, _parse_time)
        if begins_at is not None and begins_at > now + MAX_CLOCK_SKEW:
            raise LinkExpired(f"its {name} is in the future")
    return expires_at


def _require(claims: Mapping[str, Any], name: str, parse: Callable[[Any], T]) -> T:
    value = _find(claims, name, parse)
    if value is None:
        raise LinkMalformed(f"{name}: it is missing")
    return value


def _find(claims: Mapping[str, Any], name: str, parse: Callable[[Any], T]) -> T | None:
    """None where the claim is absent or null. Raises LinkMalformed."""
    value = claims.get(name)
    try:
        return None if value is None else parse(value)
    except InvalidText as error:
        raise LinkMalformed(f"{name}: {error}") from None


def _parse_time(value: object) -> datetime:
    """Epoch seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidText("it must be a number of seconds since 1970")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidText("it must be a number of seconds since 1970") from None


def _parse_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidText("it must be true or false")
    return value


def _parse_hub_id(value: object) -> int:
    if not (isinstance(value, int) and is_hub_id(value)):
        raise InvalidText("it must be the number of a HubSpot account")
    return value


def _parse_scopes(value: object) -> tuple[str, ...]:
    """A list, or a text with spaces."""
    scopes = value.split() if isinstance(value, str) else value
    if not isinstance(scopes, list) or len(scopes) > MAX_SCOPES:
        raise InvalidText("it must be a list of scopes, or a text with spaces")
    return tuple(dict.fromkeys(parse_text(scope, MAX_SCOPE_CHARACTERS) for scope in scopes))
