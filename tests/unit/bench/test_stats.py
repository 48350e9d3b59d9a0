"""Medians, spreads and percentiles of the benchmark."""

from __future__ import annotations

import pytest

from bench.stats import Spread, percentile


def test_a_figure_is_the_median_with_its_lowest_and_highest() -> None:
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(median=3.0, low=1.0, high=10.0, values=(3.0, 1.0, 10.0))


def test_lowest_and_highest_are_shown_where_there_are_several_runs() -> None:
    assert Spread.of([1500.0, 1390.0, 1480.0]).format(0) == "1,480 (1,390\u20131,500)"
    assert Spread.of([0.25]).format(2) == "0.25"


def test_a_spread_of_no_runs_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        Spread.of([])


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 50), (50.5, 51), (95, 95), (99, 99), (100, 100)]
)
def test_a_percentile_is_one_of_the_values(percent: float, expected: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], percent) == expected


def test_a_percentile_of_few_values_is_their_largest() -> None:
    assert percentile([7.0, 5.0], 99) == 7.0
    assert percentile([7.0], 50) == 7.0


def test_a_percentile_of_no_values_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        percentile([], 50)
