"""A migration that waits for the locks of other transactions."""

from __future__ import annotations

import psycopg2.errors
import pytest
from psycopg2 import errorcodes
from sqlalchemy.exc import DBAPIError

from shared.db.core.errors import StoreUnavailable
from shared.db.schema.online import retry_for_lock


def make_error(pgcode: str) -> DBAPIError:
    error = psycopg2.errors.LockNotAvailable()
    error.__setstate__({"pgcode": pgcode})  # the server's own errors have it from libpq
    return DBAPIError("LOCK TABLE", None, error)


def test_an_attempt_is_repeated_until_it_gets_its_locks_and_given_up_where_it_never_does() -> None:
    outcomes: list[DBAPIError | bool | None] = [make_error(errorcodes.LOCK_NOT_AVAILABLE), False, None]

    def attempt() -> bool | None:
        outcome = outcomes.pop(0)
        if isinstance(outcome, DBAPIError):
            raise outcome
        return outcome

    with pytest.raises(StoreUnavailable, match="end it"):
        retry_for_lock(attempt, max_attempts=2, pause_seconds=0.0)
    retry_for_lock(attempt, max_attempts=2, pause_seconds=0.0)
    assert outcomes == []


def test_another_error_of_an_attempt_is_raised_at_once() -> None:
    def attempt() -> None:
        raise make_error(errorcodes.UNDEFINED_TABLE)

    with pytest.raises(DBAPIError):
        retry_for_lock(attempt)
