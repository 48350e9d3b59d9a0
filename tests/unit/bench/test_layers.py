"""What a layer spends inside another is its own, and what none claims is told."""

import pytest

from bench.layers import Stopwatch, split


def test_nothing_is_counted_twice_and_nothing_is_lost() -> None:
    spent = {"open": 0.1, "ask": 0.5, "attempt": 0.8, "claim": 0.05, "save": 0.05, "process": 1.2}
    told = split(spent, refreshes=1000)
    assert told == pytest.approx(
        {"open": 100, "ask": 500, "attempt": 200, "claim": 50, "save": 50, "rest": 300}, rel=1e-9
    )
    assert sum(told.values()) == pytest.approx(1200)


def test_a_watched_call_answers_as_before_and_its_failures_are_counted_too() -> None:
    watch = Stopwatch()
    assert watch.watched("open", sum)(range(100_000)) == 4_999_950_000
    after_one = watch.now()["open"]
    with pytest.raises(ZeroDivisionError):
        watch.watched("open", lambda: sum(range(100_000)) / 0)()
    assert 0 < after_one < watch.now()["open"]
