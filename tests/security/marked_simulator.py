"""The HubSpot simulator with a mark in every code and token that it issues."""

from __future__ import annotations

import os
import threading
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from sandbox.simulator.access_tokens import MIN_TOKEN_CHARACTERS, TOKEN_FIELDS, TOKEN_PREFIX, AccessToken, AccessTokens
from sandbox.simulator.accounts import Accounts
from sandbox.simulator.behaviour import Behaviour, BehaviourSettings
from sandbox.simulator.control import SimulatorControl
from sandbox.simulator.database import SimulatorDatabase
from sandbox.simulator.journal import AppToken, Journal
from sandbox.simulator.records import Code, Installation
from sandbox.simulator.server import SimulatorServer
from sandbox.simulator.simulation import Consent, Simulation
from tests.security.markers import Mark


class MarkedAccounts(Accounts):
    def __init__(self, database: SimulatorDatabase, refresh: Mark, code: Mark) -> None:
        super().__init__(database)
        self._refresh, self._code = refresh, code

    def marked_code(self, code: str) -> str:
        return f"{code[: -len(self._code.text)]}{self._code.text}"

    def add_code(self, code: Code, now: float) -> None:
        super().add_code(replace(code, code=self.marked_code(code.code)), now)

    def _insert_refresh_token(self, installation: Installation, scopes: str) -> str:
        token = super()._insert_refresh_token(installation, scopes)
        marked = f"{token[: -len(self._refresh.text)]}{self._refresh.text}"
        self._db.execute("UPDATE refresh_tokens SET token = ? WHERE token = ?", marked, token)
        return marked


class MarkedTokens(AccessTokens):
    def __init__(self, key: bytes, mark: Mark) -> None:
        super().__init__(key)
        self._dice = b64decode(mark.text)  # six bytes, that begin a group of base64

    def encode(self, token: AccessToken, length: int) -> str:
        """The mark is in the first 64 characters, because PostgreSQL quotes 64 characters of a refused row."""
        times = int(token.issued_at * 1000), int(token.expires_at * 1000)
        facts = TOKEN_FIELDS.pack(
            self._dice + os.urandom(3), token.hub_id, token.app_id, token.user_id, token.generation, *times
        )
        filler = "x" * (length - MIN_TOKEN_CHARACTERS)
        return TOKEN_PREFIX + urlsafe_b64encode(facts + self._mac(facts, filler)).decode() + filler


class MarkedJournal(Journal):
    def __init__(self, database: SimulatorDatabase, get_app_id: Callable[[str], int], mark: Mark) -> None:
        super().__init__(database, get_app_id)
        self._mark = mark

    def issue_app_token(self, client_id: str, scopes: tuple[str, ...], expires_at: float) -> AppToken:
        token = super().issue_app_token(client_id, scopes, expires_at)
        marked = f"{token.token[: -len(self._mark.text)]}{self._mark.text}"
        self._db.execute("UPDATE app_tokens SET token = ? WHERE token = ?", marked, token.token)
        return replace(token, token=marked)


class MarkedHubSpot(Simulation):
    def __init__(self, access: Mark, refresh: Mark, code: Mark, behaviour: BehaviourSettings) -> None:
        super().__init__(time.time, behaviour)
        self.accounts = self._marked = MarkedAccounts(self.database, refresh, code)
        self._tokens = MarkedTokens(self.accounts.read_signing_key(), access)
        # An app's own token is allowed nowhere, as a refresh token in clear is not.
        self.journal = MarkedJournal(self.database, self.accounts.get_app_id, refresh)

    def issue_code(self, hub_id: int, consent: Consent) -> str:
        return self._marked.marked_code(super().issue_code(hub_id, consent))


@contextmanager
def run_marked_simulator(access: Mark, refresh: Mark, code: Mark, secret: str) -> Iterator[SimulatorControl]:
    state = MarkedHubSpot(access, refresh, code, BehaviourSettings(Behaviour(client_secrets=(secret,))))
    server = SimulatorServer(state, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        with SimulatorControl(f"http://127.0.0.1:{server.port}") as control:
            yield control
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        state.close()
