"""The charts show the counts: every bar inside its chart, every count visible, all of them by one scale."""

import math
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.db.reports.refresh_stats import Slot
from tests.support.builders import START
from web.admin.charts import CHART_HEIGHT_UNITS, MIN_BAR_UNITS, build_histogram, build_refresh_chart


def make_slots(*counts):
    return [Slot(START + timedelta(minutes=5 * number), *each) for number, each in enumerate(counts)]


def test_refreshes_and_failures_are_drawn_from_the_baseline_by_one_scale():
    chart = build_refresh_chart(make_slots((30, 0), (15, 10), (0, 0)))
    first, second, third = chart.bars
    assert (first.top, first.refreshed_height, first.failed_height) == (0, 75, 0)
    assert (second.top, second.refreshed_height, second.failed_height) == (37.5, 37.5, 25)
    assert chart.baseline == 75
    assert (third.refreshed_height, third.failed_height) == (0, 0)
    assert second.tooltip == "12:05 to 12:10 UTC: 15 refreshed, 10 failed"


def test_the_time_axis_has_evenly_spaced_labels():
    chart = build_refresh_chart(make_slots(*[(1, 0)] * 72))
    assert chart.axis_labels == ("12:00", "14:00", "16:00", "18:00")


@pytest.mark.parametrize(
    ("counts", "peak_label"),
    [
        ([(5, 0), (0, 0)], "highest: 1 a minute"),
        ([(7, 0), (0, 0)], "highest: 1.4 a minute"),
        ([(0, 6172), (1, 0)], "highest: 1,234 a minute"),
    ],
)
def test_the_highest_bar_is_labelled_with_its_rate_per_minute(counts, peak_label):
    assert build_refresh_chart(make_slots(*counts)).peak_label == peak_label


def test_a_single_failure_among_many_refreshes_is_visible():
    assert build_refresh_chart(make_slots((100_000, 1))).bars[0].failed_height >= MIN_BAR_UNITS


def test_a_single_refresh_among_many_failures_is_visible():
    assert build_refresh_chart(make_slots((1, 100_000))).bars[0].refreshed_height >= MIN_BAR_UNITS


def test_a_chart_without_any_refresh_says_so():
    chart = build_refresh_chart(make_slots((0, 0), (0, 0)))
    assert chart.is_empty
    assert chart.summary == "No refresh was tried in the last 10 min."
    assert build_refresh_chart([]).is_empty


def test_the_chart_comes_with_a_table_and_a_summary():
    chart = build_refresh_chart(make_slots((1, 2), (3, 4)))
    assert [(row.label, row.refreshed, row.failed) for row in chart.rows] == [
        ("12:00 to 12:05", 1, 2),
        ("12:05 to 12:10", 3, 4),
    ]
    assert chart.summary == "In the last 10 min, 4 refreshes succeeded and 6 failed."


counts = st.integers(0, 10**9)


@example([(1, 19_999)])
@example([(19_999, 1)])
@example([(1, 10**9), (10**9, 1)])
@given(st.lists(st.tuples(counts, counts), min_size=1, max_size=72))
def test_every_bar_is_inside_the_chart(pairs):
    chart = build_refresh_chart(make_slots(*pairs))
    for bar, (refreshed, failed) in zip(chart.bars, pairs, strict=True):
        assert bar.top >= -0.01
        assert bar.top + bar.refreshed_height <= chart.baseline + 0.02
        assert chart.baseline + bar.failed_height <= CHART_HEIGHT_UNITS + 0.02
        assert (bar.refreshed_height > 0) == (refreshed > 0)
        assert (bar.failed_height > 0) == (failed > 0)


def test_a_histogram_labels_its_ranges():
    bars = build_histogram({60.0: 1, 300.0: 4, 1800.0: 0, math.inf: 2})
    assert [(bar.label, bar.count, bar.width_percent) for bar in bars] == [
        ("less than 1 min", 1, 25),
        ("1 min to 5 min", 4, 100),
        ("5 min to 30 min", 0, 0),
        ("30 min or more", 2, 50),
    ]


def test_a_histogram_of_nothing_has_no_visible_bars():
    assert all(bar.width_percent == 0 for bar in build_histogram({60.0: 0, math.inf: 0}))
