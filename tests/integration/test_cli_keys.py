"""`tokenkeeper keys`: `rotate` re-encrypts every row with the newest key; `lost` ends what no key decrypts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine

from shared.db.lifecycle.imports import ImportRow
from shared.db.lifecycle.key_rotation import KeyRotationStore, ReencryptedToken, TokenPlace
from shared.db.schema.privileges import WEB, WORKER
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


def read_tokens(sql: SqlFixture, key: str) -> dict[int, str]:
    cipher = TokenCipher([key])
    rows = sql.rows("SELECT hub_id, encrypted_refresh_token FROM tokenkeeper.connections ORDER BY hub_id")
    return {
        hub_id: cipher.decrypt_refresh_token(hub_id, ciphertext)
        for hub_id, ciphertext in rows
        if ciphertext and cipher.can_decrypt(ciphertext)
    }


def test_rotate_reencrypts_every_row_and_a_second_run_changes_nothing(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    fill(connections, range(1, PAGE_ROWS + 101), OLD)
    fill(connections, range(PAGE_ROWS + 101, PAGE_ROWS + 111), NEW)
    hubs = range(1, PAGE_ROWS + 111)
    result = tokenkeeper("keys", "rotate")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("1,100 of 1,110 rows re-encrypted\nno row needs an older key than the newest\n")
    assert read_tokens(sql, NEW) == {hub_id: f"token-{hub_id}" for hub_id in hubs}
    before = sql.rows("SELECT * FROM tokenkeeper.connections ORDER BY hub_id")
    alone = tokenkeeper("keys", "rotate", TOKEN_KEYS=NEW)
    assert (alone.status, alone.out) == (0, "0 of 1,110 rows re-encrypted\nno row needs an older key than the newest\n")
    assert sql.rows("SELECT * FROM tokenkeeper.connections ORDER BY hub_id") == before


def test_rotate_reports_a_row_that_no_key_decrypts_and_rotates_the_others(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    fill(connections, range(1, 11), OLD)
    fill(connections, range(11, 18), LOST)
    result = tokenkeeper("keys", "rotate")
    assert (result.status, result.out) == (1, "10 of 17 rows re-encrypted\n")
    assert result.err.startswith("tokenkeeper: 7 hubs (11, 12, 13, 14, 15, …): TOKEN_KEYS does not decrypt it: ")
    assert result.err.count("\n") == 1
    assert list(read_tokens(sql, NEW)) == list(range(1, 11))
    assert list(read_tokens(sql, LOST)) == list(range(11, 18)), "left as they were"


def test_rotate_fails_where_a_process_still_encrypts_with_the_older_key(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    """The trigger stands for a worker that stores its own token right after each update by `keys rotate`."""
    fill(connections, range(1, 4), OLD)
    sql.rows("CREATE FUNCTION keep_old() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'")
    sql.rows("CREATE TRIGGER keep BEFORE UPDATE ON tokenkeeper.connections FOR EACH ROW EXECUTE FUNCTION keep_old()")
    result = tokenkeeper("keys", "rotate")
    assert result.status == 1
    assert result.err.startswith("tokenkeeper: 3 rows need an older key again: ")
    assert result.err.count("\n") == 1


def test_keys_new_on_a_terminal_says_what_to_do_with_the_key(tokenkeeper: Command) -> None:
    key, *hint = tokenkeeper.run_on_terminal("keys", "new").screen_lines
    Fernet(key)
    assert "TOKEN_KEYS" in "".join(hint)


def test_rotate_does_not_overwrite_a_token_that_changed_meanwhile(
    engine: Engine, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    fill(connections, range(1, 3), OLD)
    stored = [sql.row(hub_id) for hub_id in (1, 2)]
    rows = [ReencryptedToken(row["id"], row["encrypted_refresh_token"], "reencrypted") for row in stored]
    sql.set("encrypted_refresh_token = 'newer'", 1)
    assert KeyRotationStore(engine).replace_tokens(TokenPlace.CONNECTIONS, rows) == 1
    assert [sql.row(hub_id)["encrypted_refresh_token"] for hub_id in (1, 2)] == ["newer", "reencrypted"]
    assert KeyRotationStore(engine).replace_tokens(TokenPlace.CONNECTIONS, []) == 0


def test_a_refresh_in_flight_is_still_saved_after_rotation(
    engine: Engine, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install_due(1)
    in_flight = connections.claim_one(1)
    reencrypted = ReencryptedToken(sql.row(1)["id"], in_flight.encrypted_refresh_token, "reencrypted")
    assert KeyRotationStore(engine).replace_tokens(TokenPlace.CONNECTIONS, [reencrypted]) == 1
    assert connections.stores.results.save([connections.make_success(in_flight)]).saved == connections.ids(1)
    assert (sql.read_served_token(1), sql.row(1)["encrypted_refresh_token"]) == ("new-access", "reencrypted")


def test_lost_ends_connections_that_no_key_decrypts_and_they_can_be_installed_again(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    fill(connections, range(1, 4), OLD)
    fill(connections, range(4, 7), LOST)
    connections.stores.disconnects.mark_and_read_tokens(connections.id_of(6))
    asked = tokenkeeper("keys", "lost")
    assert (asked.status, len(read_tokens(sql, LOST))) == (2, 3)
    assert "add --yes" in asked.err
    refused = tokenkeeper.run_on_terminal("keys", "lost", answer="n\n")
    assert (refused.status, len(read_tokens(sql, LOST))) == (1, 3)
    result = tokenkeeper("keys", "lost", "--yes")
    assert (result.status, result.out, result.err) == (0, "3 connections wait to be installed again\n", "")
    statuses = dict(sql.rows("SELECT hub_id, status FROM hubspot.connections"))  # type: ignore[arg-type]
    assert statuses == dict.fromkeys((1, 2, 3), "active") | dict.fromkeys((4, 5, 6), "disconnected")
    assert list(read_tokens(sql, OLD)) == [1, 2, 3]
    assert sql.row(4)["encrypted_refresh_token"] is None
    assert "installed again" in sql.row(4)["status_reason"]
    assert [sql.events(hub_id) for hub_id in (4, 6)] == [["imported", "disconnected"]] * 2
    connections.install(4, encrypted_refresh_token=TokenCipher([NEW]).encrypt_refresh_token(4, "a-new-one"))
    assert sql.read_served_token(4)
    assert tokenkeeper("keys", "lost").out == "TOKEN_KEYS decrypts every refresh token: there is nothing to do\n"


def test_after_lost_web_and_worker_start_with_a_new_key_alone(
    environment: Callable[..., dict[str, str]], connections: ConnectionFixture
) -> None:
    fill(connections, range(1, 4), LOST)
    worker = environment(TOKEN_KEYS=NEW)
    with pytest.raises(SettingsError, match="decrypts nothing"):
        check_database(Settings.from_env(worker), WORKER)
    assert Command(worker)("keys", "lost", "--yes").status == 0
    for each, process in ((worker, WORKER), (web_environment(worker), WEB)):
        check_database(Settings.from_env(each), process)


WAITING_TOKENS = """
INSERT INTO tokenkeeper.rotated_tokens (connection_id, lease_number, generation, encrypted_refresh_token, granted_at)
SELECT id, 1, 1, %s, now() FROM tokenkeeper.connections WHERE hub_id = 1;
INSERT INTO tokenkeeper.uncertain_installs (connection_id, other_encrypted_refresh_token)
SELECT id, %s FROM tokenkeeper.connections WHERE hub_id = 1
"""
READ_WAITING_TOKENS = """
SELECT encrypted_refresh_token FROM tokenkeeper.rotated_tokens
UNION ALL SELECT other_encrypted_refresh_token FROM tokenkeeper.uncertain_installs
"""


def test_tokens_that_wait_for_their_connection_are_rotated_too_and_removed_where_no_key_decrypts_them(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    fill(connections, range(1, 2), NEW)
    for key, status in ((OLD, 0), (LOST, 1)):
        ciphertext = TokenCipher([key]).encrypt_refresh_token(1, "waiting")
        sql.rows("DELETE FROM tokenkeeper.rotated_tokens; DELETE FROM tokenkeeper.uncertain_installs")
        sql.rows(WAITING_TOKENS, ciphertext, ciphertext)
        result = tokenkeeper("keys", "rotate")
        assert (result.status, result.out.startswith("2 of 3" if key == OLD else "0 of 3")) == (status, True)
        waiting = [each for (each,) in sql.rows(READ_WAITING_TOKENS)]
        assert [TokenCipher([NEW]).can_decrypt(each) for each in waiting] == [key == OLD] * 2
    assert tokenkeeper("keys", "lost", "--yes").status == 0
    assert sql.rows(READ_WAITING_TOKENS) == [(None,)] * 0
    assert sql.row(1)["status"] == "active"


def test_lost_keeps_a_token_that_was_stored_meanwhile(
    engine: Engine, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    fill(connections, range(1, 3), LOST)
    rows = KeyRotationStore(engine).read_tokens(TokenPlace.CONNECTIONS)
    assert [row.hub_id for row in rows] == [1, 2]
    new_ciphertext = TokenCipher([NEW]).encrypt_refresh_token(1, "installed-meanwhile")
    sql.set(f"encrypted_refresh_token = '{new_ciphertext}'", 1)
    assert KeyRotationStore(engine).remove_undecryptable(TokenPlace.CONNECTIONS, rows) == 1
    assert [sql.row(hub_id)["status"] for hub_id in (1, 2)] == ["active", "disconnected"]
    assert KeyRotationStore(engine).remove_undecryptable(TokenPlace.CONNECTIONS, []) == 0
