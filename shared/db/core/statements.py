"""Runs statements: one in a single round trip, or several in a short transaction. All of shared.db uses this."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Row, TextClause, text

from shared.db.core.engine import connect
from shared.db.core.errors import StoreUnavailable, translate_errors
from shared.db.core.server_watch import server_watch

#: Whatever the defaults of the database and the login are, and sent with each statement: behind PgBouncer a session
#: cannot keep a setting. No function of another schema takes the place of one of PostgreSQL's. Row level security
#: raises an error, where it would hide rows without a word. idle_in_transaction_session_timeout ends the transaction of
#: a process that was suspended within it, or whose host was: it may hold locks. The last one exists from PostgreSQL 17
#: on: an administrator's limit must not end our transactions.
STATEMENT_LIMITS = (
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; "
    "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL row_security = off; "
    "SET LOCAL statement_timeout = '10s'; SET LOCAL lock_timeout = '8s'; "
    "SET LOCAL idle_in_transaction_session_timeout = '15s'; "
    "SELECT set_config('transaction_timeout', '0', true)"
    " WHERE current_setting('transaction_timeout', true) IS NOT NULL; "
)


def single_statement(sql: str) -> TextClause:
    """A statement that is a transaction of its own: sent together with its limits in one message."""
    return text(STATEMENT_LIMITS + sql)


def next_number(column: str) -> str:
    """An SQL expression: the next value of a column with lease numbers or generations.

    It is PostgreSQL's clock in microseconds, so that a server that lacks the last commits of its predecessor does not
    give out a number a second time; and always greater than the one before.
    """
    return f"greatest({column} + 1, CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint))"


class Database:
    def __init__(self, engine: Engine, *, settle_seconds: float = 0.0) -> None:
        """`settle_seconds`: after the server was restarted or replaced, nothing is executed for so long."""
        self._engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._watch = server_watch(engine)
        self._settle_seconds = settle_seconds

    def execute(self, statement: TextClause, **values: Any) -> Sequence[Row[Any]]:
        """Run what single_statement() made. Raises StoreUnavailable, StatementRejected."""
        with translate_errors(), connect(self._autocommit) as connection:
            self._check_settled()
            result = connection.execute(statement, values)
            return result.all() if result.returns_rows else ()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Raises StoreUnavailable or StatementRejected: then nothing of it was stored."""
        with translate_errors(), connect(self._engine) as connection, connection.begin():
            self._check_settled()
            connection.exec_driver_sql(STATEMENT_LIMITS)
            yield connection

    def _check_settled(self) -> None:
        """Call it with a connection: taking it from the pool has noticed another server. Raises StoreUnavailable."""
        if self._watch.seconds_since_change() < self._settle_seconds:
            seconds = f"{self._settle_seconds:g} s"
            raise StoreUnavailable(
                f"PostgreSQL was restarted or replaced: for {seconds}, lost commits are repeated first"
            )
