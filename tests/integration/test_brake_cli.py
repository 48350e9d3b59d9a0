"""`tokenkeeper revocations`, and what status and doctor say of the brake."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.domain.brake import MIN_REVOCATIONS
from tests.support.command import Command
from tests.support.stores import ConnectionFixture, SqlFixture

ON = "DELETE FROM tokenkeeper.history; UPDATE tokenkeeper.provider SET brake_since = now()"


@pytest.fixture
def tokenkeeper(environment: Callable[..., dict[str, str]]) -> Command:
    return Command(environment())


@pytest.fixture
def braked(connections: ConnectionFixture) -> ConnectionFixture:
    """Ten revoked, five held."""
    connections.many_due(20)
    connections.stores.results.save(
        [connections.revoked(row) for row in connections.stores.claims.claim(MIN_REVOCATIONS + 5).rows]
    )
    return connections


def statuses(sql: SqlFixture) -> dict[str, int]:
    return dict(sql.rows("SELECT status, count(*) FROM hubspot.connections GROUP BY 1"))


@pytest.mark.usefixtures("braked")
def test_without_a_verb_it_says_how_many_are_held_since_when_and_what_to_do(tokenkeeper: Command) -> None:
    ran = tokenkeeper("revocations")
    assert (ran.status, ran.err) == (0, "")
    assert "on since 20" in ran.out
    assert "s ago)" in ran.out
    assert "5 connections held" in ran.out
    assert "tokenkeeper revocations confirm" in ran.out
    assert "tokenkeeper revocations dismiss" in ran.out


@pytest.mark.usefixtures("connections")
def test_where_the_brake_is_off_it_says_so_and_has_nothing_to_confirm_or_dismiss(tokenkeeper: Command) -> None:
    assert tokenkeeper("revocations").out == "the revocation brake is off\n"
    for word in ("confirm", "dismiss"):
        ran = tokenkeeper("revocations", word, "--yes")
        assert (ran.status, ran.out) == (1, "")
        assert ran.err == f"tokenkeeper: the revocation brake is off: there is nothing to {word}\n"


@pytest.mark.usefixtures("braked")
def test_confirm_asks_once_and_revokes_them(tokenkeeper: Command, sql: SqlFixture) -> None:
    unsure = tokenkeeper("revocations", "confirm", stdin="n\n")
    assert unsure.status == 1
    assert "5 connections are held. Are they really dead?" in unsure.out
    assert statuses(sql) == {"active": 5, "suspect": 5, "revoked": 10}
    sure = tokenkeeper("revocations", "confirm", stdin="y\n")
    assert sure.status == 0
    assert sure.out.endswith("5 revoked; the revocation brake is off\n")
    assert statuses(sql) == {"active": 5, "revoked": 15}


@pytest.mark.usefixtures("braked")
def test_dismiss_brings_all_back_without_a_question_where_told_so(tokenkeeper: Command, sql: SqlFixture) -> None:
    ran = tokenkeeper("revocations", "dismiss", "--yes")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == "15 active and due again; the revocation brake is off\n"
    assert statuses(sql) == {"active": 20}


def test_a_brake_that_holds_nothing_any_more_can_be_ended_too(
    tokenkeeper: Command, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    sql.rows(ON)
    assert "0 connections held" in tokenkeeper("revocations").out
    assert tokenkeeper("revocations", "confirm", "--yes").out.startswith("0 revoked")
    assert tokenkeeper("revocations").out == "the revocation brake is off\n"


@pytest.mark.usefixtures("braked")
def test_status_and_doctor_show_it(tokenkeeper: Command) -> None:
    assert "brake           ON since 20" in (said := tokenkeeper("status").out)
    assert "5 held suspect instead of revoked, see: tokenkeeper revocations" in said
    assert "warn  brake: on since " in tokenkeeper("doctor").out
    tokenkeeper("revocations", "dismiss", "--yes")
    assert "brake           off\n" in tokenkeeper("status").out
    assert "ok    brake: off\n" in tokenkeeper("doctor").out
