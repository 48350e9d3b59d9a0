"""How many rows the refresh loop claims."""

import pytest

from worker.refresh.loop import count_rows_wanted


@pytest.mark.parametrize(
    ("unfinished", "finished", "wanted"),
    [
        (0, 0, 8),  # one for each thread
        (8, 0, 0),  # every call hangs
        (6, 2, 6),  # two are free, and two are queued for each that has finished
        (0, 8, 16),  # no more queued than there are threads
        (16, 8, 0),
    ],
)
def test_rows_are_queued_ahead_as_fast_as_calls_finish(unfinished, finished, wanted):
    assert count_rows_wanted(8, unfinished=unfinished, finished=finished, is_provider_healthy=True) == wanted


def test_no_row_is_queued_while_hubspot_is_unhealthy():
    assert count_rows_wanted(8, unfinished=6, finished=2, is_provider_healthy=False) == 2
