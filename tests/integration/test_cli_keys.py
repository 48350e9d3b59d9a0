"""`tokenkeeper keys rotate`: every row under the newest key, nothing undone, and the proof."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine

from shared.db.lifecycle.imports import ImportRow
from shared.db.lifecycle.key_rotation import KeyRotationStore, ReencryptedToken
from shared.settings import Settings, SettingsError
from shared.startup_checks import check_database
from shared.token_cipher import TokenCipher
from shared.workflows.key_rotation import PAGE_ROWS
from tests.support.command import Command
from tests.support.environment import web_environment
from tests.support.stores import ConnectionFixture, SqlFixture

OLD, NEW, LOST = (Fernet.generate_key().decode() for _ in range(3))


@pytest.fixture
def tokenkeeper(environment: Callable[..., dict[str, str]]) -> Command:
    return Command(environment(TOKEN_KEYS=f"{NEW},{OLD}"))


def fill(connections: ConnectionFixture, hubs: range, key: str) -> None:
    cipher = TokenCipher([key])
    connections.stores.imports.import_rows(
        [ImportRow(hub_id, cipher.encrypt_refresh_token(hub_id, f"token-{hub_id}")) for hub_id in hubs]
    )


def opened(sql: SqlFixture, key: str) -> dict[int, str]:
    cipher = TokenCipher([key])
    rows = sql.rows("SELECT hub_id, encrypted_refresh_token FROM tokenkeeper.connections ORDER BY hub_id")
    return {
        hub_id: cipher.decrypt_refresh_token(hub_id, sealed)
        for hub_id, sealed in rows
        if sealed and cipher.can_decrypt(sealed)
    }


def test_every_row_comes_under_the_newest_key_and_a_second_run_has_nothing_to_do(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    fill(connections, range(1, PAGE_ROWS + 101), OLD)
    fill(connections, range(PAGE_ROWS + 101, PAGE_ROWS + 111), NEW)
    hubs = range(1, PAGE_ROWS + 111)
    ran = tokenkeeper("keys", "rotate")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("1,100 of 1,110 rows sealed anew\nno row needs an older key than the newest\n")
    assert opened(sql, NEW) == {hub_id: f"token-{hub_id}" for hub_id in hubs}
    before = sql.rows("SELECT * FROM tokenkeeper.connections ORDER BY hub_id")
    alone = tokenkeeper("keys", "rotate", TOKEN_KEYS=NEW)
    assert (alone.status, alone.out) == (0, "0 of 1,110 rows sealed anew\nno row needs an older key than the newest\n")
    assert sql.rows("SELECT * FROM tokenkeeper.connections ORDER BY hub_id") == before


def test_a_row_that_no_key_opens_is_named_and_the_rest_is_done(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    fill(connections, range(1, 11), OLD)
    fill(connections, range(11, 18), LOST)
    ran = tokenkeeper("keys", "rotate")
    assert (ran.status, ran.out) == (1, "10 of 17 rows sealed anew\n")
    assert ran.err.startswith("tokenkeeper: 7 hubs (11, 12, 13, 14, 15, …): does not open with TOKEN_KEYS: ")
    assert ran.err.count("\n") == 1
    assert list(opened(sql, NEW)) == list(range(1, 11))
    assert list(opened(sql, LOST)) == list(range(11, 18)), "left as they were"


def test_a_token_that_came_in_between_is_not_undone(
    engine: Engine, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    fill(connections, range(1, 3), OLD)
    rows = [ReencryptedToken(hub_id, sql.row(hub_id)["encrypted_refresh_token"], "resealed") for hub_id in (1, 2)]
    sql.set("encrypted_refresh_token = 'newer'", 1)
    assert KeyRotationStore(engine).replace_tokens(rows) == 1
    assert [sql.row(hub_id)["encrypted_refresh_token"] for hub_id in (1, 2)] == ["newer", "resealed"]
    assert KeyRotationStore(engine).replace_tokens([]) == 0


def test_a_refresh_in_flight_still_lands(engine: Engine, connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.due(1)
    in_flight = connections.claim_one(1)
    assert (
        KeyRotationStore(engine).replace_tokens([ReencryptedToken(1, in_flight.encrypted_refresh_token, "resealed")])
        == 1
    )
    assert connections.stores.results.save([connections.refreshed(in_flight)]).saved == {1}
    assert (sql.served(1), sql.row(1)["encrypted_refresh_token"]) == ("new-access", "resealed")


def test_what_no_key_opens_is_ended_and_may_be_installed_again(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    fill(connections, range(1, 4), OLD)
    fill(connections, range(4, 7), LOST)
    connections.stores.disconnects.mark_and_read_tokens(6)
    asked = tokenkeeper("keys", "lost")
    assert (asked.status, len(opened(sql, LOST))) == (1, 3), "nobody said yes"
    ran = tokenkeeper("keys", "lost", "--yes")
    assert (ran.status, ran.out, ran.err) == (0, "3 connections wait to be installed again\n", "")
    statuses = dict(sql.rows("SELECT hub_id, status FROM hubspot.connections"))  # type: ignore[arg-type]
    assert statuses == dict.fromkeys((1, 2, 3), "active") | dict.fromkeys((4, 5, 6), "disconnected")
    assert list(opened(sql, OLD)) == [1, 2, 3]
    assert sql.row(4)["encrypted_refresh_token"] is None
    assert "installed again" in sql.row(4)["status_reason"]
    assert [sql.events(hub_id) for hub_id in (4, 6)] == [["imported", "disconnected"]] * 2
    connections.install(4, encrypted_refresh_token=TokenCipher([NEW]).encrypt_refresh_token(4, "a-new-one"))
    assert sql.served(4)
    assert tokenkeeper("keys", "lost").out == "0 connections wait to be installed again\n", "and nobody is asked"


def test_with_every_key_lost_web_and_worker_start_again_after_it_is_said(
    environment: Callable[..., dict[str, str]], connections: ConnectionFixture
) -> None:
    fill(connections, range(1, 4), LOST)
    worker = environment(TOKEN_KEYS=NEW)
    with pytest.raises(SettingsError, match="decrypts nothing"):
        check_database(Settings.from_env(worker))
    assert Command(worker)("keys", "lost", "--yes").status == 0
    for each in (worker, web_environment(worker)):
        check_database(Settings.from_env(each))


def test_what_was_stored_meanwhile_is_not_forgotten(
    engine: Engine, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    fill(connections, range(1, 3), LOST)
    rows = [(hub_id, sql.row(hub_id)["encrypted_refresh_token"]) for hub_id in (1, 2)]
    fill_anew = TokenCipher([NEW]).encrypt_refresh_token(1, "installed-meanwhile")
    sql.set(f"encrypted_refresh_token = '{fill_anew}'", 1)
    assert KeyRotationStore(engine).disconnect_undecryptable(rows) == 1
    assert [sql.row(hub_id)["status"] for hub_id in (1, 2)] == ["active", "disconnected"]
    assert KeyRotationStore(engine).disconnect_undecryptable([]) == 0
