"""The charts say what the numbers say: nothing outside of its place, nothing that vanishes, all of it by one scale."""

import math
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.db.reports.refresh_stats import Slot
from tests.support.builders import START
from web.admin.charts import HEIGHT, LEAST, distribution, refreshes


def slots(*counts):
    return [Slot(START + timedelta(minutes=5 * n), *each) for n, each in enumerate(counts)]


def test_refreshes_stand_and_failures_hang_by_one_scale():
    chart = refreshes(slots((30, 0), (15, 10), (0, 0)))
    first, second, third = chart.bars
    assert (first.top, first.up, first.down) == (0, 75, 0)
    assert (second.top, second.up, second.down) == (37.5, 37.5, 25)
    assert chart.base == 75
    assert (third.up, third.down) == (0, 0)
    assert second.title == "12:05 to 12:10 UTC: 15 refreshed, 10 failed"


def test_the_axis_is_told_apart_in_equal_parts():
    chart = refreshes(slots(*[(1, 0)] * 72))
    assert chart.marks == ("12:00", "14:00", "16:00", "18:00")


@pytest.mark.parametrize(
    ("counts", "most"),
    [
        ([(5, 0), (0, 0)], "highest: 1 a minute"),
        ([(7, 0), (0, 0)], "highest: 1.4 a minute"),
        ([(0, 6172), (1, 0)], "highest: 1,234 a minute"),
    ],
)
def test_the_highest_bar_is_told_by_the_minute(counts, most):
    assert refreshes(slots(*counts)).most == most


def test_a_single_failure_among_many_refreshes_is_still_seen():
    assert refreshes(slots((100_000, 1))).bars[0].down >= LEAST


def test_so_is_a_single_refresh_among_many_failures():
    assert refreshes(slots((1, 100_000))).bars[0].up >= LEAST


def test_where_nothing_was_tried_it_says_so():
    chart = refreshes(slots((0, 0), (0, 0)))
    assert chart.empty
    assert chart.summary == "No refresh was tried in the last 10 min."
    assert refreshes([]).empty


def test_the_numbers_are_there_for_who_does_not_see_the_bars():
    chart = refreshes(slots((1, 2), (3, 4)))
    assert [(row.time, row.refreshed, row.failed) for row in chart.rows] == [
        ("12:00 to 12:05", 1, 2),
        ("12:05 to 12:10", 3, 4),
    ]
    assert chart.summary == "In the last 10 min, 4 refreshes brought a token and 6 attempts brought none."


counts = st.integers(0, 10**9)


@example([(1, 19_999)])
@example([(19_999, 1)])
@example([(1, 10**9), (10**9, 1)])
@given(st.lists(st.tuples(counts, counts), min_size=1, max_size=72))
def test_no_bar_leaves_the_chart(pairs):
    chart = refreshes(slots(*pairs))
    for bar, (refreshed, failed) in zip(chart.bars, pairs, strict=True):
        assert bar.top >= -0.01
        assert bar.top + bar.up <= chart.base + 0.02
        assert chart.base + bar.down <= HEIGHT + 0.02
        assert (bar.up > 0) == (refreshed > 0)
        assert (bar.down > 0) == (failed > 0)


def test_a_distribution_names_its_ranges():
    lives = distribution({60.0: 1, 300.0: 4, 1800.0: 0, math.inf: 2})
    assert [(life.label, life.count, life.width) for life in lives] == [
        ("less than 1 min", 1, 25),
        ("1 min to 5 min", 4, 100),
        ("5 min to 30 min", 0, 0),
        ("30 min or more", 2, 50),
    ]


def test_a_distribution_of_nothing_has_no_bars():
    assert all(life.width == 0 for life in distribution({60.0: 0, math.inf: 0}))
