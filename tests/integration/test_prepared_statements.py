"""The claim and the save are prepared once per session, and executed whatever became of that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Engine

from shared.db.core.engine import ServerConnection
from shared.db.core.statements import Database, PreparedStatement
from shared.db.refresh.claims import CLAIM_UNLESS_LIMITED
from shared.db.refresh.results import SAVE
from tests.support.stores import ConnectionFixture, SqlFixture

HUBS = (1, 2, 3)
#: So many that a scan of the table takes longer than a few reads by an index.
STORED_ROWS = 3000


def run_in_session(engine: Engine, sql: str) -> Sequence[tuple[Any, ...]]:
    """In the pool's only session, which all statements use in turn.

    It is the only one where nothing was installed: for a minute, a thread of its own would look after what was.
    """
    with engine.connect() as connection:
        session = connection.connection.driver_connection
        assert isinstance(session, ServerConnection)
        with session.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else ()


def refresh(connections: ConnectionFixture, sql: SqlFixture) -> int:
    """How many were claimed and saved."""
    sql.rows("UPDATE tokenkeeper.connections SET due_at = now()")
    claimed = connections.stores.claims.claim(len(HUBS)).rows
    outcome = connections.stores.results.save([connections.make_success(row) for row in claimed])
    return len(outcome.saved)


def test_a_session_prepares_the_claim_and_the_save_once_and_plans_them_once(
    connections: ConnectionFixture, sql: SqlFixture, engine: Engine
) -> None:
    connections.import_due(len(HUBS))
    for _ in range(3):
        assert refresh(connections, sql) == len(HUBS)
    statements = "SELECT name, generic_plans, custom_plans FROM pg_prepared_statements ORDER BY name"
    names = sorted([CLAIM_UNLESS_LIMITED.name, SAVE.name])
    assert run_in_session(engine, statements) == [(name, 3, 0) for name in names]


def test_a_claim_and_a_save_that_their_session_has_lost_are_executed_all_the_same(
    connections: ConnectionFixture, sql: SqlFixture, engine: Engine
) -> None:
    connections.import_due(len(HUBS))
    assert refresh(connections, sql) == len(HUBS)
    run_in_session(engine, "DEALLOCATE ALL")
    assert refresh(connections, sql) == len(HUBS)
    assert refresh(connections, sql) == len(HUBS)


@pytest.mark.parametrize(
    ("statement", "values"),
    [(CLAIM_UNLESS_LIMITED, "'default', '-infinity', 60, 100"), (SAVE, """'[{"connection_id": 1}]', 'default'""")],
    ids=["claim", "save"],
)
def test_without_statistics_of_the_table_no_plan_reads_all_of_it(
    connections: ConnectionFixture, sql: SqlFixture, statement: PreparedStatement, values: str
) -> None:
    connections.install(1)
    sql.rows(
        "INSERT INTO tokenkeeper.connections (hub_id, status, encrypted_refresh_token, due_at)"
        f" SELECT hub_id, 'active', 'x', now() FROM generate_series(2, {STORED_ROWS}) AS hub_id"
    )
    plan = sql.rows(f"{statement.prepare}; EXPLAIN EXECUTE {statement.name} ({values})")
    assert plan
    assert not [line for (line,) in plan if "Seq Scan on connections" in line]


def test_a_prepared_statement_is_never_compiled(engine: Engine) -> None:
    rows = Database(engine).execute(PreparedStatement("SELECT current_setting('jit') AS jit"))
    assert [row.jit for row in rows] == ["off"]
