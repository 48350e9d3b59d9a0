"""HubSpot's OAuth API. Only this package knows HubSpot's addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Literal, TypeVar
from urllib.parse import quote, quote_plus, urlencode

from shared.domain.account import AccountDetails
from shared.domain.errors import InvalidClient, ProviderError, TemporarilyUnavailable
from shared.domain.grant import UNKNOWN_LIFETIME_SECONDS, ExchangedGrant, Grant, Introspection
from shared.hubspot.account_parsing import parse_account_details
from shared.hubspot.response_parsing import (
    AppToken,
    IssuedTokens,
    Reply,
    parse_app_token,
    parse_empty,
    parse_exchange,
    parse_introspection,
    parse_refresh,
)
from shared.hubspot.transport import Steps, Transport, send
from shared.net.http_call import Endpoint
from shared.settings import Settings
from shared.settings.hubspot_app import HubSpotApp
from shared.tracing import SpanKind, trace_steps

T = TypeVar("T")
#: What a form leaves as it is: HubSpot's refresh tokens have nothing else.
_UNRESERVED = re.compile(r"[A-Za-z0-9_.~-]+")
TokenKind = Literal["access_token", "refresh_token"]

#: Codes after which the next client secret is tried.
SECRET_REFUSED = frozenset({"BAD_CLIENT_SECRET", "invalid_client", "unauthorized_client"})
#: The same for an exchange. A code is good for one use, so it is sent again only where HubSpot has not looked at it.
SECRET_REFUSED_BEFORE_CODE = frozenset({"BAD_CLIENT_SECRET"})


class HubSpot:
    """The client of one app: one per process, used by all its threads.

    Every call raises ProviderError where HubSpot does not do as asked.

    A call ends within `timeout` seconds, attempts with several client secrets included.
    """

    def __init__(self, app: HubSpotApp, transport: Transport, *, api_url: str, app_url: str, timeout: float) -> None:
        """`transport` may serve several apps: the caller closes it. `timeout` in seconds."""
        self._app = app
        self._app_url = app_url.rstrip("/")
        self._secrets = app.client_secrets
        self._credentials = tuple(
            urlencode({"client_id": app.client_id, "client_secret": each}) for each in self._secrets
        )
        self._preferred_secret = 0
        self._timeout = timeout
        self._transport = transport
        form_headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        token_url = f"{api_url.rstrip('/')}/oauth/{app.api_version}/token"
        install_url = f"{api_url.rstrip('/')}/appinstalls/{app.api_version}/external-install"
        self._token_endpoint = transport.prepare_endpoint("POST", token_url, form_headers)
        self._introspect_endpoint = transport.prepare_endpoint("POST", f"{token_url}/introspect", form_headers)
        self._revoke_endpoint = transport.prepare_endpoint("POST", f"{token_url}/revoke", form_headers)
        self._install_endpoint = transport.prepare_endpoint("DELETE", install_url)
        account_url = f"{api_url.rstrip('/')}/account-info/{app.api_version}/details"
        self._account_endpoint = transport.prepare_endpoint("GET", account_url, {"Accept": "application/json"})

    @classmethod
    def for_app(cls, app: HubSpotApp, settings: Settings, transport: Transport) -> HubSpot:
        return cls(
            app,
            transport,
            api_url=settings.hubspot_api_url,
            app_url=settings.hubspot_app_url,
            timeout=settings.http_timeout_seconds,
        )

    def authorize_url(self, state: str, hub_id: int | None = None, conditional_scopes: Sequence[str] = ()) -> str:
        """The URL of the consent page; `hub_id` preselects that account. Asks for all optional scopes of the app.

        `conditional_scopes` are those of the app's that this install needs: HubSpot takes them in `scope`.
        """
        account = "" if hub_id is None else f"/{hub_id:d}"
        app = self._app
        fields = {"client_id": app.client_id, "redirect_uri": app.redirect_uri}
        fields["scope"] = " ".join(dict.fromkeys((*app.scopes, *conditional_scopes)))
        if app.optional_scopes:
            fields["optional_scope"] = " ".join(app.optional_scopes)
        query = urlencode({**fields, "state": state}, quote_via=quote, safe="")
        return f"{self._app_url}/oauth{account}/authorize?{query}"

    def exchange(self, code: str, granted_at: datetime, redirect_uri: str | None = None) -> ExchangedGrant:
        """Exchange a code. It is used up, also where this raises.

        `granted_at` is the time now, before the request: the token's lifetime counts from there. `redirect_uri` is the
        address to which HubSpot sent the code; None: the app's.
        """
        return self._transport.run(self._exchange_steps(code, granted_at, redirect_uri or self._app.redirect_uri))

    def refresh(self, refresh_token: str, granted_at: datetime) -> Grant:
        """Fetch the next access token. `granted_at` as in `exchange`. Raises NoAccessToken among others."""
        return self._transport.run(self.refresh_steps(refresh_token, granted_at))

    def introspect(self, token: str, kind: TokenKind, timeout: float | None = None) -> Introspection:
        """Ask about a token. For an inactive one HubSpot says no more than that. `timeout` in seconds, if shorter."""
        ends_at = None if timeout is None else monotonic() + min(timeout, self._timeout)
        return self._transport.run(self.introspect_steps(token, kind, ends_at))

    def read_account(self, access_token: str) -> AccountDetails:
        """Read what HubSpot says about the account: the first call of its API that the token is used for."""
        return self._transport.run(self._read_account_steps(access_token))

    def revoke(self, refresh_token: str) -> None:
        """Revoke a refresh token. Access tokens that it brought stay valid until they expire."""
        self._transport.run(self._revoke_steps(refresh_token))

    def uninstall(self, access_token: str) -> None:
        """Remove the app from the account. HubSpot notifies the account's administrators by e-mail."""
        self._transport.run(self._uninstall_steps(access_token))

    def start(self, steps: Steps[T], on_result: Callable[[T], None], on_error: Callable[[Exception], None]) -> None:
        """Run steps of this client beside others; see Transport.start()."""
        self._transport.start(steps, on_result, on_error)

    @trace_steps("hubspot.refresh", SpanKind.CLIENT)
    def refresh_steps(self, refresh_token: str, granted_at: datetime) -> Steps[Grant]:
        """As `refresh`, for steps that include it."""
        ends_at = monotonic() + self._timeout
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        parse = partial(parse_refresh, granted_at=granted_at, is_user_level=self._app.is_user_level)
        grant = yield from self._post(self._token_endpoint, form, parse, refresh_token, ends_at)
        return grant if grant.is_lifetime_known else (yield from self._find_lifetime(grant, ends_at))

    @trace_steps("hubspot.introspect", SpanKind.CLIENT)
    def introspect_steps(self, token: str, kind: TokenKind, ends_at: float | None = None) -> Steps[Introspection]:
        """As `introspect`, for steps that include it. `ends_at`: the deadline, by time.monotonic()."""
        form = {"token": token, "token_type_hint": kind}
        ends_at = monotonic() + self._timeout if ends_at is None else ends_at
        return (yield from self._post(self._introspect_endpoint, form, parse_introspection, token, ends_at))

    @trace_steps("hubspot.client_credentials", SpanKind.CLIENT)
    def app_token_steps(self, scopes: str, ends_at: float) -> Steps[AppToken]:
        """Fetch a token that acts for the app itself. `scopes`: separated by spaces."""
        form = {"grant_type": "client_credentials", "scope": scopes}
        return (yield from self._post(self._token_endpoint, form, parse_app_token, "", ends_at))

    @trace_steps("hubspot.exchange", SpanKind.CLIENT)
    def _exchange_steps(self, code: str, granted_at: datetime, redirect_uri: str) -> Steps[ExchangedGrant]:
        # 1. Exchange it. Without a refresh token there is nothing to keep.
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
        ends_at = monotonic() + self._timeout
        tokens = yield from self._post(
            self._token_endpoint, form, parse_exchange, code, ends_at, try_next_after=SECRET_REFUSED_BEFORE_CODE
        )
        if tokens.refresh_token is None:
            raise TemporarilyUnavailable("no_refresh_token")

        # 2. The code cannot be sent again, so introspection is asked for what the reply left out.
        has_lifetime = tokens.access_token is None or tokens.expires_in is not None
        has_user = tokens.user_id is not None or not self._app.is_user_level
        found = Introspection(active=True)
        if tokens.hub_id is None or not has_lifetime or not has_user:
            found = yield from self._introspect_issued(tokens)
        hub_id = found.hub_id if tokens.hub_id is None else tokens.hub_id
        if hub_id is None:
            raise TemporarilyUnavailable("no_hub_id")

        # 3. The grant. Without an access token it has no lifetime either.
        expires_in = tokens.expires_in or found.expires_in or UNKNOWN_LIFETIME_SECONDS
        return ExchangedGrant(
            refresh_token=tokens.refresh_token,
            hub_id=hub_id,
            granted_at=granted_at,
            access_token=tokens.access_token,
            expires_in=None if tokens.access_token is None else expires_in,
            scopes=found.scopes if tokens.scopes is None else tokens.scopes,
            user_id=(tokens.user_id or found.user_id) if self._app.is_user_level else None,
        )

    @trace_steps("hubspot.account_info", SpanKind.CLIENT)
    def _read_account_steps(self, access_token: str) -> Steps[AccountDetails]:
        headers = {"Authorization": f"Bearer {access_token}"}
        ends_at = monotonic() + self._timeout
        reply = yield from send(self._account_endpoint, None, ends_at, headers, secrets=(access_token,))
        return parse_account_details(reply)

    @trace_steps("hubspot.revoke", SpanKind.CLIENT)
    def _revoke_steps(self, refresh_token: str) -> Steps[None]:
        form = {"token": refresh_token, "token_type_hint": "refresh_token"}
        yield from self._post(self._revoke_endpoint, form, parse_empty, refresh_token, monotonic() + self._timeout)

    @trace_steps("hubspot.uninstall", SpanKind.CLIENT)
    def _uninstall_steps(self, access_token: str) -> Steps[None]:
        headers = {"Authorization": f"Bearer {access_token}"}
        ends_at = monotonic() + self._timeout
        parse_empty((yield from send(self._install_endpoint, None, ends_at, headers, secrets=(access_token,))))

    def _find_lifetime(self, grant: Grant, ends_at: float) -> Steps[Grant]:
        """Introspection knows how long an access token lives. Where it does not answer, the lifetime stays unknown."""
        try:
            answer = yield from self.introspect_steps(grant.access_token, "access_token", ends_at)
        except ProviderError:
            return grant
        if answer.expires_in is None:
            return grant
        return replace(grant, expires_in=answer.expires_in, is_lifetime_known=True)

    def _introspect_issued(self, tokens: IssuedTokens) -> Steps[Introspection]:
        """Raises ProviderError only where the account is not known without the answer."""
        try:
            if tokens.access_token is not None:
                return (yield from self.introspect_steps(tokens.access_token, "access_token"))
            return (yield from self.introspect_steps(str(tokens.refresh_token), "refresh_token"))
        except ProviderError:
            if tokens.hub_id is None:
                raise
            return Introspection(active=True)

    def _post(
        self,
        endpoint: Endpoint,
        form: Mapping[str, str],
        parse: Callable[[Reply], T],
        token: str,
        ends_at: float,
        *,
        try_next_after: frozenset[str] = SECRET_REFUSED,
    ) -> Steps[T]:
        """Send the form with one client secret after the other, until HubSpot accepts one.

        `token` is the one in the form; empty: it has none.
        """
        # As urlencode() does, which costs three times as much: names, and most values, need no quoting.
        fields = "&".join([f"{name}={_quote(value)}" for name, value in form.items()])
        tokens = (token,) if token else ()
        first = self._preferred_secret
        for tries in range(1, len(self._secrets) + 1):
            number = (first + tries - 1) % len(self._secrets)
            body = f"{fields}&{self._credentials[number]}".encode("ascii")
            reply = yield from send(endpoint, body, ends_at, secrets=(*tokens, self._secrets[number]))
            try:
                return parse(reply)
            except InvalidClient as error:
                if error.code not in try_next_after or tries == len(self._secrets):
                    raise
            # Later calls begin with the next secret. Calls may race here: one then has an attempt too many.
            self._preferred_secret = (number + 1) % len(self._secrets)
        raise InvalidClient("no_client_secret")


def _quote(value: str) -> str:
    return value if _UNRESERVED.fullmatch(value) else quote_plus(value, errors="replace")
