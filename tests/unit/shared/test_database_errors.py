"""Each error of SQLAlchemy and psycopg2 becomes one of the package's own, with a message that says what to do."""

from __future__ import annotations

import psycopg2
import psycopg2.errors
import pytest
from psycopg2 import errorcodes
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shared.db.core.errors import StatementRejected, StoreError, StoreUnavailable, translate_errors

SECRET = "do-not-show-this-token"
DEADLOCK = psycopg2.errors.DeadlockDetected()
DEADLOCK.__setstate__({"pgcode": errorcodes.DEADLOCK_DETECTED})  # the server's own errors have it from libpq


def translate(raised: Exception) -> StoreError:
    with pytest.raises(StoreError) as caught, translate_errors():
        raise raised
    return caught.value


@pytest.mark.parametrize(
    ("raised", "translated", "message"),
    [
        (PoolTimeout("QueuePool limit of size 5"), StoreUnavailable, "no connection of the pool became free in time"),
        (psycopg2.InterfaceError("connection already closed"), StoreUnavailable, "the connection broke"),
        (psycopg2.OperationalError("FATAL: sorry, too many clients already"), StoreUnavailable, "no connection left"),
        (psycopg2.OperationalError("FATAL: the database system is starting up"), StoreUnavailable, "starting up"),
        (DEADLOCK, StoreUnavailable, "could not do it now (40P01 DeadlockDetected)"),
        (psycopg2.OperationalError("an error that no table lists"), StoreUnavailable, "that libpq does not name"),
        (psycopg2.ProgrammingError("can't adapt type"), StatementRejected, "rejected a statement: None ProgrammingErr"),
        (ArgumentError("not an executable object"), StatementRejected, "a bug in a statement: ArgumentError"),
    ],
)
def test_an_error_is_translated_by_whether_the_same_call_may_succeed_later(
    raised: Exception, translated: type[StoreError], message: str
) -> None:
    error = translate(raised)
    assert type(error) is translated
    assert message in str(error)


@pytest.mark.parametrize("wraps", [False, True], ids=["raised by psycopg2", "raised by SQLAlchemy"])
def test_no_translated_error_contains_the_statement_or_leads_to_it(wraps: bool) -> None:
    original = psycopg2.OperationalError(f"server closed the connection: INSERT … '{SECRET}'")
    error = translate(DBAPIError(f"INSERT … '{SECRET}'", None, original) if wraps else original)
    assert str(error) == "PostgreSQL does not answer: the connection broke"
    assert error.__suppress_context__, "a traceback must not print the original error"
