"""When the last sweep counts as overdue, for every SWEEP_SECONDS."""

from datetime import timedelta

import pytest

from shared.domain.sweep_liveness import is_beat_late, is_sweep_overdue, sweep_overdue_seconds
from tests.support.builders import START


@pytest.mark.parametrize(("sweep_seconds", "overdue_seconds"), [(0.5, 30), (2, 30), (6, 30), (120, 600)])
def test_a_sweep_is_overdue_after_five_intervals_but_not_before_half_a_minute(sweep_seconds, overdue_seconds):
    assert sweep_overdue_seconds(sweep_seconds) == overdue_seconds
    at_the_limit, above = timedelta(seconds=overdue_seconds), timedelta(seconds=overdue_seconds + 0.1)
    assert not is_sweep_overdue(START - at_the_limit, START, sweep_seconds)
    assert is_sweep_overdue(START - above, START, sweep_seconds)


def test_a_first_sweep_that_never_came_is_overdue():
    assert is_sweep_overdue(None, START, 2.0)


def test_a_sweep_dated_ahead_of_the_clock_is_not_overdue():
    assert not is_sweep_overdue(START + timedelta(seconds=1), START, 2.0)


@pytest.mark.parametrize(("age_seconds", "is_late"), [(0, False), (4, False), (4.1, True), (-0.1, True)])
def test_beat_is_late_after_two_intervals_or_where_the_last_sweep_is_in_the_future(age_seconds, is_late):
    assert is_beat_late(START - timedelta(seconds=age_seconds), START, 2.0) is is_late


def test_beat_is_late_before_the_first_sweep():
    assert is_beat_late(None, START, 2.0)
