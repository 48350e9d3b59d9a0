"""`hubspot.history.id` is a cursor: a reader that follows it while many write misses no line."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psycopg2
import pytest

from shared.db.lifecycle.imports import ImportRow
from tests.support.polling import until
from tests.support.stores import ConnectionFixture, SqlFixture, Stores, at_once, open_transaction

WRITERS, LINES = 8, 120
INSERT = "INSERT INTO tokenkeeper.history (hub_id, event, detail) VALUES (%s, 'recovered', '{}')"
NEXT_LINES = "SELECT id, hub_id FROM hubspot.history WHERE id > %s ORDER BY id"
WITHOUT_ORDER = "ALTER TABLE tokenkeeper.history DISABLE TRIGGER order_history"


def write_lines(connect: Callable[..., Any], hub_id: int) -> None:
    """Each line in a transaction that stays open for the time of another statement, as ours do."""
    session = SqlFixture(connect())
    for number in range(LINES):
        session.rows("BEGIN")
        session.rows(INSERT, hub_id)
        for _ in range(number % 4):
            session.rows("SELECT pg_sleep(0.0005 * random())")
        session.rows("COMMIT")


def follow(sql: SqlFixture, are_written: threading.Event) -> list[tuple[int, int]]:
    """What a reader sees that asks again and again for what follows the last line it has seen."""
    seen: list[tuple[int, int]] = []
    is_last_look = False
    while not is_last_look:
        is_last_look = are_written.is_set()
        seen += [(line_id, hub_id) for line_id, hub_id in sql.rows(NEXT_LINES, seen[-1][0] if seen else 0)]
    return seen


def read_while_others_write(sql: SqlFixture, connect: Callable[..., Any]) -> list[tuple[int, int]]:
    are_written = threading.Event()
    with ThreadPoolExecutor(WRITERS + 1) as pool:
        reader = pool.submit(follow, SqlFixture(connect()), are_written)
        for writer in [pool.submit(write_lines, connect, hub_id) for hub_id in range(WRITERS)]:
            writer.result()
        are_written.set()
        return reader.result()


def test_a_reader_that_follows_the_ids_misses_no_line_of_many_writers(
    sql: SqlFixture, connect: Callable[..., Any]
) -> None:
    seen = read_while_others_write(sql, connect)
    assert seen == sql.rows(NEXT_LINES, 0)
    assert len(seen) == WRITERS * LINES


def test_without_the_order_of_commitment_such_a_reader_misses_lines(
    sql: SqlFixture, connect: Callable[..., Any]
) -> None:
    """The control: what the test above would not notice, it would not hold."""
    sql.rows(WITHOUT_ORDER)

    def misses_lines() -> bool:
        return len(read_while_others_write(sql, connect)) < sql.value("SELECT count(*) FROM hubspot.history")

    until(misses_lines)  # where a busy machine lets one writer run after the other, there is none to miss


def test_a_line_that_is_written_earlier_and_committed_later_comes_later(
    sql: SqlFixture, connect: Callable[..., Any]
) -> None:
    first = SqlFixture(connect())
    first.rows("BEGIN")
    first.rows(INSERT, 1)
    first.rows(INSERT, 2)
    sql.rows(INSERT, 3)
    first.rows("COMMIT")
    assert [hub_id for _, hub_id in sql.rows(NEXT_LINES, 0)] == [3, 1, 2]


def test_an_open_transaction_that_has_written_history_stops_no_other(
    connections: ConnectionFixture, stores: Stores, sql: SqlFixture, connect: Callable[..., Any]
) -> None:
    with open_transaction(connect) as session:
        session.rows(INSERT, 9)
        connections.install(1)
        claimed = connections.claim_one(1)
        assert stores.results.save([connections.make_failure(claimed)]).saved
        stores.imports.import_rows([ImportRow(2, "encrypted")])
        stores.disconnects.mark_and_read_tokens(sql.value("SELECT id FROM tokenkeeper.connections WHERE hub_id = 1"))
    assert sql.value("SELECT count(*) FROM hubspot.history WHERE hub_id < 9") == 4


def test_a_refresh_that_works_waits_for_no_commit_of_another(
    connections: ConnectionFixture, stores: Stores, connect: Callable[..., Any]
) -> None:
    """As if one could not be completed, because a synchronous standby does not answer."""
    connections.install(1)
    connections.install(2)
    works, fails = connections.claim_one(1), connections.claim_one(2)
    results = [connections.make_success(works), connections.make_failure(fails)]
    with open_transaction(connect) as session:
        session.rows("LOCK TABLE tokenkeeper.history_order IN SHARE ROW EXCLUSIVE MODE")
        outcome = stores.results.save(results)
    assert (len(outcome.saved), len(outcome.locked)) == (1, 1), "one with a line for the history is saved later"
    assert stores.results.save(results[1:]).saved == outcome.locked


def test_installs_imports_and_failures_at_once_deadlock_nowhere(
    connections: ConnectionFixture, stores: Stores, sql: SqlFixture
) -> None:
    """Installs of new hubs lock `connection_counts` before they write history, imports after it."""
    hubs = 15

    def install(start: int) -> None:
        for hub_id in range(start, start + hubs):
            connections.install(hub_id)

    def import_some(start: int) -> None:
        for hub_id in range(start, start + hubs):
            stores.imports.import_rows([ImportRow(hub_id, "encrypted"), ImportRow(hub_id + 50, "encrypted")])

    installs = [partial(install, start) for start in (1000, 2000, 3000)]
    at_once([*installs, *(partial(import_some, start) for start in (5000, 6000, 7000))])  # a deadlock fails a call
    assert sql.value("SELECT count(*) FROM hubspot.history") == 3 * hubs + 3 * 2 * hubs


def test_lines_are_ordered_by_an_index_however_small_the_history_was_when_their_session_began(
    connect: Callable[..., Any], database_url: str
) -> None:
    """A session keeps a plan that reads all of it: a commit of thousands of lines then takes minutes."""
    session = SqlFixture(connect(database_url))  # a new one: it counts its own scans alone
    session.rows("VACUUM ANALYZE tokenkeeper.history")
    for hub_id in range(1, 10):
        session.rows("BEGIN")
        session.rows(INSERT, hub_id)
        session.rows("SET CONSTRAINTS ALL IMMEDIATE")
        scans = "SELECT seq_scan, idx_scan > 0 FROM pg_stat_xact_user_tables WHERE relname = 'history'"
        assert session.rows(scans) == [(0, True)]
        session.rows("COMMIT")


@pytest.mark.parametrize("mode", ["ACCESS SHARE", "ROW EXCLUSIVE", "SHARE ROW EXCLUSIVE"])
def test_no_role_of_a_job_or_of_the_product_can_take_the_lock_of_the_order(
    sql: SqlFixture, connect: Callable[..., Any], databases: Any, database_url: str, mode: str
) -> None:
    for url in (databases.as_web(database_url), databases.as_worker(database_url)):
        session = SqlFixture(connect(url))
        session.rows("BEGIN")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            session.rows(f"LOCK TABLE tokenkeeper.history_order IN {mode} MODE")
