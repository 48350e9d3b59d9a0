"""The parts of the documents that are made from figures: `python -m bench.documents docs` writes them.

A document has a pair of markers around each of them. A run does the same with its own figures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.chart import draw_chart
from bench.figures import FIGURES
from bench.report import STATES, choose_goals, format_value, list_cells, load
from bench.results import Results

BEGIN = "<!-- {name}: made from {source} by `python -m bench.documents docs` -->"
END = "<!-- end of {name} -->"
#: HubSpot's tokens live 1,800 s and are refreshed after 0.675 of that, on average.
SECONDS_BETWEEN_REFRESHES = 1215
NEEDS_SIZES = {"1 million": 1_000_000, "10 million": 10_000_000, "100 million": 100_000_000}
HUBSPOT_SECONDS = 0.2
POOL_PROCESSES = 2


@dataclass(frozen=True, slots=True)
class Section:
    document: str
    name: str
    source: str  #: the file of the figures
    make_text: Callable[[Results, dict[str, Any]], str]

    def replace(self, text: str, figures: Path) -> str:
        """The document with this section as it is now. Raises ValueError where it has not both markers."""
        begin, end = BEGIN.format(name=self.name, source=self.source), END.format(name=self.name)
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found and found_end):
            raise ValueError(f"{self.document} has no lines {begin} and {end}")
        return f"{before}{begin}\n\n{self.make_text(*load(figures))}\n\n{end}{after}"


def make_tables(results: Results, machine: dict[str, Any]) -> str:
    """Goals and figures, as Markdown."""
    lines = [machine["told"], "", "| goal | wanted | measured | |", "| --- | --- | --- | --- |"]
    for evaluation in (goal.evaluate(results) for goal in choose_goals(machine)):
        goal, state = evaluation.goal, STATES[evaluation.is_met]
        lines.append(f"| {goal.label} | {goal.wanted} | {format_value(evaluation)} | {state} |")
    sizes = results.sizes()
    lines += ["", f"| connections stored | {' | '.join(f'{size:,}' for size in sizes)} |"]
    lines += ["| --- " * (len(sizes) + 1) + "|"]
    for name, figure in FIGURES.items():
        if cells := list_cells(results, name):
            label = figure.name_with_unit.replace("  ", "&nbsp;&nbsp;")
            lines.append(f"| {label} | {' | '.join(cells + [''] * (len(sizes) - len(cells)))} |")
    return "\n".join(lines)


def make_needs_table(results: Results, _machine: dict[str, Any]) -> str:
    """What N connections need, by the figures at the largest number of connections that was measured."""
    size = results.sizes()[-1]

    def median(name: str) -> float:
        return results.median(size, name) or 0.0

    rows: dict[str, Callable[[float], str]] = {
        "refreshes a second": lambda rate: f"{rate:,.0f}",
        f"worker: cores ({median('cpu_worker'):.2f} ms each)": lambda rate: (
            f"{rate * median('cpu_worker') / 1000:,.1f}"
        ),
        f"workers of {POOL_PROCESSES} pool processes, {median('product'):,.0f} refreshes/s each": (
            lambda rate: f"{max(1, rate / median('product')):,.0f}"
        ),
        "calls in flight at HubSpot's 200 ms": lambda rate: f"{rate * HUBSPOT_SECONDS:,.0f}",
        f"PostgreSQL: cores ({median('cpu_postgres'):.2f} ms each)": (
            lambda rate: f"{rate * median('cpu_postgres') / 1000:,.1f}"
        ),
        "row versions written a second (claim, save)": lambda rate: f"{2 * rate:,.0f}",
        "WAL, MB a second, right after a checkpoint": lambda rate: f"{rate * median('wal') / 1e6:,.0f}",
        f"table and indexes, GB ({median('row_bytes'):,.0f} bytes a row)": (
            lambda rate: f"{rate * SECONDS_BETWEEN_REFRESHES * median('row_bytes') / 1e9:,.0f}"
        ),
    }
    lines = [f"| connections | {' | '.join(NEEDS_SIZES)} |", "| --- " * (len(NEEDS_SIZES) + 1) + "|"]
    for label, format_cell in rows.items():
        cells = [format_cell(connections / SECONDS_BETWEEN_REFRESHES) for connections in NEEDS_SIZES.values()]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


SECTIONS = (
    Section("performance.md", "figures", "performance.json", make_tables),
    Section("growth.md", "figures", "growth.json", make_tables),
    Section("growth.md", "needs", "performance.json", make_needs_table),
)


def update(folder: Path) -> None:
    """The chart, and the sections whose document and figures are both in the folder."""
    figures = folder / "performance.json"
    if figures.exists():
        figures.with_suffix(".svg").write_text(draw_chart(load(figures)[0]), encoding="utf-8")
    for section in SECTIONS:
        document = folder / section.document
        if document.exists() and (folder / section.source).exists():
            text = section.replace(document.read_text(encoding="utf-8"), folder / section.source)
            document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    update(Path(sys.argv[1]))
