"""The refresh loop of one pool process on real stores: all calls in flight, no hub twice, no result lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine
from structlog.testing import capture_logs

from shared.db.core.engine import make_engine
from shared.db.core.errors import StoreUnavailable, translate_errors
from shared.db.lifecycle.imports import ImportRow
from shared.domain.errors import TemporarilyUnavailable, Throttled
from shared.domain.schedule import Schedule
from shared.token_cipher import TokenCipher
from tests.support.hubspot import ScriptedHubSpot
from tests.support.polling import until
from tests.support.postgres import MigratedPostgres
from tests.support.stores import SqlFixture, Stores, open_transaction
from worker.refresh.loop import RefreshLoop
from worker.refresh.refresher import Refresher

CIPHER = TokenCipher([Fernet.generate_key().decode()])


StartLoop = Callable[..., RefreshLoop]
#: It becomes inactive once nothing is due: this only ends the work of a test that fails.
ACTIVE_SECONDS = 60


@pytest.fixture
def hubspot() -> ScriptedHubSpot:
    return ScriptedHubSpot(refresh_answer=None, answer_seconds=0.05)


@pytest.fixture
def start_loop(hubspot: ScriptedHubSpot, engine: Engine) -> Iterator[StartLoop]:
    """Starts loops, and drains them at the end of the test."""
    loops: list[RefreshLoop] = []

    def start(concurrency: int = 10, engine: Engine = engine, max_refreshes_per_second: float = 0.0) -> RefreshLoop:
        stores = Stores(engine, lease_seconds=60, max_refreshes_per_second=max_refreshes_per_second)
        refresher = Refresher(hubspot, CIPHER, stores.claims.clock, Schedule(), 20)  # type: ignore[arg-type]
        loops.append(
            RefreshLoop(
                stores.claims, stores.results, stores.provider, stores.counters, refresher, concurrency=concurrency
            )
        )
        loops[-1].start()
        return loops[-1]

    yield start
    hubspot.gate.set()
    for loop in loops:
        assert loop.drain(30)


def import_connections(stores: Stores, count: int) -> None:
    """Hubs from 1, due now, with refresh tokens r1, r2, ..."""
    stores.imports.import_rows(
        [ImportRow(hub, CIPHER.encrypt_refresh_token(hub, f"r{hub}")) for hub in range(1, count + 1)]
    )


def count_leases(sql: SqlFixture) -> int:
    return int(sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE lease_until IS NOT NULL"))


def count_served(sql: SqlFixture) -> int:
    return int(sql.value("SELECT count(*) FROM hubspot.tokens"))


def test_a_bug_in_one_refresh_leaves_its_row_to_a_later_claim_and_the_others_as_they_are(
    start_loop, hubspot, stores, sql
):
    import_connections(stores, 3)
    hubspot.error_by_token["r1"] = "no grant and no error"
    start_loop().activate(ACTIVE_SECONDS)
    until(lambda: count_served(sql) == 2 and hubspot.refreshes["r1"] and count_leases(sql) == 0)
    assert [sql.row(hub)["failures"] for hub in (1, 2, 3)] == [0, 0, 0]
    assert sql.value("SELECT due_at <= now() FROM tokenkeeper.connections WHERE hub_id = 1")


def test_every_due_row_is_refreshed_once_with_all_calls_in_flight(start_loop, hubspot, stores, sql):
    import_connections(stores, 300)
    hubspot.gate.clear()
    start_loop(concurrency=20).activate(ACTIVE_SECONDS)
    until(lambda: hubspot.in_flight.total() == 20)
    hubspot.gate.set()
    until(lambda: count_served(sql) == 300)
    assert set(hubspot.refreshes.values()) == {1}
    assert hubspot.max_in_flight == 20


def test_two_loops_share_the_work_and_refresh_no_hub_twice(start_loop, hubspot, stores, sql):
    import_connections(stores, 300)
    hubspot.gate.clear()
    for loop in (start_loop(), start_loop()):
        loop.activate(ACTIVE_SECONDS)
    until(lambda: hubspot.in_flight.total() == 20)
    hubspot.gate.set()
    until(lambda: count_served(sql) == 300)
    assert set(hubspot.refreshes.values()) == {1}


def test_a_loop_refreshes_nothing_before_it_is_activated(start_loop, hubspot, stores, sql):
    import_connections(stores, 5)
    loop = start_loop()
    assert hubspot.refreshes.total() == 0
    loop.activate(ACTIVE_SECONDS)
    until(lambda: count_served(sql) == 5)


def test_one_account_without_an_answer_delays_no_other(start_loop, hubspot, stores, sql):
    import_connections(stores, 100)
    hubspot.error_by_token["r1"] = TemporarilyUnavailable("timeout", retry_after=3600)
    start_loop().activate(ACTIVE_SECONDS)
    until(lambda: count_served(sql) == 99 and count_leases(sql) == 0)
    row = sql.row(1)
    assert (row["status"], row["failures"], row["last_error"]) == ("active", 1, "timeout")


def test_a_drained_loop_finishes_and_saves_the_calls_in_flight(start_loop, hubspot, stores, sql):
    import_connections(stores, 100)
    loop = start_loop()
    hubspot.gate.clear()
    loop.activate(ACTIVE_SECONDS)
    until(lambda: hubspot.in_flight.total() == 10)
    assert not loop.drain(0.0), "calls are in flight"
    hubspot.gate.set()
    assert loop.drain(60)
    assert count_served(sql) == 10
    assert count_leases(sql) == 0


def test_rows_claimed_ahead_of_free_threads_are_released_uncalled_by_a_drain(start_loop, hubspot, stores, sql):
    import_connections(stores, 100)
    hubspot.remaining_answers = threading.Semaphore(20)
    loop = start_loop(concurrency=20)
    loop.activate(ACTIVE_SECONDS)
    until(lambda: hubspot.refreshes.total() == 40)
    until(lambda: 20 < count_leases(sql) <= 40)
    loop.start_draining()
    hubspot.remaining_answers.release(100)
    assert loop.drain(60)
    assert (hubspot.refreshes.total(), hubspot.max_in_flight) == (40, 20)
    assert (count_served(sql), count_leases(sql)) == (40, 0)


def test_a_429_stops_all_loops_and_the_calls_in_flight_are_saved(start_loop, hubspot, stores, sql):
    import_connections(stores, 100)
    hubspot.refresh_answer = Throttled("429", http_status=429, retry_after=60)
    loops = start_loop(), start_loop()
    for loop in loops:
        loop.activate(ACTIVE_SECONDS)
    until(lambda: sql.value("SELECT condition FROM tokenkeeper.provider") == "throttled")
    until(lambda: count_leases(sql) == 0)
    assert hubspot.refreshes.total() <= 40  # those in flight when the first answer came, and one more turn of each loop


def test_an_outage_is_only_probed_and_all_are_refreshed_after_it(start_loop, hubspot, stores, sql):
    import_connections(stores, 60)
    hubspot.refresh_answer = TemporarilyUnavailable("connection")
    loop = start_loop()
    loop.activate(300)
    until(lambda: sql.value("SELECT condition FROM tokenkeeper.provider") == "unavailable")
    until(lambda: count_leases(sql) == 0)
    calls = hubspot.refreshes.total()
    hubspot.refresh_answer = None
    sql.rows("UPDATE tokenkeeper.provider SET bucket_level = 1")  # as ten seconds later: the next probe is due
    until(lambda: sql.value("SELECT condition FROM tokenkeeper.provider") == "ok")
    assert calls <= 40
    until(lambda: count_served(sql) == 60, 60)  # ten a second


def test_the_maximum_of_refreshes_per_second_holds_for_all_loops_together(start_loop, hubspot, stores, sql):
    import_connections(stores, 200)
    started_at = time.monotonic()
    for loop in (start_loop(max_refreshes_per_second=40), start_loop(max_refreshes_per_second=40)):
        loop.activate(ACTIVE_SECONDS)
    until(lambda: count_served(sql) >= 60)
    assert hubspot.refreshes.total() / (time.monotonic() - started_at) < 40 * 1.5


def test_rows_locked_by_another_transaction_wait_while_all_others_are_refreshed(
    start_loop, hubspot, stores, sql, connect
):
    import_connections(stores, 60)
    hubspot.gate.clear()
    start_loop().activate(ACTIVE_SECONDS)
    until(lambda: hubspot.in_flight.total() == 10)
    with open_transaction(connect) as administrator:
        administrator.rows("SELECT FROM tokenkeeper.connections WHERE lease_until IS NOT NULL LIMIT 3 FOR UPDATE")
        hubspot.gate.set()
        until(lambda: count_served(sql) == 57)
        assert count_leases(sql) == 3
    until(lambda: count_served(sql) == 60)
    assert set(hubspot.refreshes.values()) == {1}, "the results waited, and no row was refreshed again"
    assert count_leases(sql) == 0


def test_a_row_at_which_postgresql_fails_is_saved_once_it_does_not(start_loop, hubspot, stores, sql):
    import_connections(stores, 3)
    sql.rows(FAIL_AT_FIRST_HUB)
    hubspot.gate.clear()
    with capture_logs() as log:
        start_loop().activate(ACTIVE_SECONDS)
        until(lambda: hubspot.in_flight.total() == 3)
        sql.rows("ALTER TABLE tokenkeeper.connections ENABLE TRIGGER fail")
        hubspot.gate.set()
        until(lambda: count_served(sql) == 2)
        until(lambda: any("PostgreSQL fails at some results" in line["event"] for line in log))
        sql.rows("ALTER TABLE tokenkeeper.connections DISABLE TRIGGER fail")
        until(lambda: count_served(sql) == 3)
    assert hubspot.refreshes == {"r1": 1, "r2": 1, "r3": 1}


#: As at a damaged page.
FAIL_AT_FIRST_HUB = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'damaged' USING ERRCODE = 'XX001'; END$$;
CREATE TRIGGER fail BEFORE UPDATE ON tokenkeeper.connections FOR EACH ROW WHEN (new.hub_id = 1) EXECUTE FUNCTION fail();
ALTER TABLE tokenkeeper.connections DISABLE TRIGGER fail;
"""


def test_a_bug_in_the_loop_is_logged_and_it_goes_on(start_loop, hubspot, stores, sql):
    sql.rows(ALLOW_ANY_CONDITION)
    sql.rows("UPDATE tokenkeeper.provider SET condition = 'of a version that is not written yet'")
    with capture_logs() as log:
        loop = start_loop()
        loop.activate(ACTIVE_SECONDS)
        until(lambda: any(line["event"] == "the refresh loop raised an exception" for line in log))
        sql.rows("UPDATE tokenkeeper.provider SET condition = 'ok'")
        import_connections(stores, 3)
        loop.activate(ACTIVE_SECONDS)
        until(lambda: count_served(sql) == 3)


ALLOW_ANY_CONDITION = """
DO $$
DECLARE name text;
BEGIN
    FOR name IN
        SELECT conname FROM pg_constraint WHERE conrelid = 'tokenkeeper.provider'::regclass AND contype = 'c'
    LOOP
        EXECUTE format('ALTER TABLE tokenkeeper.provider DROP CONSTRAINT %I', name);
    END LOOP;
END $$
"""


@pytest.fixture
def own_engine(migrated_postgres: MigratedPostgres) -> Iterator[Engine]:
    engine = make_engine(migrated_postgres.url())
    yield engine
    engine.dispose()


def test_results_are_saved_after_an_outage_of_postgresql(migrated_postgres, own_engine, start_loop, hubspot):
    # The order of the fixtures matters: the loop is drained before the engine and the server end.
    stores = Stores(own_engine, lease_seconds=60)
    import_connections(stores, 10)
    loop = start_loop(engine=own_engine)
    hubspot.gate.clear()
    loop.activate(ACTIVE_SECONDS)
    until(lambda: hubspot.in_flight.total() == 10)
    migrated_postgres.stop()
    hubspot.gate.set()
    until(lambda: hubspot.in_flight.total() == 0)
    migrated_postgres.start()
    until(lambda: _are_all_served(stores, own_engine))
    assert set(hubspot.refreshes.values()) == {1}


def _are_all_served(stores: Stores, engine: Engine) -> bool:
    """False also where PostgreSQL does not answer in time."""
    with suppress(StoreUnavailable), translate_errors(), engine.connect() as connection:
        served = connection.exec_driver_sql("SELECT count(*) FROM hubspot.tokens").scalar()
        return stores.claims.count_due(100) == 0 and served == 10
    return False
