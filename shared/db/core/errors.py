"""The errors of PostgreSQL as this package raises them, without any value of a statement.

    StoreError
    ├── StoreUnavailable    PostgreSQL does not answer, or not now: the same call may succeed later
    │   ├── StoreMisconfigured  a wrong setting, or the server's own configuration: a start ends, what runs tries again
    │   ├── StoreReadOnly   its server takes no writes: a standby, or an old primary, in the middle of a failover
    │   ├── StoreLocked     another transaction holds a lock for too long
    │   └── ServerFailure   the server fails at this statement: a damaged page, a limit of its files
    └── StatementRejected   PostgreSQL rejects a statement: a bug, a missing privilege, or a schema changed by hand
    SchemaError             the database is not migrated, or behind or ahead of the code: one line that says what to do

The messages of SQLAlchemy and psycopg2 contain the statement, and psycopg2 puts its values into it: logging one of them
would log a token. So none of their exceptions leaves this package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg2
from psycopg2 import errorcodes
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shared.db.core.connection_errors import explain_connection_error

#: SQLSTATE classes and codes after which the same statement may succeed.
RETRYABLE_SQLSTATE_CLASSES = (
    errorcodes.CLASS_CONNECTION_EXCEPTION,
    errorcodes.CLASS_INSUFFICIENT_RESOURCES,
    errorcodes.CLASS_OPERATOR_INTERVENTION,  # shut down, starting up, cancelled by statement_timeout
    errorcodes.CLASS_TRANSACTION_ROLLBACK,  # deadlock, serialization
    errorcodes.CLASS_SYSTEM_ERROR,
)
RETRYABLE_SQLSTATES = (
    errorcodes.IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    "25P04",  # transaction_timeout, of PostgreSQL 17 and later
)
READ_ONLY = (
    "PostgreSQL is read-only: DATABASE_URL leads to a standby, or to a former primary, or "
    "default_transaction_read_only is on, which some hosts set when the disk is full. It is tried again; if this "
    "stays, let DATABASE_URL lead to the primary, or turn the setting off"
)
LOCKED = (
    "PostgreSQL could not do it now (55P03): another transaction holds a lock. If this stays, find it by "
    "pg_blocking_pids(pid) in pg_stat_activity"
)
DISK_FULL = "PostgreSQL could not do it now (53100): its disk is full. Free space there"
#: Parts of libpq's messages where target_session_attrs rejects a server.
READ_ONLY_ERRORS = ("session is read-only", "server is in hot standby mode")


class StoreError(Exception):
    """PostgreSQL did not do what was asked. Never raised directly."""


class StoreUnavailable(StoreError):
    """PostgreSQL does not answer, or not now. The only thing to do is to try again later."""


class StoreMisconfigured(StoreUnavailable):
    """There is no connection, and waiting alone does not bring one. The message says what to correct."""


class StoreReadOnly(StoreUnavailable):
    """The server takes no writes: a standby, or a former primary."""


class StoreLocked(StoreUnavailable):
    """Another transaction holds a lock, on a row or on a table, for longer than this statement waits."""


class ServerFailure(StoreUnavailable):
    """An internal error of the server, at this statement: a damaged page, a file's size limit, a concurrent REINDEX."""


class StatementRejected(StoreError):
    """PostgreSQL rejects a statement: a bug, a missing privilege, or a schema changed by hand."""


class SchemaError(Exception):
    """The database's schema is not this code's. The message is one line that says what to do."""


KNOWN_ERRORS: Mapping[str, tuple[type[StoreUnavailable], str]] = {
    errorcodes.READ_ONLY_SQL_TRANSACTION: (StoreReadOnly, READ_ONLY),
    errorcodes.LOCK_NOT_AVAILABLE: (StoreLocked, LOCKED),
    errorcodes.DISK_FULL: (StoreUnavailable, DISK_FULL),
}


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raises StoreUnavailable or StatementRejected for any error of SQLAlchemy or psycopg2 inside."""
    try:
        yield
    except PoolTimeout:
        raise StoreUnavailable("PostgreSQL: no connection of the pool became free in time") from None
    except DBAPIError as error:
        raise translate_error(error.orig, is_disconnect=error.connection_invalidated) from None
    except psycopg2.Error as error:
        raise translate_error(error, is_disconnect=False) from None
    except SQLAlchemyError as error:
        raise StatementRejected(f"a bug in a statement: {type(error).__name__}") from None


def translate_error(error: BaseException | None, *, is_disconnect: bool) -> StoreUnavailable | StatementRejected:
    """The message contains only SQLSTATEs, names of errors, and names of constraints and tables."""
    sqlstate = getattr(error, "pgcode", None)
    if sqlstate is None or is_disconnect:
        if is_disconnect or isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError)):
            return _translate_connection_error(str(error))
    elif sqlstate in KNOWN_ERRORS:
        kind, message = KNOWN_ERRORS[sqlstate]
        return kind(message)
    elif sqlstate[:2] == errorcodes.CLASS_INTERNAL_ERROR:
        return ServerFailure(f"PostgreSQL failed ({sqlstate} {type(error).__name__}): see its log")
    elif sqlstate in RETRYABLE_SQLSTATES or sqlstate[:2] in RETRYABLE_SQLSTATE_CLASSES:
        return StoreUnavailable(f"PostgreSQL could not do it now ({sqlstate} {type(error).__name__})")
    diagnostics = getattr(error, "diag", None)
    name = getattr(diagnostics, "constraint_name", None) or getattr(diagnostics, "table_name", None)
    where = f" at {name}" if name else ""
    if sqlstate == errorcodes.INSUFFICIENT_PRIVILEGE:
        return StatementRejected(
            f"the login in DATABASE_URL may not do this{where}: see docs/operations.md, Database roles"
        )
    return StatementRejected(f"PostgreSQL rejected a statement: {sqlstate} {type(error).__name__}{where}")


def _translate_connection_error(message: str) -> StoreUnavailable:
    if any(part in message for part in READ_ONLY_ERRORS):
        return StoreReadOnly(READ_ONLY)
    problem = explain_connection_error(message)
    if problem.is_permanent:
        return StoreMisconfigured(f"PostgreSQL cannot be used: {problem.reason}")
    return StoreUnavailable(f"PostgreSQL does not answer: {problem.reason}")
