"""`tokenkeeper status`: one screen that says whether all is well."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import click
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cli.context import database, settings
from cli.json_output import json_line, json_option
from cli.output import example
from cli.status_report import Line, facts, lines
from shared.db.core.errors import StoreUnavailable
from shared.db.reports.connections import ConnectionReports, Overview
from shared.domain.severity import Severity

#: Seconds between two looks of `--watch`.
EVERY = 2.0
COLOURS = {Severity.GOOD: "green", Severity.WAIT: "yellow", Severity.BAD: "red"}
#: Not by colour alone.
MARKS = {Severity.GOOD: " ", Severity.WAIT: "~", Severity.BAD: "!"}


@click.command(
    epilog=example(
        "tokenkeeper status",
        "tokenkeeper status --watch",
        "tokenkeeper status --json | jq .connections.revoked",
    )
)
@json_option
@click.option("--watch", is_flag=True, help=f"Look again every {EVERY:g} seconds, until Ctrl-C.")
def status(as_json: bool, watch: bool) -> None:
    """Say on one screen how the connections, HubSpot and the sweep are doing.

    Exit status 0, whatever it says: it tells, and `tokenkeeper doctor` judges. With --watch it fills the terminal and
    stays; with --watch --json it prints an object at each look.
    """
    console = Console()
    if watch and not as_json and not console.is_terminal:
        raise click.UsageError("--watch needs a terminal; for a machine: status --watch --json")
    configured = settings("DATABASE_URL")
    with database(configured) as engine:
        look = ConnectionReports(engine).read_overview
        if not watch:
            _say(look(), console, configured.sweep_seconds, as_json=as_json)
        else:
            with suppress(KeyboardInterrupt):  # how a watch ends, and no failure
                _print(look) if as_json else _watch(look, console, configured.sweep_seconds)


def _say(overview: Overview, console: Console, sweep_seconds: float, *, as_json: bool) -> None:
    if as_json:
        click.echo(json_line(facts(overview)))
    elif console.is_terminal:
        console.print(panel(lines(overview, sweep_seconds), f"{overview.now:%Y-%m-%d %H:%M:%S %Z}"))
    else:
        for line in lines(overview, sweep_seconds):
            click.echo(f"{line.name:<16}{line.text}")


def _print(look: Callable[[], Overview]) -> None:
    for _ in _moments():
        click.echo(json_line(facts(look())))


def _watch(look: Callable[[], Overview], console: Console, sweep_seconds: float) -> None:
    """A PostgreSQL that is away for a moment ends nothing: the screen says so, over what it said last."""
    shown: RenderableType = ""
    with Live(shown, console=console, screen=True, auto_refresh=False) as live:
        for _ in _moments():
            try:
                overview = look()
            except StoreUnavailable as error:
                live.update(Group(shown, Text(f"{error}; looking again", style=COLOURS[Severity.BAD])), refresh=True)
            else:
                shown = panel(lines(overview, sweep_seconds), f"{overview.now:%Y-%m-%d %H:%M:%S %Z}, Ctrl-C ends")
                live.update(shown, refresh=True)


def _moments() -> Iterator[None]:
    while True:
        yield
        time.sleep(EVERY)


def panel(told: list[Line], moment: str) -> Panel:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for line in told:
        mark = Text(
            f"{MARKS[line.mood]} {line.name}", style="bold" if line.mood is Severity.GOOD else COLOURS[line.mood]
        )
        grid.add_row(mark, Text(line.text, style="" if line.mood is Severity.GOOD else COLOURS[line.mood]))
    worst = max((line.mood for line in told), key=list(Severity).index)
    return Panel(grid, title="tokenkeeper", subtitle=moment, box=box.ROUNDED, border_style=COLOURS[worst], expand=False)
