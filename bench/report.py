"""The output of a run: tables for people, and JSON for machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.figures import FIGURES
from bench.results import ANY_SIZE, GOALS, GROWTH_GOALS, Evaluation, Goal, Results
from bench.stats import Spread

STATES = {True: "met", False: "MISSED", None: "NOT MEASURED"}
LABEL_CHARACTERS, WANTED_CHARACTERS, VALUE_CHARACTERS, COLUMN_CHARACTERS = 64, 26, 30, 30


def format_table(results: Results) -> str:
    """The median of the runs, with the lowest and the highest."""
    sizes = results.sizes()
    lines = [
        "median (lowest to highest)".ljust(LABEL_CHARACTERS)
        + "".join(f"{size:,}".rjust(COLUMN_CHARACTERS) for size in sizes)
    ]
    for name, figure in FIGURES.items():
        if cells := list_cells(results, name):
            lines.append(
                figure.name_with_unit.ljust(LABEL_CHARACTERS) + "".join(cell.rjust(COLUMN_CHARACTERS) for cell in cells)
            )
    return "\n".join(lines)


def format_goals(results: Results, goals: tuple[Goal, ...]) -> str:
    lines = []
    for evaluation in (goal.evaluate(results) for goal in goals):
        goal = evaluation.goal
        reason = f": {_shorten(evaluation.reason)}" if evaluation.reason else ""
        cells = (
            goal.label.ljust(LABEL_CHARACTERS),
            goal.wanted.ljust(WANTED_CHARACTERS),
            format_value(evaluation).rjust(VALUE_CHARACTERS),
        )
        lines.append(f"{''.join(cells)}  {STATES[evaluation.is_met]}{reason}")
    return "\n".join(lines)


def are_met(results: Results, goals: tuple[Goal, ...]) -> bool:
    return all(goal.evaluate(results).is_met for goal in goals)


def write_json(results: Results, machine: dict[str, Any], figures: Path) -> None:
    figures.parent.mkdir(parents=True, exist_ok=True)
    figures.write_text(json.dumps(_make_json(results, machine), indent=1) + "\n", encoding="utf-8")


def load(figures: Path) -> tuple[Results, dict[str, Any]]:
    """The results, and the machine's description."""
    document = json.loads(figures.read_text(encoding="utf-8"))
    results = Results()
    for size, by_name in document["figures"].items():
        results.values[int(size)] = {name: figure["runs"] for name, figure in by_name.items() if name in FIGURES}
    return results, document["machine"]


def choose_goals(machine: dict[str, Any]) -> tuple[Goal, ...]:
    return GROWTH_GOALS if machine["growth"] else GOALS


def list_cells(results: Results, name: str) -> list[str]:
    """One for each size, or one alone for a figure that depends on none; none where nothing was measured."""
    common = results.get(ANY_SIZE, name)
    runs = [common] if common else [results.get(size, name) for size in results.sizes()]
    return [Spread.of(values).format(FIGURES[name].digits) if values else "" for values in runs] if any(runs) else []


def format_value(evaluation: Evaluation) -> str:
    if evaluation.spread is None:
        return "-"
    return evaluation.spread.format(FIGURES[evaluation.goal.figure].digits)


def _shorten(reason: str) -> str:
    """The first line, and the last one of a log that follows it."""
    first, *others = [line.strip() for line in reason.splitlines() if line.strip()]
    return f"{first} {others[-1]}" if others else first


def _make_json(results: Results, machine: dict[str, Any]) -> dict[str, Any]:
    """`figures`: by size, 0 for what depends on none; each figure with its spread and the value of each run."""
    figures = {
        str(size): {name: _figure_to_json(name, runs) for name, runs in by_name.items()}
        for size, by_name in results.values.items()
    }
    return {
        "machine": machine,
        "goals": [goal.evaluate(results).to_json() for goal in choose_goals(machine)],
        "failures": results.failures,
        "seconds": {part: round(seconds, 1) for part, seconds in results.seconds.items()},
        "figures": figures,
    }


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
