"""PostgreSQL's clock between two of its replies."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared.boot_clock import boot_seconds
from shared.db.core.clock import DatabaseClock
from tests.support.builders import START


def test_the_time_in_which_the_machine_was_suspended_counts() -> None:
    """A lease ends meanwhile: a worker that does not know it would make a second call for its row."""
    elapsed = iter([100.0, 100.0 + 3600.0])
    clock = DatabaseClock(lambda: next(elapsed))
    clock.set(START)
    assert clock.now() == START + timedelta(hours=1)


def test_the_clock_of_the_machine_never_goes_back() -> None:
    seconds = [boot_seconds() for _ in range(1000)]
    assert seconds == sorted(seconds)


def test_the_time_is_unknown_before_the_first_reply() -> None:
    with pytest.raises(RuntimeError, match="claim rows"):
        DatabaseClock().now()
