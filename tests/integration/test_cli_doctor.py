"""`tokenkeeper doctor`: one line for each check, and what to do where one fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from cli.doctor.clock_difference import ClockReading, measure_clock_difference
from sandbox.embedded import EmbeddedPostgres
from sandbox.simulator.control import SimulatorControl
from shared.db.lifecycle.imports import ImportRow
from shared.db.schema.migrate import migrate
from shared.domain.errors import InvalidClient
from shared.domain.provider import CallOutcome
from shared.foreign_environment import UNUSED_HTTP_NAMES
from shared.token_cipher import TokenCipher
from tests.support.apps_file import use_apps_file
from tests.support.builders import START
from tests.support.command import Command, CommandResult
from tests.support.environment import web_environment
from tests.support.http_proxy import HttpProxy
from tests.support.product import Product
from tests.support.stores import ConnectionFixture, SqlFixture
from tests.support.wall_clock import WallClock

CLOSED_PORT = "127.0.0.1:1"
ABOUT = [
    *(
        "settings",
        "environment",
        "connect links",
        "database",
        "server log",
        "clock",
        "schema",
        "readers",
        "rows",
        "settings of apps",
        "beat",
    ),
    *(
        "refreshes",
        "brake",
        "snapshots",
        "journal",
        "granted scopes",
        "events",
        "redis",
        "redirect URI",
        "scopes",
        "API version",
        "HubSpot",
    ),
]


@pytest.fixture
def tokenkeeper(environment: Callable[..., dict[str, str]]) -> Command:
    return Command({**environment(), **dict.fromkeys(UNUSED_HTTP_NAMES, "")})


@pytest.fixture
def healthy(tokenkeeper: Command, connections: ConnectionFixture) -> ConnectionFixture:
    """A row that TOKEN_KEYS decrypts, and a sweep and a reading of the journal just now."""
    cipher = TokenCipher([tokenkeeper.environment["TOKEN_KEYS"]])
    connections.stores.imports.import_rows([ImportRow(1, cipher.encrypt_refresh_token(1, "token"))])
    connections.stores.provider.begin_sweep(2)
    connections.sql.rows("INSERT INTO tokenkeeper.journals (app, state, read_at) VALUES ('default', 'reading', now())")
    return connections


def findings(result: CommandResult) -> dict[str, tuple[str, str]]:
    """What each is about to its level and text."""
    by_subject = {}
    for line in result.out.splitlines():
        level, about, what = line[:5].strip(), *line[6:].split(": ", 1)
        by_subject[about] = (level, what)
    return by_subject


def problems(result: CommandResult) -> dict[str, tuple[str, str]]:
    """Without that of other databases of the server, which the tests have."""
    return {about: finding for about, finding in findings(result).items() if finding[0] != "ok" and about != "readers"}


@pytest.mark.usefixtures("healthy")
def test_a_healthy_product_has_one_ok_line_for_each_check(tokenkeeper: Command, sql: SqlFixture) -> None:
    if sql.value("SHOW log_min_error_statement") != "panic":  # the tester's own server
        sql.rows("ALTER SYSTEM SET log_min_error_statement = panic")
        sql.rows("ALTER SYSTEM SET log_error_verbosity = terse")
        sql.rows("SELECT pg_reload_conf()")
    result = tokenkeeper("doctor")
    assert (result.status, result.err, problems(result)) == (0, "", {}), result
    assert list(findings(result)) == ABOUT
    assert findings(result)["rows"][1] == "the newest key decrypts all 1"


@pytest.mark.usefixtures("healthy")
def test_json_is_one_object_a_line(tokenkeeper: Command) -> None:
    result = tokenkeeper("doctor", "--json", SECRET_KEY="")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert result.status == 1
    assert [finding["about"] for finding in lines] == ABOUT
    assert lines[0]["level"] == "FAIL"
    assert "SECRET_KEY is missing" in lines[0]["what"]


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(
    ("changes", "about", "says"),
    [
        ({"SECRET_KEY": ""}, "settings", "SECRET_KEY is missing"),
        ({"REDIS_URL": f"redis://{CLOSED_PORT}/0"}, "redis", "start Redis, or correct REDIS_URL"),
        ({"HUBSPOT_API_URL": f"http://{CLOSED_PORT}"}, "HubSpot", "check the network to HUBSPOT_API_URL"),
        ({"HUBSPOT_CLIENT_ID": "another-app"}, "HubSpot", "HUBSPOT_CLIENT_ID"),
        (
            {"HUBSPOT_CLIENT_SECRET": "planted-wrong-secret"},
            "HubSpot",
            "check HUBSPOT_CLIENT_ID and HUBSPOT_CLIENT_SEC",
        ),
        ({"TOKEN_KEYS": Fernet.generate_key().decode()}, "rows", "hub 1 of 1 rows: TOKEN_KEYS does not decrypt it"),
    ],
)
def test_one_problem_is_one_failure_that_says_what_to_do(
    tokenkeeper: Command, changes: dict[str, str], about: str, says: str
) -> None:
    result = tokenkeeper("doctor", **changes)
    assert result.status == 1
    assert list(problems(result)) == [about], result
    level, what = problems(result)[about]
    assert (level, says in what) == ("FAIL", True), what
    assert "planted" not in result.out + result.err


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"HUBSPOT_API_VERSION": "v1"}, "API version"),
        ({"HUBSPOT_REDIRECT_URI": "http://our.host/oauth/callback"}, "redirect URI"),
    ],
)
def test_a_setting_against_hubspots_rules_fails_its_own_check_too(
    tokenkeeper: Command, changes: dict[str, str], about: str
) -> None:
    result = tokenkeeper("doctor", **changes)
    assert result.status == 1
    assert findings(result)[about][0] == "FAIL"
    assert findings(result)["settings"][0] == "FAIL"
    assert findings(result)["rows"][0] == "ok", "checks that do not need the bad setting still run"


def test_an_unreachable_database_skips_only_the_checks_that_need_it(tokenkeeper: Command) -> None:
    result = tokenkeeper("doctor", DATABASE_URL=f"postgresql://user:planted-password@{CLOSED_PORT}/db")
    assert result.status == 1
    levels = {about: level for about, (level, _) in findings(result).items()}
    assert [about for about in ABOUT if levels[about] == "skip"] == ABOUT[
        ABOUT.index("server log") : ABOUT.index("redis")
    ]
    assert (levels["database"], levels["redis"], levels["HubSpot"]) == ("FAIL", "ok", "ok")
    assert "planted" not in result.out + result.err


def test_a_database_without_a_schema_fails_with_the_advice_to_migrate(
    tokenkeeper: Command, empty_database_url: str
) -> None:
    result = tokenkeeper("doctor", DATABASE_URL=empty_database_url)
    assert result.status == 1
    assert findings(result)["schema"] == ("FAIL", "this database is not migrated: run: tokenkeeper migrate")
    assert findings(result)["rows"][0] == "skip"


def test_a_missing_or_overdue_sweep_fails(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    assert findings(tokenkeeper("doctor"))["beat"] == ("FAIL", "there was no sweep yet: start beat and worker")
    connections.stores.provider.begin_sweep(2)
    sql.rows("UPDATE tokenkeeper.provider SET swept_at = now() - interval '1 minute'")
    level, what = findings(tokenkeeper("doctor"))["beat"]
    assert (level, "the last sweep was 1 min" in what) == ("FAIL", True)
    assert findings(tokenkeeper("doctor", SWEEP_SECONDS="30"))["beat"][0] == "ok"


@pytest.mark.usefixtures("healthy")
def test_rows_under_an_older_key_are_a_warning(tokenkeeper: Command) -> None:
    new = Fernet.generate_key().decode()
    result = tokenkeeper("doctor", TOKEN_KEYS=f"{new},{tokenkeeper.environment['TOKEN_KEYS']}")
    assert (result.status, problems(result)) == (
        0,
        {"rows": ("warn", "1 of 1 need an older key: run: tokenkeeper keys rotate")},
    )


@pytest.mark.usefixtures("healthy")
def test_a_server_log_that_would_contain_statements_is_a_warning(tokenkeeper: Command, sql: SqlFixture) -> None:
    name = sql.value("SELECT current_database()")
    sql.rows(f"ALTER DATABASE {name} SET log_min_error_statement = error")
    result = tokenkeeper("doctor")
    assert (result.status, list(problems(result))) == (0, ["server log"])
    assert "ALTER SYSTEM SET log_min_error_statement = panic" in findings(result)["server log"][1]


@pytest.mark.usefixtures("healthy")
def test_a_server_log_that_would_contain_rows_is_mentioned(tokenkeeper: Command, sql: SqlFixture) -> None:
    name = sql.value("SELECT current_database()")
    sql.rows(f"ALTER DATABASE {name} SET log_error_verbosity = 'default'")
    result = tokenkeeper("doctor")
    assert (result.status, problems(result)) == (0, {})
    assert (
        findings(result)["server log"][1]
        == "contains no statements; set log_error_verbosity = terse to keep rows out of it too"
    )


@pytest.mark.usefixtures("healthy")
def test_each_of_several_apps_has_its_own_lines(
    tokenkeeper: Command, simulator: SimulatorControl, connections: ConnectionFixture, tmp_path: Path
) -> None:
    simulator.add_app("second-app", client_secrets=["second-secret"])
    apps = {
        "acme": {},
        "second": {"client_id": "second-app", "client_secret": "planted-wrong-secret"},
        "old": {"client_id": "third-app", "api_version": "v3", "scopes": "contacts oauth", "optional_scopes": "oauth"},
    }
    several = Command(use_apps_file(tokenkeeper.environment, tmp_path / "apps.toml", apps))
    several.environment["CONNECT_LINK_KEYS"] = "k" * 32
    result = several("doctor")
    lines = findings(result)
    assert lines["HubSpot of acme"] == ("ok", "answers; client id and secret accepted")
    assert lines["scopes of acme"][0] == lines["redirect URI of second"][0] == lines["API version of old"][0] == "ok"
    level, what = lines["HubSpot of second"]
    assert (level, "check client_id and client_secret of [second] in HUBSPOT_APPS_FILE" in what) == ("FAIL", True), what
    level, what = lines["scopes of old"]
    assert (level, "use crm.objects.contacts.read and" in what, "oauth is in two" in what) == ("warn", True, True), what
    assert lines["connect links"][1].startswith("are optional, are accepted by 1 key, and lead nowhere back")
    assert "planted" not in result.out + result.err

    apps["second"]["client_secret"] = "second-secret"
    use_apps_file(tokenkeeper.environment, tmp_path / "apps.toml", apps)
    assert findings(several("doctor"))["HubSpot of second"][0] == "ok"

    connections.install(7, app="gone")
    level, what = findings(several("doctor"))["settings of apps"]
    assert (level, "of some connections (1 of default, 1 of gone): they are kept" in what) == ("warn", True), what

    (tmp_path / "apps.toml").write_text("")  # as in compose with one app
    one_app = {**tokenkeeper.environment, "HUBSPOT_APPS_FILE": str(tmp_path / "apps.toml")}
    assert list(findings(Command(one_app)("doctor"))) == ABOUT

    (tmp_path / "apps.toml").write_text("[acme]\nscope = 1\n")
    lines = findings(several("doctor"))
    assert lines["apps"][0] == lines["settings"][0] == "FAIL"
    assert "[acme] scope is no key of an app (did you mean scopes?)" in lines["apps"][1]
    assert lines["redis"][0] == "ok"


@pytest.mark.usefixtures("healthy")
def test_a_nonsense_answer_from_hubspot_is_a_failure(tokenkeeper: Command, simulator: SimulatorControl) -> None:
    simulator.add_fault("html_200", where="introspect")
    result = tokenkeeper("doctor")
    assert (result.status, findings(result)["HubSpot"][0]) == (1, "FAIL")


@pytest.mark.usefixtures("healthy")
def test_hubspot_knows_the_app_where_it_calls_the_probe_token_unknown(
    tokenkeeper: Command, simulator: SimulatorControl
) -> None:
    simulator.add_fault("bad_refresh_token", where="introspect")
    result = tokenkeeper("doctor")
    assert (result.status, findings(result)["HubSpot"]) == (0, ("ok", "answers; client id and secret accepted"))


@pytest.mark.usefixtures("healthy")
def test_a_refusal_by_hubspot_that_no_table_knows_is_a_warning(
    tokenkeeper: Command, simulator: SimulatorControl
) -> None:
    simulator.add_fault("unknown_refusal", where="introspect")
    result = tokenkeeper("doctor")
    assert (result.status, list(problems(result))) == (0, ["HubSpot"])
    assert findings(result)["HubSpot"][1].startswith("refuses the request, ")


@pytest.mark.usefixtures("healthy")
def test_the_reason_why_refreshes_wait_for_hubspot_is_a_warning(
    tokenkeeper: Command, connections: ConnectionFixture
) -> None:
    connections.stores.provider.record_outcomes(
        [CallOutcome(is_first_attempt=True, error=InvalidClient("BAD_CLIENT_SECRET", http_status=401))]
    )
    result = tokenkeeper("doctor")
    assert (result.status, list(problems(result))) == (0, ["refreshes"])
    assert findings(result)["refreshes"][1].startswith("HubSpot is app_rejected since ")
    assert findings(result)["refreshes"][1].endswith(": BAD_CLIENT_SECRET (HTTP 401)")


@pytest.mark.usefixtures("healthy")
def test_doctor_with_the_login_of_web_checks_the_keys_by_the_check_value(
    tokenkeeper: Command, connections: ConnectionFixture
) -> None:
    web = Command(web_environment(tokenkeeper.environment))
    assert problems(web("doctor"))["rows"][0] == "warn", "no check value is stored"
    cipher = TokenCipher([tokenkeeper.environment["TOKEN_KEYS"]])
    connections.stores.key_check.write_check_value(cipher.encrypt_check_value())
    assert findings(web("doctor"))["rows"][0] == "ok"
    level, what = findings(web("doctor", TOKEN_KEYS=Fernet.generate_key().decode()))["rows"]
    assert (level, "give web and worker the same keys" in what) == ("FAIL", True)


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(("seconds_ahead", "says"), [(-60, "behind PostgreSQL"), (60, "ahead of PostgreSQL")])
def test_a_host_whose_clock_differs_from_that_of_postgres_fails(
    environment: Callable[..., dict[str, str]],
    new_product: Callable[[dict[str, str]], Product],
    tmp_path: Path,
    seconds_ahead: int,
    says: str,
) -> None:
    clock = WallClock(tmp_path / "shift")
    clock.set_ahead(seconds_ahead)
    result = new_product(environment(**clock.settings)).tokenkeeper("doctor")
    (line,) = (line for line in result.stdout.splitlines() if line[6:].startswith("clock: "))
    assert re.fullmatch(rf"FAIL  clock: this host is (59|60|61)\.\d s {says}: synchronise both with NTP", line)


def test_a_slow_answer_of_postgres_is_no_difference_of_the_clocks() -> None:
    """As where one of the machines stood still before PostgreSQL read its clock, or after it."""

    def read(host_before: float, server: float, host_after: float) -> ClockReading:
        return ClockReading(*(START + timedelta(seconds=each) for each in (host_before, server, host_after)))

    slow = [read(0.0, 9.9, 10.0), read(20.0, 20.1, 30.0)]
    assert abs(measure_clock_difference([*slow, read(40.0, 40.1, 40.2)])) < 0.01
    assert abs(measure_clock_difference([*slow, read(40.0, 10.1, 40.2)]) - 30.0) < 0.01


@pytest.mark.usefixtures("healthy")
def test_variables_of_other_programs_are_named(tokenkeeper: Command) -> None:
    result = tokenkeeper(
        "doctor", CELERY_BROKER_URL="redis://planted", PGSSLMODE="require", HTTPS_PROXY="http://planted"
    )
    assert result.status == 0
    assert list(problems(result)) == ["environment"]
    level, what = findings(result)["environment"]
    assert level == "warn"
    assert "CELERY_BROKER_URL, PGSSLMODE of other programs: ignored" in what
    assert "HTTPS_PROXY is not used: where HubSpot is reached by a proxy alone, set HUBSPOT_PROXY" in what
    with HttpProxy() as proxy:
        url = f"http://{proxy.address}"
        result = tokenkeeper("doctor", HTTPS_PROXY="http://planted", HUBSPOT_PROXY=url)
        assert problems(result) == {}
        assert proxy.requests, "HubSpot was asked through it"


@pytest.mark.usefixtures("healthy")
def test_a_proxy_that_does_not_answer_is_a_failure(tokenkeeper: Command) -> None:
    result = tokenkeeper("doctor", HUBSPOT_PROXY=f"http://keeper:planted@{CLOSED_PORT}")
    assert list(problems(result)) == ["HubSpot"]
    assert findings(result)["HubSpot"][1].startswith("the proxy of HUBSPOT_PROXY does not answer")
    assert "planted" not in result.out + result.err


def test_a_second_database_whose_readers_may_connect_here_is_a_warning(
    tokenkeeper: Command, own_postgres: EmbeddedPostgres, connect: Callable[..., Any]
) -> None:
    sql = SqlFixture(connect(own_postgres.url()))
    sql.rows("CREATE DATABASE staging")
    for name in ("postgres", "staging"):
        migrate(own_postgres.url(name))
    url = own_postgres.url()
    level, what = findings(tokenkeeper("doctor", DATABASE_URL=url))["readers"]
    assert (level, "of this database and of staging" in what) == ("warn", True)
    sql.rows("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    assert findings(tokenkeeper("doctor", DATABASE_URL=url))["readers"][0] == "ok"
