"""A disconnect calls HubSpot, and must not end an install of the same account that overlaps it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine

from shared.db.lifecycle.disconnects import DisconnectStore, DisconnectTokens
from shared.domain.errors import UnknownRefusal
from shared.domain.identity import DEFAULT_APP
from shared.token_cipher import TokenCipher
from shared.workflows.disconnect import DisconnectOutcome, disconnect, finish_disconnect
from tests.support.builders import HUB
from tests.support.hubspot import ScriptedHubSpot
from tests.support.stores import ConnectionFixture, SqlFixture

CIPHER = TokenCipher([Fernet.generate_key().decode()])


@dataclass
class DisconnectFixture:
    connections: ConnectionFixture
    sql: SqlFixture
    hubspot: ScriptedHubSpot = field(default_factory=ScriptedHubSpot)

    def install(self, name: str, *, ago: float = 0.0) -> None:
        self.connections.install(
            ago=ago,
            access_token=f"access-{name}",
            encrypted_refresh_token=CIPHER.encrypt_refresh_token(HUB, f"refresh-{name}"),
        )

    def run(
        self,
        store: DisconnectStore | None = None,
        cipher: TokenCipher = CIPHER,
        workflow: Callable[..., DisconnectOutcome] = disconnect,
    ) -> DisconnectOutcome:
        store = store or self.connections.stores.disconnects
        return workflow(self.connections.id_of(), store, {DEFAULT_APP: self.hubspot}, cipher)


@pytest.fixture
def old(connections: ConnectionFixture, sql: SqlFixture) -> DisconnectFixture:
    """A connection that was installed a minute ago."""
    fixture = DisconnectFixture(connections, sql)
    fixture.install("old", ago=60)
    return fixture


def test_a_disconnect_uninstalls_then_revokes_then_wipes(old: DisconnectFixture) -> None:
    assert old.run() is DisconnectOutcome.DISCONNECTED
    assert old.hubspot.calls == ["uninstall access-old", "revoke refresh-old"]
    row = old.sql.row()
    assert (row["status"], row["access_token"], row["encrypted_refresh_token"]) == ("disconnected", None, None)
    assert old.run() is DisconnectOutcome.NOTHING_TO_DO
    assert old.run(workflow=finish_disconnect) is DisconnectOutcome.NOTHING_TO_DO


def test_an_install_during_the_uninstall_is_not_revoked_and_is_refreshed_at_once(old: DisconnectFixture) -> None:
    old.hubspot.during_call = lambda: old.install("new")
    assert old.run() is DisconnectOutcome.REINSTALLED
    assert old.hubspot.calls == ["uninstall access-old"]
    assert (old.sql.row()["status"], old.sql.read_served_token()) == ("active", "access-new")
    assert old.connections.stores.claims.count_due(1) == 1, "HubSpot may have ended the new install too"


def test_an_install_before_the_first_call_is_neither_uninstalled_nor_revoked(
    old: DisconnectFixture, engine: Engine
) -> None:
    class DelayedStore(DisconnectStore):
        """The process stops for a while after it has read the tokens."""

        def read_tokens(self, connection_id: int) -> DisconnectTokens | None:
            tokens = super().read_tokens(connection_id)
            old.install("new")
            return tokens

    store = DelayedStore(engine)
    assert store.mark_and_read_tokens(old.connections.id_of()) is not None
    assert old.run(store, workflow=finish_disconnect) is DisconnectOutcome.REINSTALLED
    assert old.hubspot.calls == []
    assert old.sql.read_served_token() == "access-new"


def test_an_install_that_is_disconnected_again_during_the_uninstall_is_left_to_the_second_disconnect(
    old: DisconnectFixture,
) -> None:
    def install_and_disconnect() -> None:
        old.hubspot.during_call = lambda: None
        old.install("new")
        assert old.run() is DisconnectOutcome.DISCONNECTED

    old.hubspot.during_call = install_and_disconnect
    assert old.run() is DisconnectOutcome.REINSTALLED
    assert old.hubspot.calls == ["uninstall access-old", "uninstall access-new", "revoke refresh-new"]


def test_without_a_valid_access_token_or_a_key_nothing_is_called_for_it(old: DisconnectFixture) -> None:
    old.sql.set("expires_at = now() - interval '1 second'")
    other_key = TokenCipher([Fernet.generate_key().decode()])
    assert old.run(cipher=other_key) is DisconnectOutcome.DISCONNECTED
    assert old.hubspot.calls == []


def test_the_tokens_of_an_app_that_is_in_no_setting_any_more_are_wiped_without_a_call(old: DisconnectFixture) -> None:
    store = old.connections.stores.disconnects
    assert disconnect(old.connections.id_of(), store, {}, CIPHER) is DisconnectOutcome.DISCONNECTED
    assert old.sql.row()["encrypted_refresh_token"] is None


def test_a_refusal_of_hubspot_does_not_keep_the_tokens(old: DisconnectFixture) -> None:
    def refuse() -> None:
        raise UnknownRefusal("MISSING_SCOPES", http_status=403)

    old.hubspot.during_call = refuse
    assert old.run() is DisconnectOutcome.DISCONNECTED
    assert old.hubspot.calls == ["uninstall access-old", "revoke refresh-old"]
