"""The commands status, connections, history, refresh and disconnect."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox.simulator.control import SimulatorControl
from shared.db.lifecycle.imports import ImportRow
from shared.domain.errors import InvalidClient, TemporarilyUnavailable, Throttled
from shared.domain.provider import CallOutcome
from shared.token_cipher import TokenCipher
from tests.support.apps_file import use_apps_file
from tests.support.builders import HUB
from tests.support.command import CONTROL_SEQUENCE, TOKENKEEPER, Command
from tests.support.databases import Databases
from tests.support.stores import ConnectionFixture, SqlFixture


@pytest.fixture
def tokenkeeper(environment: Callable[..., dict[str, str]]) -> Command:
    return Command(environment())


@pytest.fixture
def four_states(connections: ConnectionFixture, sql: SqlFixture) -> ConnectionFixture:
    """One connection in each state."""
    connections.install(1)
    connections.install(2)
    connections.install(3)
    connections.install(4)
    names = "hub_domain = E'acme.com\\x1b[2J', installed_by = 'mia@acme.com'"
    sql.rows(
        f"UPDATE tokenkeeper.accounts SET {names} FROM tokenkeeper.connections WHERE id = connection_id AND hub_id = 1"
    )
    sql.set("status = 'suspect', status_reason = 'BAD_REFRESH_TOKEN', failures = 2", 2)
    sql.set("status = 'revoked', access_token = NULL, expires_at = NULL, due_at = NULL", 3)
    sql.set("status = 'disconnected', access_token = NULL, expires_at = NULL, due_at = NULL", 4)
    return connections


def test_status_shows_everything_on_one_screen(
    tokenkeeper: Command, four_states: ConnectionFixture, sql: SqlFixture
) -> None:
    sql.set("due_at = now() - interval '90 seconds'", 1)
    four_states.stores.provider.begin_sweep(2)
    result = tokenkeeper("status")
    assert (result.status, result.err) == (0, "")
    output = {line[:16].strip(): line[16:] for line in result.out.splitlines()}
    assert output["connections"] == "4: 1 active, 1 suspect, 1 revoked, 1 disconnected"
    assert output["failing"].startswith("1 ")
    assert output["soonest expiry"].startswith(("in 29 min", "in 30 min"))
    assert output["backlog"].startswith("1 due, the first of them 1 min ")
    assert output["HubSpot"].startswith("ok since ")
    assert output["last sweep"].endswith(" s ago")


def test_status_speaks_of_each_of_several_apps_and_of_connections_whose_app_is_in_no_setting(
    tokenkeeper: Command, connections: ConnectionFixture, tmp_path: Path
) -> None:
    for hub_id, app in ((1, "acme"), (2, "acme"), (3, "users_of_ours"), (4, "gone")):
        connections.install(hub_id, app=app, user_id=7 if app == "users_of_ours" else None)
    apps = {"acme": {}, "users_of_ours": {"client_id": "another", "user_level": True}}
    several = Command(use_apps_file(tokenkeeper.environment, tmp_path / "apps.toml", apps))
    lines = several("status").out.splitlines()
    assert any(re.match(r"app acme +2 live, 0 failing, 0 due; HubSpot ok.*; brake off$", line) for line in lines), lines
    assert any(re.match(r"app users_of_ours +1 live, ", line) for line in lines), "a long name widens the column"
    assert not any(line.startswith(("app default", "HubSpot")) for line in lines)
    assert any(re.match(r"not refreshed +1 of app gone, which is in no setting", line) for line in lines), lines

    report = json.loads(several("status", "--json").out)
    assert report["apps"]["acme"]["connections"]["active"] == 2
    assert report["connections"]["active"] == 4
    assert report["without_settings"] == ["gone"]
    assert json.loads(tokenkeeper("status", "--json").out)["without_settings"] == ["acme", "gone", "users_of_ours"]


def test_status_calls_a_sweep_overdue_by_the_interval_of_sweep_seconds(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.stores.provider.begin_sweep(2)
    sql.rows("UPDATE tokenkeeper.provider SET swept_at = now() - interval '119 seconds'")
    overdue = "does a worker run?"
    assert overdue in tokenkeeper("status").out
    assert overdue not in tokenkeeper("status", SWEEP_SECONDS="120").out


def test_status_and_doctor_say_that_sweeps_go_on_without_beat(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.stores.provider.begin_sweep(2)
    sql.rows("UPDATE tokenkeeper.provider SET swept_without_beat_since = now() - interval '2 hours'")
    (line,) = [line for line in tokenkeeper("status").out.splitlines() if line.startswith("last sweep")]
    assert "without beat since 2 h ago: start beat, or repair Redis" in line
    assert "but no message of beat reaches a worker" in tokenkeeper("doctor").out


def test_status_of_an_empty_database(tokenkeeper: Command) -> None:
    result = tokenkeeper("status")
    assert result.status == 0
    for words in ("0: 0 active", "no token is served", "nothing is due", "none yet", "never: start worker and beat"):
        assert words in result.out


def test_status_gives_the_reason_for_hubspots_state_and_what_to_do(
    tokenkeeper: Command, connections: ConnectionFixture
) -> None:
    connections.stores.provider.record_outcomes(
        [CallOutcome(is_first_attempt=True, error=InvalidClient("BAD_CLIENT_SECRET", http_status=401))]
    )
    output = tokenkeeper("status").out
    assert "app_rejected since " in output
    assert "BAD_CLIENT_SECRET (HTTP 401): HubSpot does not accept our app" in output


def test_status_says_when_a_pause_that_hubspot_asked_for_ends(
    tokenkeeper: Command, connections: ConnectionFixture
) -> None:
    throttled = Throttled("rate_limit", http_status=429, retry_after=3_600)
    connections.stores.provider.record_outcomes([CallOutcome(is_first_attempt=True, error=throttled)])
    assert re.search(
        r"^HubSpot +throttled since .*, paused, resumes in (5|4) min", tokenkeeper("status").out, re.MULTILINE
    )


def test_the_status_command_prints_json(tokenkeeper: Command, four_states: ConnectionFixture) -> None:
    four_states.stores.provider.begin_sweep(2)
    result = tokenkeeper("status", "--json")
    assert (result.status, result.err, result.out.count("\n")) == (0, "", 1)
    output = json.loads(result.out)
    assert output["connections"] == {"active": 1, "suspect": 1, "revoked": 1, "disconnected": 1}
    assert (output["failing"], output["due"], output["hubspot"]["state"], output["brake"]["held"]) == (1, 0, "ok", 0)
    assert output["last_sweep_at"].endswith("+00:00")


def test_status_fits_the_terminal_and_marks_problems(tokenkeeper: Command, four_states: ConnectionFixture) -> None:
    for columns in (120, 40):
        result = tokenkeeper.run_on_terminal("status", COLUMNS=str(columns))
        assert result.status == 0
        assert max(map(len, result.screen_lines)) <= columns
        assert "! last sweep" in result.out
        assert "~ failing" in result.out


def test_no_color_removes_colours(tokenkeeper: Command, four_states: ConnectionFixture) -> None:
    colour = re.compile(r"\x1b\[[0-9;]*3[0-9]")
    for name in ("status", "connections", "doctor"):
        assert colour.search(tokenkeeper.run_on_terminal(name).out), name
        assert not colour.search(tokenkeeper.run_on_terminal(name, NO_COLOR="1").out), name


def test_watch_prints_until_ctrl_c_and_exits_with_0(tokenkeeper: Command, four_states: ConnectionFixture) -> None:
    with subprocess.Popen(
        [TOKENKEEPER, "status", "--watch", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=tokenkeeper.environment,
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        first, second = (json.loads(watching.stdout.readline()) for _ in range(2))
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0
        assert watching.stderr.read() == b""
    assert first["at"] < second["at"]


def test_watch_fills_the_terminal_and_restores_it(tokenkeeper: Command, four_states: ConnectionFixture) -> None:
    result = tokenkeeper.run_on_terminal("status", "--watch", ctrl_c_after="Ctrl-C ends")
    assert result.status == 0
    assert result.out.startswith("\x1b[?1049h")
    assert result.out.count("\x1b[?1049l") == 1
    assert "stopped" not in result.out


def test_watch_keeps_what_it_showed_last_while_postgres_does_not_answer(
    tokenkeeper: Command,
    four_states: ConnectionFixture,
    databases: Databases,
    database_url: str,
    connect: Callable[..., Any],
) -> None:
    admin, name = SqlFixture(connect(databases.url("postgres"))), database_url.rpartition("/")[2]

    def refuse_connections() -> None:
        admin.rows(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        admin.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)

    result = tokenkeeper.run_on_terminal(
        "status", "--watch", on_text=("Ctrl-C ends", refuse_connections), ctrl_c_after="looking again"
    )
    assert result.status == 0
    last_screen = CONTROL_SEQUENCE.sub("", result.out.split("\x1b[H")[-1])
    assert last_screen.index("4: 1 active") < last_screen.index("PostgreSQL does not answer")


def test_history_shows_the_connection_and_its_events(tokenkeeper: Command, connections: ConnectionFixture) -> None:
    connections.install(HUB)
    refused = TemporarilyUnavailable("html", http_status=502, correlation_id="0f6a0f3a-7a4a-4b9e-9f5d-3d1f2f6c8a11")
    connections.stores.results.save([connections.make_failure(connections.claim_one(), refused)])
    output = json.loads(tokenkeeper("history", str(HUB), "--json").out)
    assert (output["connection"]["hub_id"], output["connection"]["failures"]) == (HUB, 1)
    assert [event["event"] for event in output["history"]] == ["refresh_failed", "installed"]
    assert output["history"][0]["detail"]["correlation_id"] == refused.correlation_id
    piped = tokenkeeper("history", str(HUB), "--limit", "1").out
    assert f"hub_id\t{HUB}\n" in piped
    heading, event = (line.split("\t") for line in piped.splitlines()[-2:])
    assert heading == ["at", "event", "detail"]
    assert (event[:2], json.loads(event[2])) == ([output["history"][0]["at"], "refresh_failed"], refused.evidence())
    connections.stores.results.save([connections.make_revocation(connections.claim_one())])
    on_terminal = tokenkeeper.run_on_terminal("history", str(HUB))
    assert "correlation_id 0f6a0f3a" in on_terminal.out
    assert "refresh.code BAD_REFRESH_TOKEN" in on_terminal.out
    assert "introspection.active False" in on_terminal.out
    narrow = tokenkeeper.run_on_terminal("history", str(HUB), COLUMNS="60")
    assert any(re.match(r" +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line) for line in narrow.screen_lines)
    assert "access-of" not in on_terminal.out + piped


def test_history_of_an_unknown_hub_is_one_line(tokenkeeper: Command, connections: ConnectionFixture) -> None:
    result = tokenkeeper("history", "999")
    assert (result.status, result.out, result.err) == (1, "", "tokenkeeper: 999: no such connection\n")


def test_connections_in_a_pipe_are_lines_with_tabs(tokenkeeper: Command, four_states: ConnectionFixture) -> None:
    result = tokenkeeper("connections")
    heading, *rows = [line.split("\t") for line in result.out.splitlines()]
    assert heading[:4] == ["hub_id", "status", "hub_domain", "installed_by"]
    assert [row[:2] for row in rows] == [["1", "active"], ["2", "suspect"], ["3", "revoked"], ["4", "disconnected"]]
    assert rows[0][2] == "acme.com?[2J", "no control characters of others"
    assert {len(row) for row in rows} == {len(heading)}
    assert "access-of" not in result.out
    assert "encrypted" not in result.out


def test_connections_as_json_are_one_object_a_line(tokenkeeper: Command, four_states: ConnectionFixture) -> None:
    lines = tokenkeeper("connections", "--json", "--status", "active").out.splitlines()
    (connection,) = map(json.loads, lines)
    assert (connection["hub_id"], connection["status"], connection["scopes"]) == (
        1,
        "active",
        ["oauth", "crm.objects.contacts.read"],
    )
    assert set(connection) == {
        *("hub_id", "status", "hub_domain", "installed_by", "scopes", "installed_at", "expires_at"),
        *("next_refresh_at", "failures", "last_error", "status_reason", "status_since"),
        *("app", "user_id", "customer", "account_name", "account_type", "region", "missing_scopes"),
    }


def test_connections_beyond_one_page_are_all_listed(tokenkeeper: Command, connections: ConnectionFixture) -> None:
    connections.stores.imports.import_rows([ImportRow(hub_id, "ciphertext") for hub_id in range(1, 1203)])
    listed = [json.loads(line)["hub_id"] for line in tokenkeeper("connections", "--json").out.splitlines()]
    assert listed == list(range(1, 1203))


def test_a_reader_that_closes_the_pipe_causes_no_error_message(
    tokenkeeper: Command, connections: ConnectionFixture
) -> None:
    connections.stores.imports.import_rows([ImportRow(hub_id, "ciphertext") for hub_id in range(1, 3001)])
    listing = subprocess.Popen(
        [TOKENKEEPER, "connections"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=tokenkeeper.environment
    )
    assert listing.stdout is not None
    assert listing.stderr is not None
    with listing.stdout, listing.stderr:
        assert listing.stdout.readline().startswith(b"hub_id\t")
        listing.stdout.close()
        assert listing.stderr.read() == b""
    listing.wait(30)


def test_connections_on_a_terminal_are_a_table(tokenkeeper: Command, four_states: ConnectionFixture) -> None:
    result = tokenkeeper.run_on_terminal("connections")
    assert result.status == 0
    assert "acme.com?[2J" in result.out
    assert "──" in result.out
    assert "4 connections" in result.out


@pytest.mark.parametrize("columns", [100, 60, 30])
def test_a_narrow_terminal_gets_fewer_columns_and_no_wrapped_lines(
    tokenkeeper: Command, four_states: ConnectionFixture, columns: int
) -> None:
    lines = tokenkeeper.run_on_terminal("connections", COLUMNS=str(columns)).screen_lines
    assert max(map(len, lines)) <= columns
    assert any("suspect" in line and "2" in line for line in lines)


def test_search_sort_and_limit_select_connections(
    tokenkeeper: Command, four_states: ConnectionFixture, sql: SqlFixture
) -> None:
    def list_hubs(*options: str) -> list[int]:
        return [json.loads(line)["hub_id"] for line in tokenkeeper("connections", "--json", *options).out.splitlines()]

    sql.set("due_at = now() + interval '1 minute'", 2)
    assert list_hubs("--search", "ACME") == [1]
    assert list_hubs("--search", "mia@") == [1]
    assert list_hubs("--search", "%") == []
    assert list_hubs("--search", "3") == [3]
    assert list_hubs("--sort", "due") == [2, 1]
    assert list_hubs("--sort", "failures") == [2]
    assert list_hubs("--limit", "3") == [1, 2, 3]
    assert list_hubs("--limit", "1", "--status", "revoked") == [3]


def test_refresh_makes_due_now_and_prints_each_outcome(
    tokenkeeper: Command, four_states: ConnectionFixture, sql: SqlFixture
) -> None:
    due = "SELECT count(*) FROM tokenkeeper.connections WHERE due_at <= now()"
    result = tokenkeeper("refresh", "1", "3", "1")
    assert result.status == 0
    assert result.out.splitlines() == [
        "1: due now; the next sweep refreshes it",
        "3: due now; the next sweep refreshes it",
    ]
    four_states.stores.refresh_requests.apply()
    assert sql.value(due) == 2
    again = tokenkeeper("refresh", "1", "4", "999")
    assert again.status == 1
    assert again.out == "1: due already; the next sweep refreshes it as soon as HubSpot allows\n"
    assert again.err.splitlines() == [
        "4: disconnected: the account has to install the app again",
        "999: no such connection",
    ]
    four_states.stores.refresh_requests.apply()
    assert sql.value(due) == 2


def test_the_refresh_command_prints_json(tokenkeeper: Command, four_states: ConnectionFixture) -> None:
    result = tokenkeeper("refresh", "--json", "1", "999")
    assert (result.status, result.err) == (1, "")
    assert [json.loads(line) for line in result.out.splitlines()] == [
        {"app": "default", "hub_id": 1, "user_id": None, "answer": "asked"},
        {"app": None, "hub_id": 999, "user_id": None, "answer": "unknown"},
    ]


def test_refresh_revoked_says_that_there_is_nothing_to_do(tokenkeeper: Command, sql: SqlFixture) -> None:
    result = tokenkeeper("refresh", "--revoked")
    assert (result.status, result.out) == (0, "no connection is revoked: there is nothing to do\n")


def test_refresh_revoked_makes_all_revoked_connections_due_and_no_other(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.stores.imports.import_rows([ImportRow(hub_id, "ciphertext") for hub_id in range(1, 1205)])
    sql.set("due_at = now() + interval '1 hour'")
    sql.rows("UPDATE tokenkeeper.connections SET status = 'revoked', due_at = NULL WHERE hub_id > 2")
    result = tokenkeeper("refresh", "--revoked")
    assert (result.status, result.err) == (0, "")
    assert result.out == "1,202 due now, the next sweeps try them again\n"
    connections.stores.refresh_requests.apply()
    assert sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE due_at <= now()") == 1202
    again = tokenkeeper("refresh", "--revoked")
    assert again.out == "0 due now, the next sweeps try them again; 1,202 due already\n"
    assert json.loads(tokenkeeper("refresh", "--revoked", "--json").out) == {"already_due": 1202}


def test_disconnect_asks_and_ends_the_connection_here_and_at_hubspot(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture, simulator: SimulatorControl
) -> None:
    refresh_token = simulator.install(HUB)
    ciphertext = TokenCipher([tokenkeeper.environment["TOKEN_KEYS"]]).encrypt_refresh_token(HUB, refresh_token)
    connections.stores.imports.import_rows([ImportRow(HUB, ciphertext)])
    without_terminal = tokenkeeper.run_process("disconnect", str(HUB), stdin="y\n")
    assert (without_terminal.status, without_terminal.out) == (2, "")
    assert without_terminal.err.startswith("tokenkeeper: this asks before it acts, and stdin is no terminal: add --yes")
    refused = tokenkeeper.run_on_terminal("disconnect", str(HUB), answer="n\n")
    assert (refused.status, sql.row()["status"]) == (1, "active")
    interrupted = tokenkeeper.run_on_terminal("disconnect", str(HUB), ctrl_c_after="[y/N]")
    assert (interrupted.status, interrupted.screen_lines[-2:]) == (1, ["tokenkeeper: stopped", ""])
    assert sql.row()["status"] == "active"
    result = tokenkeeper.run_on_terminal("disconnect", str(HUB), answer="y\n")
    assert result.status == 0, result
    assert result.screen_lines[-2].endswith(f"{HUB}: disconnected; its tokens are deleted")
    assert (sql.row()["status"], sql.row()["encrypted_refresh_token"]) == ("disconnected", None)
    assert sum(simulator.get_stats()["calls"]["revoke"].values()) == 1
    again = tokenkeeper.run_process("disconnect", str(HUB), "--yes")
    assert (again.status, again.out) == (0, f"{HUB}: was disconnected already\n")
    assert refresh_token not in result.out + result.err


def test_disconnect_ends_the_connection_here_where_hubspot_does_not_answer(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    ciphertext = TokenCipher([tokenkeeper.environment["TOKEN_KEYS"]]).encrypt_refresh_token(HUB, "planted-refresh")
    connections.install(HUB, encrypted_refresh_token=ciphertext, access_token="planted-access")
    result = tokenkeeper.run_process("disconnect", "--yes", str(HUB), HUBSPOT_API_URL="http://127.0.0.1:1")
    assert (result.status, sql.row()["encrypted_refresh_token"], sql.read_served_token()) == (0, None, None)
    assert "remove the app in the account by hand" in result.err
    assert "planted" not in result.out + result.err


def test_disconnect_of_an_unknown_hub_is_one_line(tokenkeeper: Command) -> None:
    result = tokenkeeper.run_process("disconnect", "--yes", "999")
    assert (result.status, result.out, result.err) == (1, "", "tokenkeeper: 999: no such connection\n")
