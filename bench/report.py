"""The output of a run: a table for people, JSON for machines, a chart for the docs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.chart import draw_chart
from bench.results import ANY_SIZE, FIGURES, GOALS, Results
from bench.stats import Spread

GOAL_STATES = {True: "met", False: "MISSED", None: "not measured"}
LABEL_CHARACTERS, COLUMN_CHARACTERS = 68, 26


def format_table(results: Results) -> str:
    """The median of the runs, and the lowest and the highest value."""
    sizes = results.sizes()
    header = "median [lowest .. highest]".ljust(LABEL_CHARACTERS)
    lines = [header + "".join(f"{size:,}".rjust(COLUMN_CHARACTERS) for size in sizes)]
    for name, figure in FIGURES.items():
        common = results.get(ANY_SIZE, name)
        cells = [common] if common else [results.get(size, name) for size in sizes]
        if any(cells):
            label = f"{figure.label} ({figure.unit})" if figure.unit else figure.label
            columns = "".join(_format_cell(values, figure.digits).rjust(COLUMN_CHARACTERS) for values in cells)
            lines.append(label.ljust(LABEL_CHARACTERS) + columns)
    return "\n".join(lines)


def format_goals(results: Results) -> str:
    lines = []
    for goal in GOALS:
        evaluation = goal.evaluate(results)
        value = "-" if evaluation["got"] is None else f"{evaluation['got']:,.4g}"
        state = GOAL_STATES[evaluation["met"]]
        lines.append(f"{evaluation['what']:<50}{evaluation['wanted']:<20}{value:>10}  {state}")
    return "\n".join(lines)


def write_files(results: Results, machine: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """The paths of the JSON and the chart."""
    folder.mkdir(parents=True, exist_ok=True)
    figures, chart = folder / "performance.json", folder / "performance.svg"
    figures.write_text(json.dumps(_make_json(results, machine), indent=1) + "\n", encoding="utf-8")
    chart.write_text(draw_chart(results), encoding="utf-8")
    return figures, chart


def _make_json(results: Results, machine: dict[str, Any]) -> dict[str, Any]:
    """`figures`: by size, 0 for what depends on none; each figure with its spread and the value of each run."""
    figures = {
        str(size): {name: _figure_to_json(name, runs) for name, runs in by_name.items()}
        for size, by_name in results.values.items()
    }
    return {"machine": machine, "goals": [goal.evaluate(results) for goal in GOALS], "figures": figures}


def _figure_to_json(name: str, values: list[float]) -> dict[str, Any]:
    spread = Spread.of(values)
    return {
        "label": FIGURES[name].label.strip(),
        "unit": FIGURES[name].unit,
        "median": spread.median,
        "low": spread.low,
        "high": spread.high,
        "runs": values,
    }


def _format_cell(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    spread = Spread.of(values)
    if spread.runs == 1:
        return f"{spread.median:,.{digits}f}"
    return f"{spread.median:,.{digits}f} [{spread.low:,.{digits}f}..{spread.high:,.{digits}f}]"
