"""A database in use is migrated while its rows are read and refreshed: interrupted anywhere, and without long locks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine

from shared.db.core.engine import make_engine
from shared.db.core.errors import SchemaError
from shared.db.schema import online
from shared.db.schema.migrate import check_schema, migrate
from tests.integration.test_migrations import describe_schema
from tests.support.polling import until
from tests.support.stores import SqlFixture, open_transaction

IN_USE = "0004"
ROWS = """
INSERT INTO tokenkeeper.connections (hub_id, status, access_token, expires_at, encrypted_refresh_token, due_at)
SELECT n * 3, 'active', 'access-' || n, now() + interval '1 hour', 'refresh-' || n, now() + n * interval '1 s'
  FROM generate_series(1, 5000) AS n;
INSERT INTO tokenkeeper.history (hub_id, event, status)
SELECT n * 3, 'installed', 'active' FROM generate_series(1, 50) AS n
"""
#: As processes of revision 0004 write them.
INSERT_AS_0004 = """
INSERT INTO tokenkeeper.connections (hub_id, status, encrypted_refresh_token) VALUES (%s, 'active', 'new')
ON CONFLICT (hub_id) DO UPDATE SET encrypted_refresh_token = excluded.encrypted_refresh_token
"""
SAVE_AS_0004 = "UPDATE tokenkeeper.connections SET access_token = 'saved', due_at = now() WHERE hub_id = 3"
DATA = (
    "SELECT hub_id, status, access_token, encrypted_refresh_token, due_at FROM tokenkeeper.connections ORDER BY hub_id"
)
READ_TOKEN = "SELECT access_token FROM hubspot.tokens WHERE hub_id = 6"


@pytest.fixture
def in_use(empty_database_url: str, connect: Callable[..., Any]) -> SqlFixture:
    migrate(empty_database_url, last_revision=IN_USE)
    sql = SqlFixture(connect(empty_database_url))
    sql.rows(ROWS)
    return sql


@pytest.fixture
def owner(empty_database_url: str) -> Iterator[Engine]:
    engine = make_engine(empty_database_url, pool_size=1, statement_seconds=None)
    yield engine
    engine.dispose()


def run_steps(owner: Engine, names: list[str]) -> None:
    with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name in names:
            connection.exec_driver_sql(online.read_steps("0005")[name])


def test_a_migration_that_was_interrupted_after_any_step_is_completed_by_the_next(
    in_use: SqlFixture, owner: Engine, empty_database_url: str, sql: SqlFixture
) -> None:
    before = in_use.rows(DATA)
    steps = list(online.read_steps("0005"))
    copy_at = steps.index(online.COPY_STEP)
    # 1. Killed in the middle of the copy, and between the steps before it.
    run_steps(owner, steps[:copy_at])
    in_use.rows("UPDATE tokenkeeper.connections SET new_hub_id = hub_id WHERE hub_id < 900")
    run_steps(owner, steps[:copy_at])
    # 2. Killed after the constraints, and while an index was built, which leaves an invalid one.
    run_steps(owner, steps[copy_at : steps.index("connections_identity") + 1])
    in_use.rows(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'tokenkeeper.connections_identity'::regclass"
    )
    # 3. Killed after the preparation, with its effect on autovacuum.
    migrate(empty_database_url, prepare_only=True)
    in_use.rows(online.AUTOVACUUM_OFF)
    assert in_use.rows(DATA) == before
    migrate(empty_database_url)
    assert in_use.rows(DATA) == before
    assert in_use.value("SELECT count(*) FROM tokenkeeper.connections WHERE id <> hub_id OR app <> 'default'") == 0
    assert in_use.value("SELECT count(*) FROM tokenkeeper.history WHERE app <> 'default'") == 0
    migrated, new = describe_schema(in_use), describe_schema(sql)
    for kind, definitions in new.items():
        assert migrated[kind] == definitions
    check_schema(owner)
    # The planner knows the new columns: without statistics it would read the whole table for a few hub ids.
    statistics = "SELECT attname::text FROM pg_stats WHERE schemaname = 'tokenkeeper' AND tablename = 'connections'"
    assert {("hub_id",), ("app",)} <= set(in_use.rows(statistics))


def test_processes_of_the_old_version_go_on_while_the_database_is_prepared(
    in_use: SqlFixture, empty_database_url: str
) -> None:
    migrate(empty_database_url, prepare_only=True)
    assert in_use.value("SELECT version_num FROM tokenkeeper.alembic_version") == IN_USE
    for hub_id in (1, 3):
        in_use.rows(INSERT_AS_0004, hub_id)
    in_use.rows(SAVE_AS_0004)
    migrate(empty_database_url)
    rows = (
        "SELECT hub_id, access_token, encrypted_refresh_token FROM tokenkeeper.connections WHERE hub_id < 6 ORDER BY 1"
    )
    assert in_use.rows(rows) == [(1, None, "new"), (3, "saved", "new")]
    in_use.rows(
        "INSERT INTO tokenkeeper.connections (hub_id, status, encrypted_refresh_token) VALUES (7, 'active', 'a')"
    )
    newest = (
        "SELECT max(id) FILTER (WHERE hub_id = 7) - max(id) FILTER (WHERE hub_id <> 7) FROM tokenkeeper.connections"
    )
    assert in_use.value(newest) == 1, "a new id is greater than every hub id that is one"


def test_readers_do_not_wait_behind_a_migration_that_waits_for_a_transaction(
    in_use: SqlFixture, connect: Callable[..., Any], empty_database_url: str
) -> None:
    """The migration lets go of what it has waited for, again and again: each reader waits for a moment at most."""
    with (
        open_transaction(lambda: connect(empty_database_url)) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        migrate(empty_database_url, prepare_only=True)
        other.rows(READ_TOKEN)
        migration = pool.submit(migrate, empty_database_url)
        monitor = SqlFixture(connect(empty_database_url))
        for _ in range(3):
            until(monitor.count_lock_waits)
            assert in_use.value(READ_TOKEN) == "access-2"
            assert not migration.done()
        other.rows("ROLLBACK")
        migration.result(60)
    assert in_use.value(READ_TOKEN) == "access-2"


def test_a_view_of_others_on_a_view_that_changes_is_named(in_use: SqlFixture, empty_database_url: str) -> None:
    in_use.rows("CREATE VIEW public.mine AS SELECT event FROM hubspot.history")
    with pytest.raises(SchemaError) as refused:
        migrate(empty_database_url)
    assert "(view public.mine depends on view hubspot.history): drop that, run: tokenkeeper migrate" in str(
        refused.value
    )
    assert "\n" not in str(refused.value)
    assert in_use.value("SELECT version_num FROM tokenkeeper.alembic_version") == IN_USE
    assert in_use.rows("SELECT reloptions FROM pg_class WHERE reloptions::text LIKE '%autovacuum_enabled%'") == []
    in_use.rows("DROP VIEW public.mine")
    migrate(empty_database_url)
