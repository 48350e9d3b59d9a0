"""A snapshot stays open: claims cost the same, and its holder is measured, alerted and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from sqlalchemy import Engine, text

from shared.db.alerts.snapshot_watch import SnapshotWatch
from shared.db.core.engine import make_engine
from shared.db.refresh.claims import CLAIM_UNLESS_LIMITED, ConnectionClaims
from shared.db.refresh.due_cursor import BEGINNING
from shared.db.reports.oldest_snapshot import read_oldest_snapshot
from shared.domain.identity import DEFAULT_APP
from tests.support.polling import until
from tests.support.postgres import MigratedPostgres
from tests.support.stores import ConnectionFixture, SqlFixture, Stores, open_transaction

ROUNDS, ROWS = 12, 200
AGE_SNAPSHOT = "UPDATE tokenkeeper.oldest_snapshot SET since = since - interval '31 minutes'"
KINDS = "SELECT kind, recovered FROM tokenkeeper.alerts ORDER BY number"


@pytest.fixture
def claims(engine: Engine) -> ConnectionClaims:
    """With the cursor as in production, and no scan from the beginning but the first."""
    return ConnectionClaims(engine, lease_seconds=60, full_scan_seconds=3600)


def count_visited_buffers(engine: Engine, begins_at: str) -> int:
    """Of a claim that is rolled back."""
    explain = text("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + CLAIM_UNLESS_LIMITED.sql)
    with engine.connect() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))  # as with many rows
        values = {"app": DEFAULT_APP, "limit": 10, "lease_seconds": 60, "begins_at": begins_at}
        ((plan,),) = connection.execute(explain, values).all()
        connection.rollback()
    return int(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])


def refresh_rounds(connections: ConnectionFixture, claims: ConnectionClaims, sql: SqlFixture) -> None:
    """Refresh all rows many times, in the order in which they are due."""
    for _ in range(ROUNDS):
        sql.rows("UPDATE tokenkeeper.connections SET due_at = now()")
        while rows := claims.claim(100).rows:
            results = [connections.make_success(row) for row in rows]
            assert len(connections.stores.results.save(results).saved) == len(rows)


def test_a_claim_visits_as_many_pages_with_an_old_snapshot_as_without_and_a_full_scan_many_more(
    connections: ConnectionFixture,
    claims: ConnectionClaims,
    engine: Engine,
    sql: SqlFixture,
    connect: Callable[..., Any],
) -> None:
    connections.import_due(ROWS)
    connections.stores.claims.clock.set(sql.now())
    with open_transaction(connect, "REPEATABLE READ") as job:
        job.rows("SELECT FROM hubspot.tokens")
        refresh_rounds(connections, claims, sql)
        sql.rows("UPDATE tokenkeeper.connections SET due_at = now() WHERE hub_id <= 10")
        begins_at = claims._cursor._position  # what the next claim searches from
        assert begins_at is not None
        from_cursor = count_visited_buffers(engine, begins_at.isoformat())
        from_beginning = count_visited_buffers(engine, BEGINNING)
    print(f"pages visited by a claim: {from_cursor} from the cursor, {from_beginning} from the beginning")
    assert from_beginning > 3 * from_cursor
    assert len(claims.claim(100).rows) == 10


def test_a_row_behind_the_cursor_is_found_by_the_next_full_scan_and_a_released_one_at_once(
    connections: ConnectionFixture, engine: Engine, sql: SqlFixture
) -> None:
    claims = ConnectionClaims(engine, lease_seconds=60, full_scan_seconds=3600)
    connections.install_due(1, 2)
    rows = claims.claim(2).rows
    sql.rows(
        "UPDATE tokenkeeper.connections SET due_at = now() - interval '1 hour', lease_until = NULL WHERE hub_id = 1"
    )
    assert claims.claim(2).rows == [], "it is behind the cursor"
    assert claims.count_due(10) == 0
    claims.release([row.lease for row in rows if row.connection.identity.hub_id == 2])
    assert [row.connection.identity.hub_id for row in claims.claim(2).rows] == [2]
    assert [row.connection.identity.hub_id for row in connections.stores.claims.claim(2).rows] == [1], (
        "a full scan finds it"
    )


def test_a_row_behind_the_cursor_is_found_while_the_rate_is_limited(
    connections: ConnectionFixture, engine: Engine, sql: SqlFixture
) -> None:
    claims = ConnectionClaims(engine, lease_seconds=60, full_scan_seconds=0.05)
    connections.import_due(2)
    assert len(claims.claim(2).rows) == 2
    sql.rows("UPDATE tokenkeeper.provider SET rate = 1000, bucket_level = 100")
    sql.rows(
        "UPDATE tokenkeeper.connections SET due_at = now() - interval '1 hour', lease_until = NULL WHERE hub_id = 1"
    )
    (row,) = until(lambda: claims.claim(2).rows)
    assert row.connection.identity.hub_id == 1


def test_a_pause_of_all_refreshes_does_not_move_the_cursor(
    connections: ConnectionFixture, claims: ConnectionClaims, sql: SqlFixture
) -> None:
    assert claims.claim(10).rows == []
    connections.import_due(3)
    sql.rows("UPDATE tokenkeeper.provider SET paused_until = now() + interval '1 minute'")
    assert claims.claim(10).rows == []
    sql.rows("UPDATE tokenkeeper.provider SET paused_until = NULL")
    assert len(claims.claim(10).rows) == 3


def test_a_snapshot_that_stays_open_is_named_and_alerted_once(
    engine: Engine, sql: SqlFixture, connect: Callable[..., Any], stores: Stores
) -> None:
    watch = SnapshotWatch(engine)
    with open_transaction(connect, "REPEATABLE READ") as job:
        job.rows("SET LOCAL application_name = 'nightly-batch'")
        pid = job.value("SELECT pg_backend_pid() FROM hubspot.tokens RIGHT JOIN (SELECT) AS one ON true")
        watch.measure()
        assert sql.rows(KINDS) == []
        sql.rows(AGE_SNAPSHOT)
        for _ in range(2):
            watch.measure()
        oldest = read_oldest_snapshot(engine)
        assert oldest.age_seconds > 1800
        assert (oldest.holder["kind"], oldest.holder["name"]) == ("session", str(pid))
        assert oldest.holder["application"] == "nightly-batch"
        assert sql.rows(KINDS) == [("old_snapshot", False)]
    watch.measure()
    assert read_oldest_snapshot(engine).age_seconds < 60
    assert sql.rows(KINDS) == [("old_snapshot", False), ("old_snapshot", True)]


def fill_queue(stranger: SqlFixture, until_usage: float) -> None:
    """By a login that can connect."""
    while stranger.value("SELECT pg_notification_queue_usage()") < until_usage:
        stranger.rows("SELECT pg_notify('any_channel', repeat(md5(random()::text), 240))")


def test_a_full_queue_of_notifications_fails_no_install_and_is_alerted(
    migrated_postgres: MigratedPostgres, connect: Callable[..., Any]
) -> None:
    stranger = SqlFixture(connect(migrated_postgres.url()))
    if stranger.value("SHOW server_version_num") < "170000":
        pytest.skip("before version 17 PostgreSQL's queue has 8 GB and cannot be made smaller")
    stranger.rows("ALTER SYSTEM SET max_notify_queue_pages = 64")
    migrated_postgres.stop()
    migrated_postgres.start()
    engine, sql = make_engine(migrated_postgres.url()), SqlFixture(connect(migrated_postgres.url()))
    connections = ConnectionFixture(Stores(engine), sql)
    stranger, listener = SqlFixture(connect(migrated_postgres.url())), SqlFixture(connect(migrated_postgres.url()))
    listener.rows("LISTEN any_channel")
    listener.rows("BEGIN")
    listener.rows("SELECT 1")
    fill_queue(stranger, 0.6)
    SnapshotWatch(engine).measure()
    assert sql.rows(KINDS) == [("notification_queue", False)]
    with pytest.raises(psycopg2.Error, match="too many notifications"):
        fill_queue(stranger, 2.0)
    connections.install(1)
    assert sql.read_served_token(1) is not None
    listener.rows("COMMIT")
    until(lambda: sql.value("SELECT pg_notification_queue_usage()") < 0.1)
    SnapshotWatch(engine).measure()
    assert sql.rows(KINDS) == [("notification_queue", False), ("notification_queue", True)]
    engine.dispose()
