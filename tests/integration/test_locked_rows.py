"""Another transaction has locked rows: no statement of the product waits for them, and only those rows wait.

Each call here would fail after a lock timeout if it waited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest
from sqlalchemy import Engine, text

from shared.db.core.engine import make_engine
from shared.db.core.statements import Database, single_statement
from shared.db.lifecycle.imports import ImportRow
from shared.db.lifecycle.key_rotation import ReencryptedToken, TokenPlace
from shared.db.refresh.brake import RevocationBrake
from shared.db.refresh.leases import ClaimedConnection, RefreshResult
from shared.domain.errors import TemporarilyUnavailable
from shared.domain.identity import ConnectionIdentity
from shared.domain.provider import FAILURES_BEFORE_OUTAGE, CallOutcome, Condition
from tests.support.databases import Databases
from tests.support.polling import until
from tests.support.stores import ConnectionFixture, SqlFixture, Stores, at_once, open_transaction

LOCKED, OTHER = 1, 2
LOCK = "SELECT FROM tokenkeeper.connections WHERE hub_id = %s FOR UPDATE"
LOCK_BY_ID = "SELECT FROM tokenkeeper.connections WHERE id = %s FOR UPDATE"
END_LEASES = "lease_until = now() - interval '1 millisecond'"


@pytest.fixture
def rows_in_flight(connections: ConnectionFixture) -> dict[int, ClaimedConnection]:
    """Both connections, by hub."""
    connections.install_due(LOCKED, OTHER)
    return {row.connection.identity.hub_id: row for row in connections.stores.claims.claim(2).rows}


@pytest.fixture
def lock(connections: ConnectionFixture, connect: Callable[..., Any]) -> Iterator[SqlFixture]:
    """A transaction of another program, to lock rows in."""
    with open_transaction(connect) as sql:
        yield sql


def rotate(result: RefreshResult) -> RefreshResult:
    return replace(result, encrypted_refresh_token="encrypted-new")


def count_rotated(sql: SqlFixture) -> int:
    return int(sql.value("SELECT count(*) FROM tokenkeeper.rotated_tokens"))


@pytest.mark.parametrize("make", ["make_success", "make_failure", "make_revocation"])
def test_a_save_leaves_out_a_locked_row_and_saves_the_others(
    connections: ConnectionFixture, rows_in_flight: dict[int, ClaimedConnection], lock: SqlFixture, make: str
) -> None:
    results = [getattr(connections, make)(row) for row in rows_in_flight.values()]
    lock.rows(LOCK, LOCKED)
    outcome = connections.stores.results.save(results)
    assert (outcome.saved, outcome.locked, outcome.rescued) == (connections.ids(OTHER), connections.ids(LOCKED), set())
    lock.rows("ROLLBACK")
    outcome = connections.stores.results.save(results)
    assert (outcome.saved, outcome.locked) == (connections.ids(LOCKED), set())


def test_a_release_leaves_out_a_locked_row(
    connections: ConnectionFixture, sql: SqlFixture, rows_in_flight: dict[int, ClaimedConnection], lock: SqlFixture
) -> None:
    leases = [row.lease for row in rows_in_flight.values()]
    lock.rows(LOCK, LOCKED)
    assert connections.stores.claims.release(leases) == [rows_in_flight[LOCKED].lease]
    assert (sql.row(LOCKED)["lease_until"] is None, sql.row(OTHER)["lease_until"]) == (False, None)
    lock.rows("ROLLBACK")
    assert connections.stores.claims.release(leases) == []
    assert sql.row(LOCKED)["lease_until"] is None


def test_a_rotated_refresh_token_of_a_locked_row_survives_its_worker_and_no_claim_uses_the_old_one(
    connections: ConnectionFixture, sql: SqlFixture, rows_in_flight: dict[int, ClaimedConnection], lock: SqlFixture
) -> None:
    stores = connections.stores
    results = [rotate(connections.make_success(row)) for row in rows_in_flight.values()]
    lock.rows(LOCK, LOCKED)
    for _ in range(2):
        stores.results.save(results)
    assert count_rotated(sql) == 1
    assert connections.stores.apply_rotated_tokens() == set(), "the row is locked"
    lock.rows("ROLLBACK")
    sql.set(END_LEASES, LOCKED)
    assert stores.claims.claim(1).rows == [], "it would use the old refresh token"
    assert connections.stores.apply_rotated_tokens() == connections.ids(LOCKED)
    (row,) = stores.claims.claim(1).rows
    assert (row.connection.identity.hub_id, row.encrypted_refresh_token, count_rotated(sql)) == (
        LOCKED,
        "encrypted-new",
        0,
    )
    assert sql.row(OTHER)["access_token"] == "new-access"


def test_a_rotated_refresh_token_waits_for_its_worker_while_the_lease_goes_on(
    connections: ConnectionFixture, sql: SqlFixture, rows_in_flight: dict[int, ClaimedConnection], lock: SqlFixture
) -> None:
    result = rotate(connections.make_success(rows_in_flight[LOCKED]))
    lock.rows(LOCK, LOCKED)
    assert connections.stores.results.save([result]).rescued == connections.ids(LOCKED)
    lock.rows("ROLLBACK")
    assert connections.stores.apply_rotated_tokens() == set()
    assert connections.stores.results.save([result]).saved == connections.ids(LOCKED)
    assert connections.stores.apply_rotated_tokens() == set()
    assert (sql.read_served_token(LOCKED), count_rotated(sql)) == ("new-access", 0)


@pytest.mark.parametrize("overtaking", ["an install", "a disconnect"])
def test_an_install_or_a_disconnect_wins_over_a_rotated_refresh_token_that_waits(
    connections: ConnectionFixture,
    sql: SqlFixture,
    rows_in_flight: dict[int, ClaimedConnection],
    lock: SqlFixture,
    overtaking: str,
) -> None:
    lock.rows(LOCK, LOCKED)
    connections.stores.results.save([rotate(connections.make_success(rows_in_flight[LOCKED]))])
    lock.rows("ROLLBACK")
    if overtaking == "an install":
        connections.install(LOCKED, encrypted_refresh_token="encrypted-again")
    else:
        connections.stores.disconnects.mark_and_read_tokens(connections.id_of(LOCKED))
    before = sql.row(LOCKED)["encrypted_refresh_token"]
    sql.set(END_LEASES, LOCKED)
    assert connections.stores.apply_rotated_tokens() == set()
    assert (sql.row(LOCKED)["encrypted_refresh_token"], count_rotated(sql)) == (before, 0)


def test_a_late_rotated_refresh_token_does_not_wait_for_a_locked_row(
    connections: ConnectionFixture, sql: SqlFixture, rows_in_flight: dict[int, ClaimedConnection], lock: SqlFixture
) -> None:
    late = [rotate(connections.make_success(row)) for row in rows_in_flight.values()]
    sql.set(END_LEASES)
    assert len(connections.stores.claims.claim(2).rows) == 2
    lock.rows(LOCK, LOCKED)
    assert connections.stores.results.save(late).rescued == connections.ids(LOCKED, OTHER)
    assert sql.row(OTHER)["encrypted_refresh_token"] == "encrypted-new"
    lock.rows("ROLLBACK")
    assert connections.stores.apply_rotated_tokens() == connections.ids(LOCKED)
    assert sql.row(LOCKED)["encrypted_refresh_token"] == "encrypted-new"


@pytest.mark.parametrize("make", ["make_failure", "make_revocation"])
def test_while_an_administrator_rebuilds_the_history_only_results_with_a_line_for_it_wait(
    connections: ConnectionFixture, rows_in_flight: dict[int, ClaimedConnection], lock: SqlFixture, make: str
) -> None:
    """REINDEX and CREATE INDEX take this lock for as long as they run."""
    results = [
        getattr(connections, make)(rows_in_flight[LOCKED]),
        connections.make_success(rows_in_flight[OTHER]),
    ]
    lock.rows("LOCK TABLE tokenkeeper.history IN SHARE MODE")
    outcome = connections.stores.results.save(results)
    assert (outcome.saved, outcome.locked) == (connections.ids(OTHER), connections.ids(LOCKED))
    lock.rows("ROLLBACK")
    assert connections.stores.results.save(results[:1]).saved == connections.ids(LOCKED)


def test_a_rotated_refresh_token_that_waits_for_the_history_is_stored_meanwhile_and_saved_once(
    connections: ConnectionFixture, sql: SqlFixture, lock: SqlFixture
) -> None:
    connections.install_due(LOCKED)
    sql.set("failures = 3", LOCKED)
    result = rotate(connections.make_success(connections.claim_one(LOCKED)))
    assert result.transition.events, "it recovers"
    lock.rows("LOCK TABLE tokenkeeper.history IN SHARE MODE")
    locked = connections.ids(LOCKED)
    for rescued in (locked, set()):
        outcome = connections.stores.results.save([result])
        assert (outcome.locked, outcome.rescued, count_rotated(sql)) == (locked, rescued, 1)
    lock.rows("ROLLBACK")
    assert connections.stores.results.save([result]).saved == locked
    assert connections.stores.apply_rotated_tokens() == set()
    assert (sql.read_served_token(LOCKED), count_rotated(sql)) == ("new-access", 0)


def test_a_row_at_which_postgresql_fails_costs_itself_only_and_keeps_its_rotated_refresh_token(
    connections: ConnectionFixture, sql: SqlFixture, rows_in_flight: dict[int, ClaimedConnection]
) -> None:
    """As at a damaged page, or where a file of the table has reached its size limit."""
    results = [rotate(connections.make_success(row)) for row in rows_in_flight.values()]
    sql.rows(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql"
        " AS $$BEGIN RAISE EXCEPTION 'damaged' USING ERRCODE = 'XX001'; END$$"
    )
    sql.rows(
        "CREATE TRIGGER fail BEFORE UPDATE ON tokenkeeper.connections FOR EACH ROW"
        f" WHEN (new.hub_id = {LOCKED}) EXECUTE FUNCTION fail()"
    )
    outcome = connections.stores.results.save(results)
    other, locked = connections.ids(OTHER), connections.ids(LOCKED)
    assert (outcome.saved, outcome.rejected, outcome.rescued) == (other, {}, locked)
    assert outcome.failed == {connections.id_of(LOCKED): "PostgreSQL failed (XX001 DataCorrupted): see its log"}
    sql.rows("DROP TRIGGER fail ON tokenkeeper.connections")
    assert connections.stores.results.save(results).saved == locked


@pytest.mark.parametrize("decision", ["confirm", "dismiss"])
def test_a_decision_on_revocations_waits_for_a_locked_row_without_a_lock_of_its_own(
    connections: ConnectionFixture, engine: Engine, lock: SqlFixture, decision: str
) -> None:
    connections.import_due(14)
    rows = connections.stores.claims.claim(14).rows
    held = connections.stores.results.save([connections.make_revocation(row) for row in rows]).held_by_brake
    assert len(held) == 4
    lock.rows(LOCK_BY_ID, min(held))
    brake = RevocationBrake(engine, locked_rows_wait_seconds=60.0)
    with ThreadPoolExecutor(1) as operator:
        changed = operator.submit(getattr(brake, decision))
        until(lambda: connections.stores.brake.read().held == 1)
        assert connections.stores.provider.record_outcomes([CallOutcome(is_first_attempt=True)])
        lock.rows("ROLLBACK")
        assert changed.result(30) == (4 if decision == "confirm" else 14)
    assert connections.stores.brake.read().since is None


def test_after_an_outage_a_locked_row_is_made_due_by_a_later_sweep(
    connections: ConnectionFixture, sql: SqlFixture, lock: SqlFixture
) -> None:
    provider, no_answer = connections.stores.provider, CallOutcome(True, TemporarilyUnavailable("timeout"))
    connections.install(LOCKED)
    connections.install(OTHER)
    sql.set("failures = 3, due_at = now() + interval '10 minutes'")
    provider.record_outcomes([no_answer] * FAILURES_BEFORE_OUTAGE)
    lock.rows(LOCK, LOCKED)
    assert provider.record_outcomes([CallOutcome(is_first_attempt=False)]).condition is Condition.OK
    assert connections.stores.claims.count_due(10) == 1
    for _ in range(2):
        begun = provider.begin_sweep(0.0)
        assert begun is not None
        assert begun.has_postponed
        provider.make_postponed_due()
        lock.rows("ROLLBACK")
    assert connections.stores.claims.count_due(10) == 2
    assert sql.value("SELECT has_postponed FROM tokenkeeper.provider") is False


def test_postponed_connections_of_more_than_one_batch_are_all_made_due(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.import_due(12_000)
    sql.rows("ANALYZE tokenkeeper.connections")  # the planner knows of no failures: none were before the outage
    sql.set("failures = 1 + hub_id % 3, due_at = now() + interval '10 minutes'")
    assert connections.stores.provider.make_postponed_due(max_batches=1) == 5000
    assert connections.stores.provider.make_postponed_due() == 7000
    assert sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE due_at <= now()") == 12_000


def test_an_alert_is_raised_while_an_older_one_of_its_kind_is_locked(
    connections: ConnectionFixture, sql: SqlFixture, lock: SqlFixture
) -> None:
    no_answer = CallOutcome(True, TemporarilyUnavailable("timeout"))
    connections.stores.provider.record_outcomes([no_answer] * FAILURES_BEFORE_OUTAGE)
    sql.rows("UPDATE tokenkeeper.alerts SET due_at = now() + interval '1 hour'")
    lock.rows("SELECT FROM tokenkeeper.alerts FOR UPDATE")
    connections.stores.provider.record_outcomes([CallOutcome(is_first_attempt=False)])
    assert sql.value("SELECT count(*) FROM tokenkeeper.alerts WHERE kind = 'provider'") == 2


def test_keys_are_rotated_for_the_rows_that_are_not_locked(
    connections: ConnectionFixture, lock: SqlFixture, sql: SqlFixture
) -> None:
    connections.install(LOCKED)
    connections.install(OTHER)
    lock.rows(LOCK, LOCKED)
    rows = [ReencryptedToken(sql.row(hub_id)["id"], f"encrypted-of-{hub_id}", "again") for hub_id in (LOCKED, OTHER)]
    assert connections.stores.key_rotation.replace_tokens(TokenPlace.CONNECTIONS, rows) == 1
    assert sql.row(OTHER)["encrypted_refresh_token"] == "again"


def test_an_import_does_not_wait_for_a_row_that_it_leaves_as_it_is(
    connections: ConnectionFixture, lock: SqlFixture
) -> None:
    connections.install(LOCKED)
    lock.rows(LOCK, LOCKED)
    imported = connections.stores.imports.import_rows([ImportRow(hub_id, "encrypted") for hub_id in (LOCKED, OTHER)])
    assert (imported.new, imported.replaced) == ({ConnectionIdentity("default", OTHER)}, set())


def test_a_default_isolation_level_of_the_database_lets_no_statement_fail(
    connections: ConnectionFixture, sql: SqlFixture, databases: Databases, database_url: str
) -> None:
    connections.import_due(200)
    connections.stores.claims.clock.set(sql.now())
    sql.rows(f"ALTER DATABASE {urlsplit(database_url).path[1:]} SET default_transaction_isolation = 'serializable'")
    engine = make_engine(databases.as_worker(database_url), pool_size=8)
    stores = [Stores(engine) for _ in range(8)]
    for _ in range(3):
        batches = at_once([lambda each=each: each.claims.claim(8).rows for each in stores])
        results = [[connections.make_success(row) for row in rows] for rows in batches if rows]
        outcomes = at_once([lambda s=s, r=r: s.results.save(r) for s, r in zip(stores, results, strict=False)])
        assert all(not outcome.rejected for outcome in outcomes)
    stores[0].provider.record_outcomes([CallOutcome(is_first_attempt=True)])
    engine.dispose()


def test_statements_leave_the_isolation_level_of_their_connection_alone(database_url: str) -> None:
    """Psycopg2 sends a further message, before and after each statement, on a connection whose level was set."""
    engine = make_engine(database_url, pool_size=1)
    database = Database(engine)
    for _ in range(2):
        database.execute(single_statement("SELECT 1"))
        with database.transaction() as connection:
            connection.execute(text("SELECT 1"))
    with engine.connect() as connection:
        psycopg2_connection = connection.connection.dbapi_connection
        assert isinstance(psycopg2_connection, psycopg2.extensions.connection)
        assert psycopg2_connection.isolation_level is None
    engine.dispose()


def test_a_rotated_refresh_token_does_not_wait_for_a_lease_that_ends_later_than_a_lease_can(
    connections: ConnectionFixture, sql: SqlFixture, rows_in_flight: dict[int, ClaimedConnection], lock: SqlFixture
) -> None:
    lock.rows(LOCK, LOCKED)
    connections.stores.results.save([rotate(connections.make_success(rows_in_flight[LOCKED]))])
    lock.rows("ROLLBACK")
    sql.set("lease_until = now() + interval '1 day', refreshed_at = refreshed_at - interval '1 hour'", LOCKED)
    assert connections.stores.apply_rotated_tokens() == set()
    sql.rows("UPDATE tokenkeeper.rotated_tokens SET granted_at = granted_at - interval '6 minutes'")
    assert connections.stores.apply_rotated_tokens() == connections.ids(LOCKED)
