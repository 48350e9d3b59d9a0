"""The report of a run: goals met and missed, the table, the JSON, the chart."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import report
from bench.chart import draw_chart
from bench.figures import FIGURES, Part
from bench.results import ANY_SIZE, GOALS, GROWTH_GOALS, Evaluation, Results

MACHINE = {"growth": False, "told": "A run on 2 cores."}


@pytest.fixture
def results() -> Results:
    """Runs at two sizes."""
    results = Results()
    results.add(ANY_SIZE, hubspot_ceiling=15_000)
    for value in (3500, 3390, 3480):
        results.add(10_000, product=value, bare=1700, to_bare=value / 1700, cpu=0.25, cpu_bare=0.7)
    for value in (3380, 3550, 3360):
        results.add(1_000_000, product=value, cpu=0.28, cost_growth=1.12)
    results.add(1_000_000, late_p50=0.5, late_p99=0.9)
    return results


def evaluate(results: Results, label: str) -> Evaluation:
    (goal,) = [goal for goal in GOALS if goal.label == label]
    return goal.evaluate(results)


def test_a_goal_is_evaluated_at_the_size_with_the_worst_median_and_says_why_it_is_missed(results: Results) -> None:
    evaluation = evaluate(results, "refreshes per second, sustained")
    assert (evaluation.is_met, evaluation.size) == (False, 1_000_000)
    assert evaluation.spread is not None
    assert (evaluation.spread.median, evaluation.spread.low, evaluation.spread.high) == (3380, 3360, 3550)
    assert evaluation.reason == "1 of 3 runs with 1,000,000 connections met it"


def test_a_goal_is_met_by_exactly_its_limit() -> None:
    results = Results()
    results.add(10_000, product=3500, cpu=0.28)
    assert evaluate(results, "refreshes per second, sustained").is_met
    assert evaluate(results, "CPU of worker, PostgreSQL and Redis per refresh").is_met


def test_lateness_is_judged_at_the_largest_size_alone(results: Results) -> None:
    results.add(10_000, late_p99=2.5)
    evaluation = evaluate(results, "lateness p99 at the largest number of connections")
    assert (evaluation.is_met, evaluation.size) == (True, 1_000_000)


def test_a_goal_whose_part_failed_says_why_and_the_run_does_not_meet_its_goals(results: Results) -> None:
    results.failures[Part.READS] = "pgbench failed:\nsome line\nno such table\n"
    (line,) = [line for line in report.format_goals(results, GOALS).splitlines() if "token read by hub_id" in line]
    assert line.endswith("NOT MEASURED: pgbench failed: no such table")
    assert "this run does not include it" in report.format_goals(results, GOALS)
    assert not report.are_met(results, GOALS)


def test_a_run_meets_its_goals_where_each_is_measured_and_met(results: Results) -> None:
    assert report.are_met(results, GROWTH_GOALS)


def test_every_goal_has_a_figure_and_no_two_goals_the_same() -> None:
    figures = [goal.figure for goal in GOALS]
    assert set(figures) <= set(FIGURES)
    assert len(set(figures)) == len(figures)


def test_an_unknown_figure_is_refused(results: Results) -> None:
    with pytest.raises(KeyError):
        results.add(10_000, speed=1)


def test_the_table_has_a_column_for_each_size_and_a_spread_where_there_are_several_runs(results: Results) -> None:
    lines = report.format_table(results).splitlines()
    assert lines[0].split()[-2:] == ["10,000", "1,000,000"]
    (sustained,) = [line for line in lines if line.startswith("product, default settings")]
    assert sustained.split()[-4:] == ["3,480", "(3,390\u20133,500)", "3,380", "(3,360\u20133,550)"]
    (ceiling,) = [line for line in lines if line.startswith("simulated HubSpot alone")]
    assert ceiling.split()[-1] == "15,000"


def test_the_json_contains_each_run_and_can_be_read_again(results: Results, tmp_path: Path) -> None:
    figures = tmp_path / "new" / "performance.json"
    report.write_json(results, MACHINE, figures)
    document = json.loads(figures.read_text(encoding="utf-8"))
    product = document["figures"]["10000"]["product"]
    assert (product["median"], product["low"], product["high"]) == (3480, 3390, 3500)
    assert product["runs"] == [3500, 3390, 3480]
    assert {goal["met"] for goal in document["goals"]} == {True, False, None}
    assert report.load(figures) == (Results(results.values), MACHINE)


def test_the_chart_is_an_image_with_a_bar_for_each_size_of_the_product_and_one_for_each_baseline(
    results: Results,
) -> None:
    image = ET.fromstring(draw_chart(results))
    bars = [bar for bar in image.iter("{http://www.w3.org/2000/svg}rect") if bar.get("height") != "100%"]
    assert len(bars) == 3 + 3
    words = [text.text for text in image.iter("{http://www.w3.org/2000/svg}text")]
    assert "product, default settings, 1,000,000" in words


def test_a_higher_value_has_a_longer_bar(results: Results) -> None:
    image = ET.fromstring(draw_chart(results))
    first, second = list(image.iter("{http://www.w3.org/2000/svg}rect"))[1:3]
    assert float(first.get("width") or 0) > float(second.get("width") or 0), "3,480 is more than 3,380"
