"""Runs statements: one in a single round trip, or several in a short transaction. All of shared.db uses this."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Row, TextClause, text

from shared.db.core.errors import translate_errors

#: The server's own time limits, sent with each statement: behind PgBouncer a session cannot keep a setting.
STATEMENT_LIMITS = "SET LOCAL statement_timeout = '10s'; SET LOCAL lock_timeout = '8s'; "


def single_statement(sql: str) -> TextClause:
    """A statement that is a transaction of its own: sent together with its limits in one message."""
    return text(STATEMENT_LIMITS + sql)


class Database:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    def execute(self, statement: TextClause, **values: Any) -> Sequence[Row[Any]]:
        """Run what single_statement() made. Raises StoreUnavailable, StatementRejected."""
        with translate_errors(), self._autocommit.connect() as connection:
            result = connection.execute(statement, values)
            return result.all() if result.returns_rows else ()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Raises StoreUnavailable or StatementRejected: then nothing of it was stored."""
        with translate_errors(), self._engine.begin() as connection:
            connection.exec_driver_sql(STATEMENT_LIMITS)
            yield connection
