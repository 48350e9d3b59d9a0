"""Runs statements: one in a single round trip, or several in a short transaction. All of shared.db uses this."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import psycopg2
from psycopg2 import errors
from psycopg2.extras import NamedTupleCursor
from sqlalchemy import Connection, Engine, TextClause, text
from sqlalchemy.dialects.postgresql import psycopg2 as dialects

from shared.db.core.engine import ServerConnection, connect
from shared.db.core.errors import StoreUnavailable, translate_error, translate_errors
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

#: Further ones of a prepared statement. Its plan is made once, for any values and sizes of tables, so it must read by
#: indexes, also while the tables have no statistics. Without values such a plan seems expensive, for a claim of many
#: million rows or, before PostgreSQL 18, where a table has no index: it would be compiled at each execution.
_PLAN_SETTINGS = "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off; SET LOCAL jit = off; "
#: For one that reads an index in its order, however many rows the planner expects.
READ_IN_ORDER = "SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off; "
#: Another session than the one that prepared it, or a changed table: nothing was executed.
_NOT_PREPARED = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement, errors.FeatureNotSupported)
_PARAMETER = re.compile(r"(?<![:\w]):(\w+)")


def single_statement(sql: str) -> TextClause:
    """A statement that is a transaction of its own: sent together with its limits in one message."""
    return text(STATEMENT_LIMITS + sql)


class PreparedStatement:
    """A transaction of its own as well, for what is run often: a session parses and plans it once (docs/adr/0039).

    Behind a pooler, which gives each transaction another session, it is sent like any other.
    """

    def __init__(self, sql: str, plan_settings: str = "", *, is_retried: bool = False, **types: str) -> None:
        """`types`: of each parameter. `sql`: without a percent sign.

        `is_retried`: by the caller, after any failure, at once or with the next sweep.
        """
        limits, names = STATEMENT_LIMITS + _PLAN_SETTINGS + plan_settings, list(types)
        numbered = _PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", sql)
        self.sql, self.is_retried = sql, is_retried
        #: It says what is prepared: no session has another statement of this name.
        self.name = f"tokenkeeper_{hashlib.sha256(sql.encode()).hexdigest()[:16]}"
        self.prepare = f"{limits}PREPARE {self.name}{_in_brackets(types.values())} AS {numbered}"
        #: This one and the next with psycopg2's named parameters.
        self.execute = f"{limits}EXECUTE {self.name}{_in_brackets(f'%({name})s' for name in names)}"
        self.unprepared = limits + _PARAMETER.sub(lambda match: f"CAST(%({match[1]})s AS {types[match[1]]})", sql)


def _in_brackets(items: Iterable[str]) -> str:
    """PostgreSQL takes no empty brackets there."""
    return f" ({listed})" if (listed := ", ".join(items)) else ""


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
        self._watch = server_watch(engine)
        self._settle_seconds = settle_seconds

    def execute(self, statement: TextClause | PreparedStatement, **values: Any) -> Sequence[Any]:
        """Run what single_statement() made, or a prepared one. The rows, as named tuples.

        Of rows without a column (`SELECT FROM`) psycopg2 returns none: write `SELECT 1 FROM`.
        Raises StoreUnavailable, StatementRejected.
        """
        is_hot = isinstance(statement, PreparedStatement) and statement.is_retried
        with translate_errors(), connect(self._engine, is_hot=is_hot) as connection:
            self._check_settled()
            return _execute_alone(connection, statement, values)

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


def _execute_alone(
    connection: Connection, statement: TextClause | PreparedStatement, values: Mapping[str, Any]
) -> Sequence[Any]:
    """In one round trip. SQLAlchemy would take two more to turn autocommit on and off, and build its own rows."""
    session: ServerConnection = connection.connection.driver_connection  # type: ignore[assignment]
    try:
        session.autocommit = True
        if isinstance(statement, PreparedStatement):
            return _execute_prepared(session, statement, values)
        return _fetch_all(session, _to_psycopg2(statement), values)
    except psycopg2.Error as error:
        is_disconnect = bool(session.closed) or connection.dialect.is_disconnect(error, session, None)  # type: ignore[arg-type]
        session.check_at = 0.0
        if is_disconnect:
            connection.invalidate(error)
        raise translate_error(error, is_disconnect=is_disconnect) from None
    except BaseException as interruption:
        if session.closed:  # psycopg2 has closed it, and the pool would log that it cannot be rolled back
            connection.invalidate(interruption)
        raise
    finally:
        if not session.closed:
            session.autocommit = False


def _execute_prepared(
    session: ServerConnection, statement: PreparedStatement, values: Mapping[str, Any]
) -> Sequence[Any]:
    if session.can_prepare:
        try:
            if statement.name not in session.prepared:
                _fetch_all(session, statement.prepare, None)
                session.prepared.add(statement.name)
            return _fetch_all(session, statement.execute, values)
        except _NOT_PREPARED:
            session.has_lost_prepared = True
    return _fetch_all(session, statement.unprepared, values)


def _fetch_all(session: ServerConnection, sql: str, values: Mapping[str, Any] | None) -> Sequence[Any]:
    with session.cursor(cursor_factory=NamedTupleCursor) as cursor:
        cursor.execute(sql, values)  # type: ignore[no-untyped-call]
        return cursor.fetchall() if cursor.description else ()


@lru_cache(maxsize=256)
def _to_psycopg2(statement: TextClause) -> str:
    return str(statement.compile(dialect=dialects.dialect()))  # type: ignore[no-untyped-call]
