"""What is told of a run: goals met and missed, the table, the JSON, the chart."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import report
from bench.chart import chart
from bench.results import ANY_SIZE, GOALS, Results


@pytest.fixture
def book() -> Results:
    """The runs of two sizes."""
    told = Results()
    told.note(ANY_SIZE, hubspot_ceiling=15_000)
    for value in (1500, 1390, 1480):
        told.note(10_000, product=value, bare=1700, to_bare=value / 1700, cpu=0.8)
    for value in (1380, 1450, 1360):
        told.note(1_000_000, product=value, cpu=0.88)
    told.note(1_000_000, late_p50=0.9, late_p99=1.9)
    return told


def judged(book: Results, what: str) -> tuple[float | None, bool | None]:
    (one,) = [goal.judged(book) for goal in GOALS if goal.what == what]
    return one["got"], one["met"]


def test_a_goal_is_held_against_the_size_where_it_is_worst(book: Results) -> None:
    assert judged(book, "refreshes per second, sustained") == (1380, False)


def test_at_least_and_at_most_are_met_at_their_limit() -> None:
    book = Results()
    book.note(10_000, product=1400, cpu=1.0)
    assert judged(book, "refreshes per second, sustained") == (1400, True)
    assert judged(book, "CPU of worker, PostgreSQL and Redis per refresh") == (1.0, True)


def test_a_cost_is_held_against_that_of_the_smallest_size(book: Results) -> None:
    got, met = judged(book, "the same at 1,000,000 against 10,000")
    assert (got, met) == (pytest.approx(1.1), True)


def test_what_was_not_measured_is_neither_met_nor_missed(book: Results) -> None:
    assert judged(book, "token read p50") == (None, None)
    assert "not measured" in report.goals(book)


def test_a_figure_that_stands_nowhere_is_not_taken(book: Results) -> None:
    with pytest.raises(KeyError):
        book.note(10_000, speed=1)


def test_the_table_has_a_column_for_each_size_and_a_spread_where_there_are_several_runs(book: Results) -> None:
    lines = report.table(book).splitlines()
    assert lines[0].split()[-2:] == ["10,000", "1,000,000"]
    (sustained,) = [line for line in lines if line.startswith("product, sustained")]
    assert sustained.split()[-4:] == ["1,480", "[1,390..1,500]", "1,380", "[1,360..1,450]"]
    (ceiling,) = [line for line in lines if line.startswith("simulated HubSpot alone")]
    assert ceiling.split()[-1] == "15,000"


def test_the_json_holds_each_run(book: Results, tmp_path: Path) -> None:
    figures, _ = report.write(book, {"cores": 2}, tmp_path / "new")
    told = json.loads(figures.read_text(encoding="utf-8"))
    product = told["figures"]["10000"]["product"]
    assert (product["median"], product["low"], product["high"]) == (1480, 1390, 1500)
    assert product["runs"] == [1500, 1390, 1480]
    assert told["machine"] == {"cores": 2}
    assert {goal["met"] for goal in told["goals"]} == {True, False, None}


def test_the_chart_is_an_image_with_a_curve_for_each_figure_that_has_values(book: Results) -> None:
    image = ET.fromstring(chart(book))
    drawn = [curve.get("points") for curve in image.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len((points or "").split()) for points in drawn] == [2, 1, 1, 1]
    words = [text.text for text in image.iter("{http://www.w3.org/2000/svg}text")]
    assert "1,000,000" in words


def test_higher_is_drawn_higher(book: Results) -> None:
    image = ET.fromstring(chart(book))
    product = next(image.iter("{http://www.w3.org/2000/svg}polyline")).get("points") or ""
    (_, first), (_, last) = (point.split(",") for point in product.split())
    assert float(first) < float(last), "1,480 above 1,380: an image's y goes down"
