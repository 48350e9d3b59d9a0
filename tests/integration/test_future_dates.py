"""Dates that PostgreSQL wrote while its clock was ahead do not count."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from shared.db.alerts.outbox import Outbox
from shared.db.lifecycle.installs import InstallOutcome
from shared.db.refresh.future_dates import correct_future_dates
from shared.domain.errors import TemporarilyUnavailable
from shared.domain.provider import FAILURES_BEFORE_OUTAGE, CallOutcome
from tests.support.stores import ConnectionFixture, SqlFixture

AHEAD, OTHER = 1, 2


@pytest.fixture
def sql_of_two(connections: ConnectionFixture, sql: SqlFixture) -> SqlFixture:
    connections.install(AHEAD)
    connections.install(OTHER)
    return sql


@pytest.mark.parametrize(
    "dates",
    [
        ", ".join(f"{name} = {name} + interval '1 hour'" for name in ("refreshed_at", "expires_at", "due_at")),
        "due_at = now() + interval '1 hour', failures = 1",
        "due_at = now() + interval '3 hours', retry_not_before = now() + interval '2 hours', failures = 1",
    ],
    ids=["a success", "a failure", "a failure after a Retry-After"],
)
def test_a_sweep_makes_a_connection_due_whose_dates_are_further_ahead_than_they_can_be(
    sql_of_two: SqlFixture, engine: Engine, dates: str
) -> None:
    other = sql_of_two.row(OTHER)
    sql_of_two.set(dates, AHEAD)
    assert correct_future_dates(engine) == 1
    due = "SELECT due_at <= greatest(now(), retry_not_before) FROM tokenkeeper.connections WHERE hub_id = %s"
    assert sql_of_two.value(due, AHEAD) is True
    expiry = "SELECT expires_at <= now() + interval '30 minutes' FROM tokenkeeper.connections WHERE hub_id = %s"
    assert sql_of_two.value(expiry, AHEAD) is True
    assert sql_of_two.row(OTHER) == other
    assert correct_future_dates(engine) == 0


def test_dates_that_hubspot_asked_for_or_that_a_long_lifetime_gives_are_left(
    sql_of_two: SqlFixture, engine: Engine
) -> None:
    sql_of_two.set("due_at = now() + interval '1 day', retry_not_before = now() + interval '1 day'", AHEAD)
    sql_of_two.set("due_at = now() + interval '5 hours', lifetime_seconds = 21600", OTHER)
    assert correct_future_dates(engine) == 0


def test_a_lease_that_ends_later_than_a_lease_can_is_none(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install_due(AHEAD, OTHER)
    sql.set("lease_until = now() + interval '1 hour'", AHEAD)
    sql.set("lease_until = now() + interval '1 minute'", OTHER)
    assert connections.stores.claims.count_due(10) == 1
    assert [row.connection.identity.hub_id for row in connections.stores.claims.claim(10).rows] == [AHEAD]


def test_dates_of_hubspots_state_in_the_future_become_now_at_the_next_sweep(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    names = ("since", "brake_since", "brake_reset_at", "swept_at")
    later = ", ".join(f"{name} = now() + interval '1 hour'" for name in names)
    sql.rows(f"UPDATE tokenkeeper.provider SET {later}")
    assert connections.stores.provider.begin_sweep(2.0) is not None
    past = " AND ".join(f"{name} <= clock_timestamp()" for name in names)
    assert sql.value(f"SELECT {past} FROM tokenkeeper.provider") is True


def test_an_alert_with_dates_in_the_future_is_posted(
    connections: ConnectionFixture, sql: SqlFixture, engine: Engine
) -> None:
    no_answer = CallOutcome(is_first_attempt=True, error=TemporarilyUnavailable("timeout"))
    connections.stores.provider.record_outcomes([no_answer] * FAILURES_BEFORE_OUTAGE)
    later = "now() + interval '3 hours'"
    sql.rows(f"UPDATE tokenkeeper.alerts SET due_at = {later}, lease_until = {later}, at = {later}")
    assert Outbox(engine).claim() is not None


@pytest.mark.parametrize("dates", ["installed_at = now() + interval '1 hour'", "status = 'disconnected'"])
def test_an_install_is_not_older_than_one_of_a_clock_that_was_ahead(
    connections: ConnectionFixture, sql_of_two: SqlFixture, dates: str
) -> None:
    sql_of_two.set(f"{dates}, status_since = now() + interval '1 hour'", AHEAD)
    assert connections.install(AHEAD).outcome is InstallOutcome.REINSTALLED
