"""`tokenkeeper revocations`, and what status and doctor say about the revocation brake."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Callable

import pytest

from shared.domain.brake import MIN_REVOCATIONS
from tests.support.command import TOKENKEEPER, Command
from tests.support.stores import ConnectionFixture, SqlFixture

ON = "DELETE FROM tokenkeeper.history; UPDATE tokenkeeper.provider SET brake_since = now()"


@pytest.fixture
def tokenkeeper(environment: Callable[..., dict[str, str]]) -> Command:
    return Command(environment())


@pytest.fixture
def brake_on(connections: ConnectionFixture) -> ConnectionFixture:
    """Ten connections are revoked, five held."""
    connections.import_due(20)
    connections.stores.results.save(
        [connections.make_revocation(row) for row in connections.stores.claims.claim(MIN_REVOCATIONS + 5).rows]
    )
    return connections


def statuses(sql: SqlFixture) -> dict[str, int]:
    return dict(sql.rows("SELECT status, count(*) FROM hubspot.connections GROUP BY 1"))


@pytest.mark.usefixtures("brake_on")
def test_revocations_says_how_many_are_held_since_when_and_what_to_do(tokenkeeper: Command) -> None:
    result = tokenkeeper("revocations")
    assert (result.status, result.err) == (0, "")
    assert "on since 20" in result.out
    assert "s ago)" in result.out
    assert "5 connections held" in result.out
    assert "tokenkeeper revocations confirm" in result.out
    assert "tokenkeeper revocations dismiss" in result.out
    as_json = json.loads(tokenkeeper("revocations", "--json").out)
    assert (as_json["held"], as_json["on_since"] is None) == (5, False)


@pytest.mark.usefixtures("connections")
def test_with_the_brake_off_there_is_nothing_to_confirm_or_dismiss(tokenkeeper: Command) -> None:
    assert tokenkeeper("revocations").out == "the revocation brake is off\n"
    for word in ("confirm", "dismiss"):
        result = tokenkeeper("revocations", word, "--yes")
        assert (result.status, result.out) == (1, "")
        assert result.err == f"tokenkeeper: the revocation brake is off: there is nothing to {word}\n"


@pytest.mark.usefixtures("brake_on")
def test_confirm_asks_and_revokes_the_held_connections(tokenkeeper: Command, sql: SqlFixture) -> None:
    unsure = tokenkeeper.run_on_terminal("revocations", "confirm", answer="n\n")
    assert unsure.status == 1
    assert "5 connections are held. Are their grants really invalid?" in unsure.out
    assert statuses(sql) == {"active": 5, "suspect": 5, "revoked": 10}
    sure = tokenkeeper.run_on_terminal("revocations", "confirm", answer="y\n")
    assert sure.status == 0
    assert sure.screen_lines[-2].endswith("5 revoked; the revocation brake is off")
    assert statuses(sql) == {"active": 5, "revoked": 15}


@pytest.mark.usefixtures("brake_on")
@pytest.mark.parametrize("decision", ["confirm", "dismiss"])
def test_without_a_terminal_a_decision_asks_for_yes(tokenkeeper: Command, sql: SqlFixture, decision: str) -> None:
    result = tokenkeeper("revocations", decision, stdin="y\n")
    assert (result.status, result.out) == (2, "")
    assert "stdin is no terminal: add --yes" in result.err
    assert statuses(sql) == {"active": 5, "suspect": 5, "revoked": 10}


@pytest.mark.usefixtures("brake_on")
def test_dismiss_with_yes_makes_all_held_connections_active_without_a_question(
    tokenkeeper: Command, sql: SqlFixture
) -> None:
    result = tokenkeeper("revocations", "dismiss", "--yes")
    assert (result.status, result.err) == (0, "")
    assert result.out == "15 active and due again; the revocation brake is off\n"
    assert statuses(sql) == {"active": 20}


@pytest.mark.usefixtures("brake_on")
@pytest.mark.parametrize("decision", ["confirm", "dismiss"])
def test_a_brake_that_another_operator_ends_during_the_question_is_left_alone(
    tokenkeeper: Command, sql: SqlFixture, decision: str
) -> None:
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [TOKENKEEPER, "revocations", decision],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=tokenkeeper.environment,
    ) as asking:
        assert asking.stdout is not None
        assert asking.stdout.read(1), "it asks"
        assert tokenkeeper("revocations", "dismiss", "--yes").status == 0
        os.write(controller, b"y\n")
        _, errors = asking.communicate(timeout=30)
    os.close(controller)
    os.close(terminal)
    assert asking.returncode == 1
    assert errors.decode() == f"tokenkeeper: the revocation brake is off: there is nothing to {decision}\n"
    assert statuses(sql) == {"active": 20}


def test_a_brake_that_holds_no_connection_can_be_ended(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    sql.rows(ON)
    assert "0 connections held" in tokenkeeper("revocations").out
    assert tokenkeeper("revocations", "confirm", "--yes").out.startswith("0 revoked")
    assert tokenkeeper("revocations").out == "the revocation brake is off\n"


@pytest.mark.usefixtures("brake_on")
def test_status_and_doctor_show_the_brake(tokenkeeper: Command) -> None:
    assert "brake           ON since 20" in (output := tokenkeeper("status").out)
    assert "5 held suspect instead of revoked, see: tokenkeeper revocations" in output
    assert "warn  brake: on since " in tokenkeeper("doctor").out
    tokenkeeper("revocations", "dismiss", "--yes")
    assert "brake           off\n" in tokenkeeper("status").out
    assert "ok    brake: off\n" in tokenkeeper("doctor").out
