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
from sandbox.simulator.database import SimulatorDatabase
from sandbox.simulator.faults import Faults
from sandbox.simulator.journal import INSTALL, UNINSTALL, Journal
from sandbox.simulator.records import DEFAULT_USER_ID, NO_USER, Code, Installation, RefreshToken


@dataclass(frozen=True, slots=True)
class Consent:
    """What a person agreed to on the consent page."""

    client_id: str
    redirect_uri: str
    scopes: tuple[str, ...]
    user_id: int = NO_USER  #: of a user-level app


@dataclass(frozen=True, slots=True)
class AccessTokenStatus:
    state: str  #: live, expired, revoked or unknown
    token: AccessToken | None = None  #: None where it is unknown
    installation: Installation | None = None  #: like token


class Simulation:
    """`clock` gives seconds since 1970. Behaviour, faults and counters are lost when the process ends."""

    def __init__(
        self, clock: Callable[[], float], behaviour: BehaviourSettings | None = None, path: str = ":memory:"
    ) -> None:
        """Raises sqlite3.Error."""
        self.clock = clock
        self.database = SimulatorDatabase(path)
        self.accounts = Accounts(self.database)
        self.behaviour = behaviour or BehaviourSettings(Behaviour())
        self.faults = Faults()
        self.counters = Counters(clock)
        self.journal = Journal(self.database, self.accounts.get_app_id)
        self.signing_key = self.accounts.read_signing_key()
        self._tokens = AccessTokens(self.signing_key)

    def close(self) -> None:
        self.database.close()

    def reset_accounts(self) -> None:
        """The demo accounts and no others; earlier tokens become unknown."""
        self.accounts.reset()
        self.journal.reset()
        self.signing_key = self.accounts.read_signing_key()
        self._tokens = AccessTokens(self.signing_key)

    def issue_code(self, hub_id: int, consent: Consent) -> str:
        """The authorization code that is sent to the app."""
        hublet, now = self.accounts.get_account(hub_id).hublet, self.clock()
        code = Code(
            code=f"{hublet}-{uuid.uuid4()}",
            installation=Installation(hub_id, consent.client_id, consent.user_id),
            redirect_uri=consent.redirect_uri,
            scopes=consent.scopes,
            expires_at=now + self.behaviour.find(consent.client_id, hub_id).code_lifetime,
        )
        self.accounts.add_code(code, now)
        return code.code

    def exchange(self, code: str, client_id: str, redirect_uri: str) -> Answer:
        """Raises Refused. Only an exchange that succeeds consumes the code."""
        stored = self.accounts.find_code(code)
        if stored is None or stored.installation.client_id != client_id:
            raise Refused("BAD_AUTH_CODE")
        if stored.redirect_uri != redirect_uri:
            raise Refused("MISMATCH_REDIRECT_URI_AUTH_CODE" if redirect_uri else "BAD_REDIRECT_URI")
        if stored.expires_at <= self.clock():
            raise Refused("EXPIRED_AUTH_CODE")
        if not self.accounts.consume_code(code):
            raise Refused("BAD_AUTH_CODE")
        token = self._install(stored.installation, stored.scopes)
        return self._make_grant(stored.installation, token, stored.scopes)

    def refresh(self, token: str, client_id: str) -> Answer:
        """Raises Refused. Another app's client id gets BAD_REFRESH_TOKEN, as HubSpot is reported to answer."""
        stored, now = self.accounts.find_refresh_token(token), self.clock()
        if stored is None or stored.installation.client_id != client_id or not stored.is_valid(now):
            raise Refused("BAD_REFRESH_TOKEN")
        grace_seconds = self.behaviour.find(client_id, stored.installation.hub_id).rotation
        if grace_seconds is not None:
            token = self.accounts.rotate(stored, grace_seconds, now)
        return self._make_grant(stored.installation, token, stored.scopes)

    def issue_app_token(self, client_id: str, scopes: tuple[str, ...]) -> Answer:
        """By client credentials: it acts for the app. Raises Refused."""
        behaviour = self.behaviour.find(client_id)
        if behaviour.user_level:
            raise Refused("USER_LEVEL_CLIENT_CREDENTIALS_NOT_SUPPORTED")
        if not scopes or set(scopes) - set(behaviour.journal_scopes):
            raise Refused("BAD_SCOPES")
        token = self.journal.issue_app_token(client_id, scopes, self.clock() + behaviour.lifetime)
        fields = {
            "access_token": token.token,
            "expires_in": int(behaviour.lifetime),
            "token_type": "bearer",
            "token_use": "client_credentials",
            "scopes": list(scopes),
        }
        return make_ok({name: value for name, value in fields.items() if name not in behaviour.omit})

    def install(self, hub_id: int, client_id: str | None = None, user_id: int | None = None) -> str:
        """Installs an app (None: the first) without a browser; returns the refresh token."""
        app = client_id or self.behaviour.common.client_ids[0]
        return self._install(self.make_installation(hub_id, app, user_id), self.get_default_scopes(app))

    def install_many(self, hub_ids: Iterable[int], client_id: str | None = None) -> list[tuple[int, str]]:
        """Each account gets a new refresh token, also where it had one."""
        app = client_id or self.behaviour.common.client_ids[0]
        installations = [self.make_installation(hub_id, app, None) for hub_id in hub_ids]
        tokens = self.accounts.install_many(installations, self.get_default_scopes(app))
        self.journal.record(INSTALL, installations, self.clock())
        return [(each.hub_id, token) for each, token in zip(installations, tokens, strict=True)]

    def uninstall(self, installations: Iterable[Installation], *, keep_access_tokens: bool | None = None) -> None:
        """By the customer or by the app. None: as the setting `uninstall_spares_access_tokens` says."""
        by_keep: dict[bool, list[Installation]] = {}
        for each in installations:
            default = self.behaviour.find(each.client_id, each.hub_id).uninstall_spares_access_tokens
            by_keep.setdefault(default if keep_access_tokens is None else keep_access_tokens, []).append(each)
        for keep, group in by_keep.items():
            self.accounts.uninstall(group, self.clock(), keep_access_tokens=keep)
            self.journal.record(UNINSTALL, group, self.clock())

    def check_access_token(self, text: str) -> AccessTokenStatus:
        token = self._tokens.decode(text)
        installation = self._find_owner(token)
        if token is None or installation is None:
            return AccessTokenStatus("unknown")
        if self.accounts.find_generation(installation) != token.generation:
            return AccessTokenStatus("revoked", token, installation)
        state = "live" if token.expires_at > self.clock() else "expired"
        return AccessTokenStatus(state, token, installation)

    def find_valid_refresh_token(self, token: str, client_id: str) -> RefreshToken | None:
        """None too where it belongs to another app."""
        stored = self.accounts.find_refresh_token(token)
        if stored is None or stored.installation.client_id != client_id or not stored.is_valid(self.clock()):
            return None
        return stored

    def find_installation(self, form: Mapping[str, str]) -> Installation | None:
        """Whose code or token a request contains, also where that is revoked or expired."""
        if text := form.get("refresh_token") or form.get("token"):
            if refresh_token := self.accounts.find_refresh_token(text):
                return refresh_token.installation
            return self._find_owner(self._tokens.decode(text))
        code = self.accounts.find_code(form.get("code", ""))
        return code.installation if code else None

    def make_installation(self, hub_id: int, client_id: str, user_id: int | None) -> Installation:
        """`user_id` None: the first user, where the app is a user-level one; no user counts for another app."""
        is_user_level = self.behaviour.find(client_id).user_level
        return Installation(hub_id, client_id, (user_id or DEFAULT_USER_ID) if is_user_level else NO_USER)

    def get_default_scopes(self, client_id: str) -> tuple[str, ...]:
        return self.behaviour.find(client_id).required_scopes or ("oauth", "crm.objects.contacts.read")

    def _find_owner(self, token: AccessToken | None) -> Installation | None:
        client_id = self.accounts.find_client_id(token.app_id) if token else None
        return Installation(token.hub_id, client_id, token.user_id) if token and client_id else None

    def _install(self, installation: Installation, scopes: tuple[str, ...]) -> str:
        reinstall = self.behaviour.find(installation.client_id, installation.hub_id).reinstall
        token = self.accounts.install(installation, scopes, reinstall, self.clock())
        self.journal.record(INSTALL, [installation], self.clock())
        return token

    def _make_grant(self, installation: Installation, refresh_token: str, scopes: tuple[str, ...]) -> Answer:
        hub_id, client_id, user_id = installation.hub_id, installation.client_id, installation.user_id
        behaviour, now = self.behaviour.find(client_id, hub_id), self.clock()
        generation = self.accounts.find_generation(installation) or 0
        app_id = self.accounts.get_app_id(client_id)
        access_token = AccessToken(hub_id, app_id, user_id, generation, now, now + behaviour.lifetime)
        fields: dict[str, Any] = {
            "token_type": "bearer",
            "refresh_token": refresh_token,
            "access_token": self._tokens.encode(access_token, behaviour.token_length),
            "hub_id": hub_id,
            **({} if user_id == NO_USER else {"user_id": user_id}),
            "scopes": list(scopes),
            "expires_in": int(behaviour.lifetime),
            "token_use": "access_token",
        }
        return make_ok({name: value for name, value in fields.items() if name not in behaviour.omit})
