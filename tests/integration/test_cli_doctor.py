"""`tokenkeeper doctor`: one line each, what is wrong is found, and what to do is said."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from cryptography.fernet import Fernet

from sandbox.simulator.control import SimulatorControl
from shared.db.lifecycle.imports import ImportRow
from shared.token_cipher import TokenCipher
from tests.support.command import Command, Ran
from tests.support.stores import ConnectionFixture, SqlFixture

NOBODY = "127.0.0.1:1"
ABOUT = [
    *("settings", "database", "server log", "clock", "schema", "rows", "beat", "refreshes", "brake"),
    *("redis", "redirect URI", "API version", "HubSpot"),
]


@pytest.fixture
def tokenkeeper(environment: Callable[..., dict[str, str]]) -> Command:
    return Command(environment())


@pytest.fixture
def well(tokenkeeper: Command, connections: ConnectionFixture) -> ConnectionFixture:
    """A database with a row that opens, and a sweep just now."""
    cipher = TokenCipher([tokenkeeper.environment["TOKEN_KEYS"]])
    connections.stores.imports.import_rows([ImportRow(1, cipher.encrypt_refresh_token(1, "token"))])
    connections.stores.provider.begin_sweep(2)
    return connections


def found(ran: Ran) -> dict[str, tuple[str, str]]:
    """Level and words of each finding."""
    findings = {}
    for line in ran.out.splitlines():
        level, about, what = line[:5].strip(), *line[6:].split(": ", 1)
        findings[about] = (level, what)
    return findings


def wrong(ran: Ran) -> dict[str, tuple[str, str]]:
    return {about: finding for about, finding in found(ran).items() if finding[0] != "ok"}


@pytest.mark.usefixtures("well")
def test_all_is_well_in_one_line_each(tokenkeeper: Command, sql: SqlFixture) -> None:
    if sql.value("SHOW log_min_error_statement") != "panic":  # a server of the tester's own
        sql.rows("ALTER SYSTEM SET log_min_error_statement = panic")
        sql.rows("ALTER SYSTEM SET log_error_verbosity = terse")
        sql.rows("SELECT pg_reload_conf()")
    ran = tokenkeeper("doctor")
    assert (ran.status, ran.err, wrong(ran)) == (0, "", {}), ran
    assert list(found(ran)) == ABOUT
    assert found(ran)["rows"][1] == "all 1 open with the newest key"


@pytest.mark.usefixtures("well")
def test_machines_get_one_object_a_line(tokenkeeper: Command) -> None:
    ran = tokenkeeper("doctor", "--json", SECRET_KEY="")
    findings = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.status == 1
    assert [finding["about"] for finding in findings] == ABOUT
    assert findings[0]["level"] == "FAIL"
    assert "SECRET_KEY is missing" in findings[0]["what"]


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize(
    ("changes", "about", "says"),
    [
        ({"SECRET_KEY": ""}, "settings", "SECRET_KEY is missing"),
        ({"REDIS_URL": f"redis://{NOBODY}/0"}, "redis", "start Redis, or mend REDIS_URL"),
        ({"HUBSPOT_API_URL": f"http://{NOBODY}"}, "HubSpot", "check the way to HUBSPOT_API_URL"),
        ({"HUBSPOT_CLIENT_ID": "another-app"}, "HubSpot", "HUBSPOT_CLIENT_ID"),
        (
            {"HUBSPOT_CLIENT_SECRET": "planted-wrong-secret"},
            "HubSpot",
            "check HUBSPOT_CLIENT_ID and HUBSPOT_CLIENT_SEC",
        ),
        ({"TOKEN_KEYS": Fernet.generate_key().decode()}, "rows", "hub 1 of 1 rows: does not open with TOKEN_KEYS"),
    ],
)
def test_one_thing_wrong_is_one_failure_that_says_what_to_do(
    tokenkeeper: Command, changes: dict[str, str], about: str, says: str
) -> None:
    ran = tokenkeeper("doctor", **changes)
    assert ran.status == 1
    assert list(wrong(ran)) == [about], ran
    level, what = wrong(ran)[about]
    assert (level, says in what) == ("FAIL", True), what
    assert "planted" not in ran.out + ran.err


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"HUBSPOT_API_VERSION": "v1"}, "API version"),
        ({"HUBSPOT_REDIRECT_URI": "http://our.host/oauth/callback"}, "redirect URI"),
    ],
)
def test_hubspots_own_rules_have_a_line_of_their_own(tokenkeeper: Command, changes: dict[str, str], about: str) -> None:
    ran = tokenkeeper("doctor", **changes)
    assert ran.status == 1
    assert found(ran)[about][0] == "FAIL"
    assert found(ran)["settings"][0] == "FAIL"
    assert found(ran)["rows"][0] == "ok", "what a bad setting does not concern is looked at"


def test_a_database_that_does_not_answer_leaves_the_rest_to_be_looked_at(tokenkeeper: Command) -> None:
    ran = tokenkeeper("doctor", DATABASE_URL=f"postgresql://user:planted-password@{NOBODY}/db")
    assert ran.status == 1
    levels = {about: level for about, (level, _) in found(ran).items()}
    assert [about for about in ABOUT if levels[about] == "skip"] == ABOUT[2:9]
    assert (levels["database"], levels["redis"], levels["HubSpot"]) == ("FAIL", "ok", "ok")
    assert "planted" not in ran.out + ran.err


def test_a_database_that_nobody_migrated_is_told_how(tokenkeeper: Command, empty_database_url: str) -> None:
    ran = tokenkeeper("doctor", DATABASE_URL=empty_database_url)
    assert ran.status == 1
    assert found(ran)["schema"] == ("FAIL", "this database is not migrated: run: tokenkeeper migrate")
    assert found(ran)["rows"][0] == "skip"


def test_a_beat_that_is_gone_or_never_was_is_found(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    assert found(tokenkeeper("doctor"))["beat"] == ("FAIL", "there was no sweep yet: start beat and worker")
    connections.stores.provider.begin_sweep(2)
    sql.rows("UPDATE tokenkeeper.provider SET swept_at = now() - interval '1 minute'")
    level, what = found(tokenkeeper("doctor"))["beat"]
    assert (level, "the last sweep was 1 min" in what) == ("FAIL", True)
    assert found(tokenkeeper("doctor", SWEEP_SECONDS="30"))["beat"][0] == "ok"


@pytest.mark.usefixtures("well")
def test_rows_under_an_older_key_are_a_warning(tokenkeeper: Command) -> None:
    new = Fernet.generate_key().decode()
    ran = tokenkeeper("doctor", TOKEN_KEYS=f"{new},{tokenkeeper.environment['TOKEN_KEYS']}")
    assert (ran.status, wrong(ran)) == (0, {"rows": ("warn", "1 of 1 need an older key: run: tokenkeeper keys rotate")})


@pytest.mark.usefixtures("well")
def test_a_server_log_that_would_hold_statements_is_a_warning(tokenkeeper: Command, sql: SqlFixture) -> None:
    name = sql.value("SELECT current_database()")
    sql.rows(f"ALTER DATABASE {name} SET log_min_error_statement = error")
    ran = tokenkeeper("doctor")
    assert (ran.status, list(wrong(ran))) == (0, ["server log"])
    assert "ALTER SYSTEM SET log_min_error_statement = panic" in found(ran)["server log"][1]


@pytest.mark.usefixtures("well")
def test_a_server_log_that_would_hold_rows_is_told(tokenkeeper: Command, sql: SqlFixture) -> None:
    name = sql.value("SELECT current_database()")
    sql.rows(f"ALTER DATABASE {name} SET log_error_verbosity = 'default'")
    ran = tokenkeeper("doctor")
    assert (ran.status, wrong(ran)) == (0, {})
    assert found(ran)["server log"][1] == "holds no statements; with log_error_verbosity = terse, no rows either"


@pytest.mark.usefixtures("well")
def test_a_hubspot_that_answers_nonsense_is_a_failure(tokenkeeper: Command, simulator: SimulatorControl) -> None:
    simulator.add_fault("html_200", where="introspect")
    ran = tokenkeeper("doctor")
    assert (ran.status, found(ran)["HubSpot"][0]) == (1, "FAIL")
