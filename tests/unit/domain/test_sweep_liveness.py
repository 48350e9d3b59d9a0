"""When the last sweep counts as overdue, for every SWEEP_SECONDS."""

from datetime import timedelta

import pytest

from shared.domain.sweep_liveness import is_sweep_overdue, sweep_overdue_seconds
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
