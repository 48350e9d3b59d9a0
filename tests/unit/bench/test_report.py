"""The report of a run: goals met and missed, the table, the JSON, the chart."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import report
from bench.chart import draw_chart
from bench.results import ANY_SIZE, GOALS, Results


@pytest.fixture
def results() -> Results:
    """Runs at two sizes."""
    results = Results()
    results.add(ANY_SIZE, hubspot_ceiling=15_000)
    for value in (1500, 1390, 1480):
        results.add(10_000, product=value, bare=1700, to_bare=value / 1700, cpu=0.8)
    for value in (1380, 1450, 1360):
        results.add(1_000_000, product=value, cpu=0.88)
    results.add(1_000_000, late_p50=0.9, late_p99=1.9)
    return results


def evaluate(results: Results, label: str) -> tuple[float | None, bool | None]:
    (evaluation,) = [goal.evaluate(results) for goal in GOALS if goal.label == label]
    return evaluation["got"], evaluation["met"]


def test_a_goal_is_evaluated_at_the_size_with_the_worst_value(results: Results) -> None:
    assert evaluate(results, "refreshes per second, sustained") == (1380, False)


def test_a_goal_is_met_by_exactly_its_limit() -> None:
    results = Results()
    results.add(10_000, product=3500, cpu=0.28)
    assert evaluate(results, "refreshes per second, sustained") == (3500, True)
    assert evaluate(results, "CPU of worker, PostgreSQL and Redis per refresh") == (0.28, True)


def test_growth_is_the_ratio_of_the_largest_to_the_smallest_size(results: Results) -> None:
    value, met = evaluate(results, "the same at 1,000,000 against 10,000")
    assert (value, met) == (pytest.approx(1.1), True)


def test_a_goal_without_a_measurement_is_neither_met_nor_missed(results: Results) -> None:
    assert evaluate(results, "token read p50") == (None, None)
    assert "not measured" in report.format_goals(results)


def test_an_unknown_figure_is_refused(results: Results) -> None:
    with pytest.raises(KeyError):
        results.add(10_000, speed=1)


def test_the_table_has_a_column_for_each_size_and_a_spread_where_there_are_several_runs(results: Results) -> None:
    lines = report.format_table(results).splitlines()
    assert lines[0].split()[-2:] == ["10,000", "1,000,000"]
    (sustained,) = [line for line in lines if line.startswith("product, sustained")]
    assert sustained.split()[-4:] == ["1,480", "[1,390..1,500]", "1,380", "[1,360..1,450]"]
    (ceiling,) = [line for line in lines if line.startswith("simulated HubSpot alone")]
    assert ceiling.split()[-1] == "15,000"


def test_the_json_contains_each_run(results: Results, tmp_path: Path) -> None:
    figures, _ = report.write_files(results, {"cores": 2}, tmp_path / "new")
    document = json.loads(figures.read_text(encoding="utf-8"))
    product = document["figures"]["10000"]["product"]
    assert (product["median"], product["low"], product["high"]) == (1480, 1390, 1500)
    assert product["runs"] == [1500, 1390, 1480]
    assert document["machine"] == {"cores": 2}
    assert {goal["met"] for goal in document["goals"]} == {True, False, None}


def test_the_chart_is_an_image_with_a_curve_for_each_figure_that_has_values(results: Results) -> None:
    image = ET.fromstring(draw_chart(results))
    drawn = [curve.get("points") for curve in image.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len((points or "").split()) for points in drawn] == [2, 1, 1, 1]
    words = [text.text for text in image.iter("{http://www.w3.org/2000/svg}text")]
    assert "1,000,000" in words


def test_a_higher_value_is_drawn_higher(results: Results) -> None:
    image = ET.fromstring(draw_chart(results))
    product = next(image.iter("{http://www.w3.org/2000/svg}polyline")).get("points") or ""
    (_, first), (_, last) = (point.split(",") for point in product.split())
    assert float(first) < float(last), "1,480 is above 1,380: y grows downwards in SVG"
