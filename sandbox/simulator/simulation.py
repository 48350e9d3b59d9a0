"""The simulated HubSpot as a whole: its stored state, its behaviour, its faults and its counters."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.simulator.access_tokens import AccessToken, AccessTokens
from sandbox.simulator.accounts import Accounts
from sandbox.simulator.answers import Answer, Refused, make_ok
from sandbox.simulator.behaviour import Behaviour, BehaviourSettings
from sandbox.simulator.counters import Counters
from sandbox.simulator.faults import Faults
from sandbox.simulator.records import Code, RefreshToken


@dataclass(frozen=True, slots=True)
class Consent:
    """What a person agreed to on the consent page."""

    client_id: str
    redirect_uri: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AccessTokenStatus:
    state: str  #: live, expired, revoked or unknown
    token: AccessToken | None = None  #: None where it is unknown


class Simulation:
    """`clock` gives seconds since 1970. Behaviour, faults and counters are lost when the process ends."""

    def __init__(self, clock: Callable[[], float], behaviour: Behaviour | None = None, path: str = ":memory:") -> None:
        self.clock = clock
        self.accounts = Accounts(path)
        self.behaviour = BehaviourSettings(behaviour or Behaviour())
        self.faults = Faults()
        self.counters = Counters(clock)
        self._tokens = AccessTokens(self.accounts.read_signing_key())

    def close(self) -> None:
        self.accounts.close()

    def reset_accounts(self) -> None:
        """The demo accounts and no others; earlier tokens become unknown."""
        self.accounts.reset()
        self._tokens = AccessTokens(self.accounts.read_signing_key())

    def issue_code(self, hub_id: int, consent: Consent) -> str:
        """The authorization code that is sent to the app."""
        self.accounts.get_account(hub_id)
        now = self.clock()
        code = Code(
            code=f"na1-{uuid.uuid4()}",
            hub_id=hub_id,
            client_id=consent.client_id,
            redirect_uri=consent.redirect_uri,
            scopes=consent.scopes,
            expires_at=now + self.behaviour.for_hub(hub_id).code_lifetime,
        )
        self.accounts.add_code(code, now)
        return code.code

    def exchange(self, code: str, client_id: str, redirect_uri: str) -> Answer:
        """Raises Refused. Only an exchange that succeeds consumes the code."""
        stored = self.accounts.find_code(code)
        if stored is None or stored.client_id != client_id:
            raise Refused("BAD_AUTH_CODE")
        if stored.redirect_uri != redirect_uri:
            raise Refused("MISMATCH_REDIRECT_URI_AUTH_CODE" if redirect_uri else "BAD_REDIRECT_URI")
        if stored.expires_at <= self.clock():
            raise Refused("EXPIRED_AUTH_CODE")
        if not self.accounts.consume_code(code):
            raise Refused("BAD_AUTH_CODE")
        reinstall = self.behaviour.for_hub(stored.hub_id).reinstall
        token = self.accounts.install(stored.hub_id, client_id, stored.scopes, reinstall, self.clock())
        return self._make_grant(stored.hub_id, token, stored.scopes)

    def refresh(self, token: str, client_id: str) -> Answer:
        """Raises Refused. Another app's client id gets BAD_REFRESH_TOKEN, as HubSpot is reported to answer."""
        stored, now = self.accounts.find_refresh_token(token), self.clock()
        if stored is None or stored.client_id != client_id or not stored.is_valid(now):
            raise Refused("BAD_REFRESH_TOKEN")
        grace_seconds = self.behaviour.for_hub(stored.hub_id).rotation
        if grace_seconds is not None:
            token = self.accounts.rotate(stored, grace_seconds, now)
        return self._make_grant(stored.hub_id, token, stored.scopes)

    def install(self, hub_id: int) -> str:
        """Installs the app without a browser; returns the account's refresh token."""
        reinstall = self.behaviour.for_hub(hub_id).reinstall
        return self.accounts.install(hub_id, *self._default_app(), reinstall, self.clock())

    def install_many(self, hub_ids: Iterable[int]) -> list[tuple[int, str]]:
        """Each account gets a new refresh token, also where it had one."""
        return self.accounts.install_many(hub_ids, *self._default_app())

    def uninstall(self, hub_id: int, *, keep_access_tokens: bool | None = None) -> None:
        """By the customer or by the app. None: as the setting `uninstall_spares_access_tokens` says."""
        default = self.behaviour.for_hub(hub_id).uninstall_spares_access_tokens
        keep = default if keep_access_tokens is None else keep_access_tokens
        self.accounts.uninstall(hub_id, self.clock(), keep_access_tokens=keep)

    def check_access_token(self, text: str) -> AccessTokenStatus:
        token = self._tokens.decode(text)
        if token is None:
            return AccessTokenStatus("unknown")
        if self.accounts.get_account(token.hub_id).generation != token.generation:
            return AccessTokenStatus("revoked", token)
        return AccessTokenStatus("live" if token.expires_at > self.clock() else "expired", token)

    def find_valid_refresh_token(self, token: str, client_id: str) -> RefreshToken | None:
        """None too where it belongs to another app."""
        stored = self.accounts.find_refresh_token(token)
        if stored is None or stored.client_id != client_id or not stored.is_valid(self.clock()):
            return None
        return stored

    def find_hub_id(self, form: Mapping[str, str]) -> int | None:
        """The account whose code or token a request contains, also where that is revoked or expired."""
        if token := form.get("refresh_token") or form.get("token"):
            found: RefreshToken | Code | AccessToken | None = self.accounts.find_refresh_token(token)
            found = found or self._tokens.decode(token)
        else:
            found = self.accounts.find_code(form.get("code", ""))
        return found.hub_id if found else None

    def _default_app(self) -> tuple[str, tuple[str, ...]]:
        """Client id and scopes."""
        common = self.behaviour.common
        return common.client_ids[0], common.required_scopes or ("oauth", "crm.objects.contacts.read")

    def _make_grant(self, hub_id: int, refresh_token: str, scopes: tuple[str, ...]) -> Answer:
        behaviour, now = self.behaviour.for_hub(hub_id), self.clock()
        generation = self.accounts.get_account(hub_id).generation
        access_token = AccessToken(hub_id, generation, now, now + behaviour.lifetime)
        fields: dict[str, Any] = {
            "token_type": "bearer",
            "refresh_token": refresh_token,
            "access_token": self._tokens.encode(access_token, behaviour.token_length),
            "hub_id": hub_id,
            "scopes": list(scopes),
            "expires_in": int(behaviour.lifetime),
            "token_use": "access_token",
        }
        return make_ok({name: value for name, value in fields.items() if name not in behaviour.omit})
