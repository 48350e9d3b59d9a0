"""What a run is told in: a table for people, JSON for machines, a chart for the docs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.chart import chart
from bench.results import ANY_SIZE, FIGURES, GOALS, Results
from bench.stats import Spread

MARKS = {True: "met", False: "MISSED", None: "not measured"}
WIDE, COLUMN = 68, 26


def table(book: Results) -> str:
    """Median of the runs, and from the lowest to the highest."""
    sizes = book.sizes()
    lines = ["median [lowest .. highest]".ljust(WIDE) + "".join(f"{size:,}".rjust(COLUMN) for size in sizes)]
    for name, figure in FIGURES.items():
        common = book.of(ANY_SIZE, name)
        cells = [common] if common else [book.of(size, name) for size in sizes]
        if any(cells):
            label = f"{figure.label} ({figure.unit})" if figure.unit else figure.label
            lines.append(label.ljust(WIDE) + "".join(_cell(values, figure.digits).rjust(COLUMN) for values in cells))
    return "\n".join(lines)


def goals(book: Results) -> str:
    lines = []
    for goal in GOALS:
        judged = goal.judged(book)
        got = "-" if judged["got"] is None else f"{judged['got']:,.4g}"
        lines.append(f"{judged['what']:<50}{judged['wanted']:<20}{got:>10}  {MARKS[judged['met']]}")
    return "\n".join(lines)


def write(book: Results, machine: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """The JSON and the chart."""
    folder.mkdir(parents=True, exist_ok=True)
    figures, drawn = folder / "performance.json", folder / "performance.svg"
    figures.write_text(json.dumps(as_json(book, machine), indent=1) + "\n", encoding="utf-8")
    drawn.write_text(chart(book), encoding="utf-8")
    return figures, drawn


def as_json(book: Results, machine: dict[str, Any]) -> dict[str, Any]:
    """By size, 0 for what belongs to none: each figure with its spread, and the value of each run."""
    told = {
        str(size): {name: _told(name, values) for name, values in book.values[size].items()} for size in book.values
    }
    return {"machine": machine, "goals": [goal.judged(book) for goal in GOALS], "figures": told}


def _told(name: str, values: list[float]) -> dict[str, Any]:
    spread = Spread.of(values)
    return {
        "label": FIGURES[name].label.strip(),
        "unit": FIGURES[name].unit,
        "median": spread.median,
        "low": spread.low,
        "high": spread.high,
        "runs": values,
    }


def _cell(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    spread = Spread.of(values)
    if spread.runs == 1:
        return f"{spread.median:,.{digits}f}"
    return f"{spread.median:,.{digits}f} [{spread.low:,.{digits}f}..{spread.high:,.{digits}f}]"
