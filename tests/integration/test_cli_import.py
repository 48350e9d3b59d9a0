"""`tokenkeeper import`: what is imported, left unchanged or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.token_cipher import TokenCipher
from tests.support.command import Command
from tests.support.stores import SqlFixture

TOKEN = "na1-planted-secret-of-an-import"
ALL = "SELECT * FROM tokenkeeper.connections ORDER BY hub_id"


@pytest.fixture
def tokenkeeper(environment: Callable[..., dict[str, str]]) -> Command:
    return Command(environment())


@pytest.fixture
def cipher(tokenkeeper: Command) -> TokenCipher:
    return TokenCipher([tokenkeeper.environment["TOKEN_KEYS"]])


def csv(*rows: tuple[int, str]) -> str:
    return "\n".join(["hub_id,refresh_token", *(f"{hub_id},{token}" for hub_id, token in rows)])


def read_tokens(sql: SqlFixture, cipher: TokenCipher) -> dict[int, str]:
    rows = sql.rows(
        "SELECT hub_id, encrypted_refresh_token FROM tokenkeeper.connections WHERE encrypted_refresh_token <> ''"
    )
    return {hub_id: cipher.decrypt_refresh_token(hub_id, ciphertext) for hub_id, ciphertext in rows}


def test_valid_lines_are_imported_and_due_and_invalid_ones_are_reported(
    tokenkeeper: Command, cipher: TokenCipher, sql: SqlFixture
) -> None:
    file = csv((1, f"{TOKEN}-1"), (0, TOKEN), (2, f"{TOKEN}-early"), (2**63 - 1, f"{TOKEN}-last"), (2, f"{TOKEN}-late"))
    result = tokenkeeper("import", "-", stdin=file)
    assert result.status == 1
    assert result.out == "3 new, 0 given another token, 0 unchanged, 1 repeated, 1 refused\n"
    assert result.err.splitlines() == [
        f"line 3: refused: hub_id is not a whole number from 1 to {2**63 - 1}",
        "line 4: replaced by line 6, same hub 2",
    ]
    assert read_tokens(sql, cipher) == {1: f"{TOKEN}-1", 2: f"{TOKEN}-late", 2**63 - 1: f"{TOKEN}-last"}
    assert sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE due_at <= now() AND status = 'active'") == 3
    assert sql.events(1) == ["imported"]


def test_without_settings_of_an_app_a_line_may_name_any(tokenkeeper: Command, sql: SqlFixture) -> None:
    for name in [name for name in tokenkeeper.environment if name.startswith("HUBSPOT_")]:
        del tokenkeeper.environment[name]
    result = tokenkeeper("import", "-", stdin=f"hub_id,refresh_token,app\n1,{TOKEN},crm\n2,{TOKEN},\n")
    assert (result.status, result.err) == (0, "")
    assert sql.rows("SELECT app FROM hubspot.connections ORDER BY hub_id") == [("crm",), ("default",)]


def test_json_lines_are_imported_from_a_file(
    tokenkeeper: Command, cipher: TokenCipher, sql: SqlFixture, tmp_path: Path
) -> None:
    file = tmp_path / "hubs.jsonl"
    file.write_text("".join(json.dumps({"hub_id": hub, "refresh_token": f"{TOKEN}-{hub}"}) + "\r\n" for hub in (1, 2)))
    result = tokenkeeper("import", file)
    assert (result.status, result.err) == (0, "")
    assert read_tokens(sql, cipher) == {1: f"{TOKEN}-1", 2: f"{TOKEN}-2"}


def test_importing_a_file_twice_changes_nothing(tokenkeeper: Command, sql: SqlFixture) -> None:
    file = csv(*((hub_id, f"{TOKEN}-{hub_id}") for hub_id in range(1, 50)), (7, f"{TOKEN}-other"))
    assert tokenkeeper("import", "-", stdin=file).status == 0
    before = sql.rows(ALL)
    again = tokenkeeper("import", "-", stdin=file)
    assert again.out == "0 new, 0 given another token, 49 unchanged, 1 repeated, 0 refused\n"
    assert sql.rows(ALL) == before
    assert sql.events(7) == ["imported"]


def test_an_import_of_many_ends_with_a_note_on_the_revocation_brake(tokenkeeper: Command) -> None:
    few, many = (csv(*((hub_id, TOKEN) for hub_id in hubs)) for hubs in (range(1, 11), range(11, 22)))
    assert tokenkeeper("import", "-", stdin=few).out.count("\n") == 1
    output = tokenkeeper("import", "-", stdin=many)
    assert output.out.startswith("11 new, ")
    assert "HubSpot reports more than 10 of them" in output.out
    assert "tokenkeeper revocations confirm" in output.out
    assert tokenkeeper("import", "-", stdin=many).out.count("\n") == 1, "nothing is due by it"
    machine = tokenkeeper("import", "-", "--json", stdin=csv(*((hub_id, TOKEN) for hub_id in range(31, 50))))
    assert json.loads(machine.out)["new"] == 19


def test_a_working_connection_keeps_its_token_and_a_revoked_one_gets_the_files(
    tokenkeeper: Command, cipher: TokenCipher, sql: SqlFixture
) -> None:
    tokenkeeper("import", "-", stdin=csv(*((hub_id, f"{TOKEN}-old") for hub_id in range(1, 7))))
    gone = "access_token = NULL, expires_at = NULL, due_at = NULL, refreshed_at = now(), status ="
    sql.set("refreshed_at = now()", 1)
    sql.set("status = 'suspect', status_reason = 'another_hub'", 2)
    sql.set(f"{gone} 'revoked'", 3)
    sql.set(f"{gone} 'revoked'", 4)
    sql.set(f"{gone} 'disconnected', encrypted_refresh_token = NULL", 5)
    sql.set(f"{gone} 'revoked', encrypted_refresh_token = 'encrypted with a lost key'", 6)
    suffixes = {1: "new", 2: "new", 3: "new", 4: "old", 5: "new", 6: "old"}
    file = csv(*((hub_id, f"{TOKEN}-{suffix}") for hub_id, suffix in suffixes.items()))
    result = tokenkeeper("import", "-", stdin=file)
    assert result.out == "0 new, 3 given another token, 2 unchanged, 1 refused\n"
    assert result.err == "line 6: refused: hub 5 was disconnected here: connect it by an install\n"
    assert result.status == 1
    stored = {1: "old", 2: "new", 3: "new", 4: "old", 6: "old"}
    assert read_tokens(sql, cipher) == {hub_id: f"{TOKEN}-{suffix}" for hub_id, suffix in stored.items()}
    statuses = sql.rows("SELECT status FROM tokenkeeper.connections ORDER BY hub_id")
    assert [status for (status,) in statuses] == ["active", "active", "active", "revoked", "disconnected", "active"]


@pytest.mark.parametrize("file", [b"", f"1,{TOKEN}".encode(), b"\x89PNG\r\n\x1a\n\0\0", f'["{TOKEN}"]'.encode()])
def test_a_file_of_another_kind_is_refused_in_one_line(tokenkeeper: Command, sql: SqlFixture, file: bytes) -> None:
    result = tokenkeeper("import", "-", stdin=file)
    assert (result.status, result.out, result.err.count("\n")) == (1, "", 1)
    assert result.err.startswith("tokenkeeper: nothing was imported: ")
    assert TOKEN not in result.err
    assert sql.rows(ALL) == []


def test_no_token_is_printed_or_stored_in_clear(tokenkeeper: Command, sql: SqlFixture) -> None:
    lines = [
        f'{{"hub_id": 1, "refresh_token": "{TOKEN}"}}',
        f'{{"hub_id": "{TOKEN}"}}',
        TOKEN,
        f"{{{TOKEN}",
        "[" * 9999,
    ]
    result = tokenkeeper("import", "-", stdin="\n".join(lines))
    assert result.status == 1
    assert TOKEN not in result.out + result.err
    everything = sql.rows("SELECT to_jsonb(c)::text FROM tokenkeeper.connections AS c")
    everything += sql.rows("SELECT to_jsonb(h)::text FROM tokenkeeper.history AS h")
    assert TOKEN not in str(everything)


def test_an_import_of_20000_lines_takes_seconds(tokenkeeper: Command, sql: SqlFixture, tmp_path: Path) -> None:
    file = tmp_path / "many.csv"
    file.write_text(csv(*((hub_id, f"{TOKEN}-{hub_id}") for hub_id in range(1, 20_001))))
    result = tokenkeeper("import", file)  # the limit is a minute, for a busy machine
    assert result.status == 0, result
    assert sql.value("SELECT connections FROM tokenkeeper.connection_counts") == 20_000


APPS = """
[crm]
client_id = "crm-client"
client_secret = "crm-secret"
redirect_uri = "http://localhost:5000/oauth/callback"
scopes = "oauth"
[personal]
client_id = "personal-client"
client_secret = "personal-secret"
redirect_uri = "http://localhost:5000/oauth/callback"
scopes = "oauth"
user_level = true
"""


def test_lines_name_app_user_and_customer_and_those_that_do_not_fit_are_refused(
    environment: Callable[..., dict[str, str]], sql: SqlFixture, tmp_path: Path
) -> None:
    apps = tmp_path / "apps.toml"
    apps.write_text(APPS)
    variables = {name: value for name, value in environment().items() if not name.startswith("HUBSPOT_")}
    tokenkeeper = Command({**variables, "HUBSPOT_APPS_FILE": str(apps)})
    header = "hub_id,refresh_token,app,user_id,customer\n"
    lines = [
        "1,t,crm,,acme",
        "1,t,personal,7,",
        "1,t,personal,8,acme",
        "2,t,,,",
        "2,t,personal,,",
        "2,t,crm,7,",
        "2,t,x,,",
    ]
    result = tokenkeeper("import", "-", stdin=header + "\n".join(lines))
    assert result.out == "3 new, 0 given another token, 0 unchanged, 4 refused\n"
    assert result.err.splitlines() == [
        "line 5: refused: app must be one of the settings': crm, personal",
        "line 6: refused: app personal is user-level: user_id must say whose token it is",
        "line 7: refused: app crm is account-level: leave user_id out",
        "line 8: refused: app must be one of the settings': crm, personal",
    ]
    stored = "SELECT app, user_id, customer FROM hubspot.connections ORDER BY app, user_id"
    assert sql.rows(stored) == [("crm", None, "acme"), ("personal", 7, None), ("personal", 8, "acme")]
    again = tokenkeeper("import", "-", stdin=f"{header}1,t,crm,,other\n1,t,personal,7,beta")
    assert again.out == "0 new, 0 given another token, 1 unchanged, 1 refused\n"
    assert again.err == "line 2: refused: hub 1 belongs to another customer; see: tokenkeeper claim --help\n"
    assert sql.rows(stored) == [("crm", None, "acme"), ("personal", 7, "beta"), ("personal", 8, "acme")]
    assert sql.events(1)[-1] == "claimed"
