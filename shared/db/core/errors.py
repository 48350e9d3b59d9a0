"""What PostgreSQL's trouble is called outside this package, without a single value of a statement.

    StoreError
    ├── StoreUnavailable   it does not answer, or not now: the same call may succeed later
    └── StoreBroken        it refuses what we say: a bug, or a schema that is not ours
    SchemaError            the database is not migrated, behind or ahead of the code: one line that says what to do

SQLAlchemy and psycopg2 put the statement, and psycopg2 pastes its values into it, into their own messages.
A token would be in a log. So none of their exceptions leaves this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from psycopg2 import errorcodes
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

#: SQLSTATE classes and codes after which the same statement may go through.
PASSING_CLASSES = (
    errorcodes.CLASS_CONNECTION_EXCEPTION,
    errorcodes.CLASS_INSUFFICIENT_RESOURCES,
    errorcodes.CLASS_OPERATOR_INTERVENTION,  # shut down, starting up, cancelled by statement_timeout
    errorcodes.CLASS_TRANSACTION_ROLLBACK,  # deadlock, serialization
    errorcodes.CLASS_SYSTEM_ERROR,
)
PASSING = (
    errorcodes.LOCK_NOT_AVAILABLE,
    errorcodes.READ_ONLY_SQL_TRANSACTION,  # a standby, in the middle of a failover
    errorcodes.IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
)
#: libpq's own words, which carry no SQLSTATE, and what to tell people.
WORDS = (
    ("refused", "connection refused: is it running at the address in DATABASE_URL?"),
    ("authentication failed", "it refuses the user or the password in DATABASE_URL"),
    ("no password supplied", "it wants a password: put one into DATABASE_URL"),
    ("does not exist", "the database or the user in DATABASE_URL does not exist"),
    ("translate host name", "the host in DATABASE_URL is unknown"),
    ("too many", "it has no connection left for us"),
    ("starting up", "it is starting up"),
    ("shutting down", "it is shutting down"),
    ("patience", "no answer in time"),
    ("closed", "the connection broke"),
)


class StoreError(Exception):
    """PostgreSQL did not do what was asked. Never raised directly."""


class StoreUnavailable(StoreError):
    """PostgreSQL does not answer, or not now. Trying again later may help; nothing else will."""


class StoreBroken(StoreError):
    """PostgreSQL refuses a statement of ours: a bug, or somebody changed the schema by hand."""


class SchemaError(Exception):
    """The database's schema is not this code's. The message is one line that says what to do."""


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raises StoreUnavailable or StoreBroken for whatever SQLAlchemy or psycopg2 raise inside."""
    try:
        yield
    except NoConnectionFree:
        raise StoreUnavailable("PostgreSQL: no connection of our pool came free in time") from None
    except DBAPIError as error:
        raise translated(error.orig, broken=error.connection_invalidated) from None
    except psycopg2.Error as error:
        raise translated(error, broken=False) from None
    except SQLAlchemyError as error:
        raise StoreBroken(f"a bug in our SQL: {type(error).__name__}") from None


def translated(error: BaseException | None, *, broken: bool) -> StoreUnavailable | StoreBroken:
    """`broken`: the connection did not survive it. Only codes and names of ours go into the message."""
    state = getattr(error, "pgcode", None)
    if state is None or broken:
        if broken or isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError)):
            return StoreUnavailable(f"PostgreSQL does not answer: {_in_words(error)}")
    elif state in PASSING or state[:2] in PASSING_CLASSES:
        return StoreUnavailable(f"PostgreSQL could not do it now ({state} {type(error).__name__})")
    diagnosis = getattr(error, "diag", None)
    place = getattr(diagnosis, "constraint_name", None) or getattr(diagnosis, "table_name", None)
    where = f" at {place}" if place else ""
    if state == errorcodes.INSUFFICIENT_PRIVILEGE:
        return StoreBroken(f"the login in DATABASE_URL may not do this{where}: see docs/operations.md, Database roles")
    return StoreBroken(f"PostgreSQL refused a statement of ours: {state} {type(error).__name__}{where}")


def _in_words(error: BaseException | None) -> str:
    text = str(error)
    return next((words for part, words in WORDS if part in text), type(error).__name__)
