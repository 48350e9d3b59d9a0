"""The simulated HubSpot as a whole: what it remembers, how it is set, and what it was asked."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.simulator.access_tokens import AccessToken, AccessTokens
from sandbox.simulator.accounts import Accounts
from sandbox.simulator.answers import Answer, Refused, ok
from sandbox.simulator.behaviour import Behaviour, Panel
from sandbox.simulator.counters import Counters
from sandbox.simulator.faults import FaultBook
from sandbox.simulator.records import Code, RefreshToken


@dataclass(frozen=True, slots=True)
class Consent:
    """What a person has said yes to, or would."""

    client_id: str
    redirect_uri: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of an access token: live, expired, revoked or unknown."""

    state: str
    token: AccessToken | None = field(default=None)


class Simulation:
    """`clock` gives seconds since 1970. Knobs, faults and counters live as long as the process."""

    def __init__(self, clock: Callable[[], float], knobs: Behaviour | None = None, path: str = ":memory:") -> None:
        self.clock = clock
        self.accounts = Accounts(path)
        self.knobs = Panel(knobs or Behaviour())
        self.faults = FaultBook()
        self.counters = Counters(clock)
        self._tokens = AccessTokens(self.accounts.signing_key())

    def close(self) -> None:
        self.accounts.close()

    def forget(self) -> None:
        """The demo accounts and nothing else; tokens of before are unknown."""
        self.accounts.forget()
        self._tokens = AccessTokens(self.accounts.signing_key())

    def consented(self, hub_id: int, consent: Consent) -> str:
        """The code that goes back to the app."""
        self.accounts.account(hub_id)
        now = self.clock()
        expires_at = now + self.knobs.of(hub_id).code_lifetime
        code = Code(
            f"na1-{uuid.uuid4()}",
            hub_id,
            consent.client_id,
            consent.redirect_uri,
            consent.scopes,
            expires_at,
        )
        self.accounts.add_code(code, now)
        return code.code

    def exchange(self, code: str, client_id: str, redirect_uri: str) -> Answer:
        """Raises Refused. A code is spent by the exchange that succeeds, and by no other."""
        known = self.accounts.code(code)
        if known is None or known.client_id != client_id:
            raise Refused("BAD_AUTH_CODE")
        if known.redirect_uri != redirect_uri:
            raise Refused("MISMATCH_REDIRECT_URI_AUTH_CODE" if redirect_uri else "BAD_REDIRECT_URI")
        if known.expires_at <= self.clock():
            raise Refused("EXPIRED_AUTH_CODE")
        if not self.accounts.spend(code):
            raise Refused("BAD_AUTH_CODE")
        how = self.knobs.of(known.hub_id).reinstall
        token = self.accounts.install(known.hub_id, client_id, known.scopes, how, self.clock())
        return self._granted(known.hub_id, token, known.scopes)

    def refresh(self, token: str, client_id: str) -> Answer:
        """Raises Refused. Another app's client id meets a bad refresh token, as reported of HubSpot."""
        known, now = self.accounts.refresh_token(token), self.clock()
        if known is None or known.client_id != client_id or not known.lives(now):
            raise Refused("BAD_REFRESH_TOKEN")
        grace = self.knobs.of(known.hub_id).rotation
        if grace is not None:
            token = self.accounts.rotate(known, grace, now)
        return self._granted(known.hub_id, token, known.scopes)

    def install(self, hub_id: int) -> str:
        """The app is installed without a browser: the account's refresh token."""
        how = self.knobs.of(hub_id).reinstall
        return self.accounts.install(hub_id, *self._app(), how, self.clock())

    def install_many(self, hub_ids: Iterable[int]) -> list[tuple[int, str]]:
        """The same for many at once; each gets a refresh token of its own, also where it had one."""
        return self.accounts.install_many(hub_ids, *self._app())

    def _app(self) -> tuple[str, tuple[str, ...]]:
        base = self.knobs.base
        return base.client_ids[0], base.required_scopes or ("oauth", "crm.objects.contacts.read")

    def uninstall(self, hub_id: int, *, keep_access_tokens: bool | None = None) -> None:
        """The customer removes the app, or the app itself does."""
        spare = self.knobs.of(hub_id).uninstall_spares_access_tokens
        keep = spare if keep_access_tokens is None else keep_access_tokens
        self.accounts.uninstall(hub_id, self.clock(), keep_access_tokens=keep)

    def sight(self, text: str) -> Sight:
        token = self._tokens.read(text)
        if token is None:
            return Sight("unknown")
        if self.accounts.account(token.hub_id).generation != token.generation:
            return Sight("revoked", token)
        return Sight("live" if token.expires_at > self.clock() else "expired", token)

    def living(self, token: str, client_id: str) -> RefreshToken | None:
        """A refresh token of that app which still works."""
        known = self.accounts.refresh_token(token)
        mine = known is not None and known.client_id == client_id
        return known if known and mine and known.lives(self.clock()) else None

    def hub_of(self, form: Mapping[str, str]) -> int | None:
        """The account that a request speaks of, by the code or token in it; dead ones count."""
        if token := form.get("refresh_token") or form.get("token"):
            known: RefreshToken | Code | AccessToken | None = self.accounts.refresh_token(token)
            known = known or self._tokens.read(token)
        else:
            known = self.accounts.code(form.get("code", ""))
        return known.hub_id if known else None

    def _granted(self, hub_id: int, refresh_token: str, scopes: tuple[str, ...]) -> Answer:
        knobs, now = self.knobs.of(hub_id), self.clock()
        generation = self.accounts.account(hub_id).generation
        minted = AccessToken(hub_id, generation, now, now + knobs.lifetime)
        fields: dict[str, Any] = {
            "token_type": "bearer",
            "refresh_token": refresh_token,
            "access_token": self._tokens.mint(minted, knobs.token_length),
            "hub_id": hub_id,
            "scopes": list(scopes),
            "expires_in": int(knobs.lifetime),
            "token_use": "access_token",
        }
        return ok({name: value for name, value in fields.items() if name not in knobs.omit})
