"""HubSpot, as far as a handshake and its tokens need it; the only place that knows its addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Literal, Protocol, TypeVar
from urllib.parse import quote, urlencode

from shared.domain.errors import InvalidClient, TemporarilyUnavailable
from shared.domain.grant import Grant, Introspection
from shared.hubspot import response_parsing
from shared.hubspot.response_parsing import Reply
from shared.hubspot.transport import Endpoint, Transport
from shared.net.deadline import deadline
from shared.tracing import SpanKind, trace_calls

T = TypeVar("T")

#: Our client secret was refused: the next one may be right.
SECRET_REFUSED = frozenset({"BAD_CLIENT_SECRET", "invalid_client", "unauthorized_client"})
#: The same, and the code was certainly not looked at: only then may it be sent once more, as it is good for one use.
SECRET_REFUSED_BEFORE_CODE = frozenset({"BAD_CLIENT_SECRET"})


class HubSpotSettings(Protocol):
    """What the client takes from the settings. `http_timeout_seconds` is in seconds, of one call as a whole."""

    @property
    def hubspot_client_id(self) -> str: ...
    @property
    def hubspot_client_secrets(self) -> tuple[str, ...]: ...
    @property
    def hubspot_redirect_uri(self) -> str: ...
    @property
    def hubspot_scopes(self) -> tuple[str, ...]: ...
    @property
    def hubspot_optional_scopes(self) -> tuple[str, ...]: ...
    @property
    def hubspot_api_url(self) -> str: ...
    @property
    def hubspot_app_url(self) -> str: ...
    @property
    def hubspot_api_version(self) -> str: ...
    @property
    def http_timeout_seconds(self) -> float: ...


class HubSpot:
    """One per process, used by all its threads. Every call raises ProviderError where HubSpot does not do as asked.

    Each call is over within `timeout` seconds, tries with several client secrets included: its socket is closed then.
    """

    def __init__(
        self,
        *,
        client_id: str,
        client_secrets: Sequence[str],
        redirect_uri: str,
        scopes: tuple[str, ...],
        optional_scopes: tuple[str, ...] = (),
        api_url: str,
        app_url: str,
        api_version: str,
        timeout: float,
        connections: int,
    ) -> None:
        """`client_secrets` are tried in this order; `connections` is how many calls at once keep theirs open."""
        self._app = {"client_id": client_id, "redirect_uri": redirect_uri, "scope": " ".join(scopes)}
        if optional_scopes:
            self._app["optional_scope"] = " ".join(optional_scopes)
        self._app_url = app_url.rstrip("/")
        self._secrets = tuple(client_secrets)
        self._credentials = tuple(urlencode({"client_id": client_id, "client_secret": each}) for each in self._secrets)
        self._preferred = 0
        self._timeout = timeout
        self._transport = Transport(connections)
        form = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        token = f"{api_url.rstrip('/')}/oauth/{api_version}/token"
        self._token = self._transport.endpoint("POST", token, **form)
        self._introspect = self._transport.endpoint("POST", f"{token}/introspect", **form)
        self._revoke = self._transport.endpoint("POST", f"{token}/revoke", **form)
        self._install = self._transport.endpoint(
            "DELETE", f"{api_url.rstrip('/')}/appinstalls/{api_version}/external-install"
        )

    @classmethod
    def from_settings(cls, settings: HubSpotSettings, connections: int) -> HubSpot:
        return cls(
            client_id=settings.hubspot_client_id,
            client_secrets=settings.hubspot_client_secrets,
            redirect_uri=settings.hubspot_redirect_uri,
            scopes=settings.hubspot_scopes,
            optional_scopes=settings.hubspot_optional_scopes,
            api_url=settings.hubspot_api_url,
            app_url=settings.hubspot_app_url,
            api_version=settings.hubspot_api_version,
            timeout=settings.http_timeout_seconds,
            connections=connections,
        )

    def authorize_url(self, state: str, hub_id: int | None = None) -> str:
        """The consent page; with `hub_id`, that account is preselected."""
        account = "" if hub_id is None else f"/{hub_id:d}"
        query = urlencode({**self._app, "state": state}, quote_via=quote, safe="")
        return f"{self._app_url}/oauth{account}/authorize?{query}"

    @trace_calls("hubspot.exchange", SpanKind.CLIENT)
    def exchange(self, code: str, clock: Callable[[], datetime]) -> Grant:
        """What HubSpot grants for a code, always with refresh token and hub. The code is spent, whatever happens.

        `clock` tells when the request begins, from which the token's life is counted.
        """
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self._app["redirect_uri"]}
        read = partial(response_parsing.parse_exchange, granted_at=clock())
        grant = self._ask(self._token, form, read, code, SECRET_REFUSED_BEFORE_CODE)
        if grant.refresh_token is None:
            raise TemporarilyUnavailable("no_refresh_token")
        return grant if grant.hub_id is not None else self._located(grant)

    @trace_calls("hubspot.refresh", SpanKind.CLIENT)
    def refresh(self, refresh_token: str, clock: Callable[[], datetime]) -> Grant:
        """The next access token. `clock` tells when the request begins, from which the token's life is counted."""
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return self._ask(self._token, form, partial(response_parsing.parse_refresh, granted_at=clock()), refresh_token)

    @trace_calls("hubspot.introspect", SpanKind.CLIENT)
    def introspect(self, token: str, kind: Literal["access_token", "refresh_token"]) -> Introspection:
        """What HubSpot knows of a token; of one that is dead only that."""
        form = {"token": token, "token_type_hint": kind}
        return self._ask(self._introspect, form, response_parsing.parse_introspection, token)

    @trace_calls("hubspot.revoke", SpanKind.CLIENT)
    def revoke(self, refresh_token: str) -> None:
        """Ends a refresh token; access tokens that it brought live on."""
        form = {"token": refresh_token, "token_type_hint": "refresh_token"}
        self._ask(self._revoke, form, response_parsing.parse_empty, refresh_token)

    @trace_calls("hubspot.uninstall", SpanKind.CLIENT)
    def uninstall(self, access_token: str) -> None:
        """Removes the app from the account; HubSpot tells its administrators by mail."""
        bearer = {"Authorization": f"Bearer {access_token}"}
        with deadline(self._timeout):
            response_parsing.parse_empty(self._transport.send(self._install, None, bearer, secrets=(access_token,)))

    def close(self) -> None:
        self._transport.close()

    def _ask(
        self,
        endpoint: Endpoint,
        form: Mapping[str, str],
        read: Callable[[Reply], T],
        token: str,
        try_next_after: frozenset[str] = SECRET_REFUSED,
    ) -> T:
        """Sends the form with one client secret after the other, until one is not refused."""
        first = self._preferred
        with deadline(self._timeout):
            for step in range(len(self._secrets)):
                number = (first + step) % len(self._secrets)
                reply = self._send(endpoint, form, number, token)
                try:
                    return read(reply)
                except InvalidClient as error:
                    if error.code not in try_next_after or step + 1 == len(self._secrets):
                        raise
                # From now on the next one comes first. Threads may race here: at worst a call has one try too many.
                self._preferred = (number + 1) % len(self._secrets)
        raise InvalidClient("no_client_secret")

    def _send(self, endpoint: Endpoint, form: Mapping[str, str], number: int, token: str) -> Reply:
        body = f"{urlencode(form, errors='replace')}&{self._credentials[number]}".encode("ascii")
        return self._transport.send(endpoint, body, secrets=(token, self._secrets[number]))

    def _located(self, grant: Grant) -> Grant:
        """A reply may leave the hub out. The code is spent: HubSpot is asked whose the access token is."""
        seen = self.introspect(grant.access_token, "access_token")
        if seen.hub_id is None:
            raise TemporarilyUnavailable("no_hub_id")
        return replace(grant, hub_id=seen.hub_id, scopes=grant.scopes or seen.scopes)
