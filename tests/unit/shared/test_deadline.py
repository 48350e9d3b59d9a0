"""One deadline per thread: nested deadlines, other threads, and outside of any."""

from __future__ import annotations

import threading

import pytest

from shared.net.deadline import deadline, seconds_left


def test_outside_of_a_deadline_there_is_no_limit() -> None:
    assert seconds_left() is None


def test_of_nested_deadlines_the_earlier_one_counts() -> None:
    with deadline(1000):
        with deadline(10_000):
            assert 100 < (seconds_left() or 0) <= 1000
        with deadline(100):
            assert 0 < (seconds_left() or 0) <= 100
        assert 100 < (seconds_left() or 0) <= 1000
    assert seconds_left() is None


def test_a_deadline_of_zero_seconds_has_passed() -> None:
    with deadline(0):
        assert (seconds_left() or 0) <= 0


def test_a_deadline_ends_with_its_block_also_where_that_raises() -> None:
    with pytest.raises(ValueError, match="why"), deadline(10):
        raise ValueError("why")
    assert seconds_left() is None


def test_the_deadline_of_one_thread_does_not_limit_another() -> None:
    left: list[float | None] = []
    with deadline(10):
        thread = threading.Thread(target=lambda: left.append(seconds_left()))
        thread.start()
        thread.join()
    assert left == [None]
