"""`tokenkeeper status`: one screen that shows whether all is well."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import click
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine

from cli.context import load_settings, open_database
from cli.output import json_option, make_epilog, to_json_line
from cli.status_report import StatusLine, StatusReading, make_json_report, make_lines
from shared.db.core.errors import StoreUnavailable
from shared.db.reports.connections import ConnectionReports
from shared.db.reports.journals import read_journals
from shared.domain.severity import Severity
from shared.settings import Settings

NEEDS = ("DATABASE_URL",)
WATCH_SECONDS = 2.0
#: Characters of the first column in a pipe; longer names of apps widen it.
NAME_WIDTH = 16
COLOURS = {Severity.GOOD: "green", Severity.WAIT: "yellow", Severity.BAD: "red"}
#: Severity is shown by a mark as well as by colour.
MARKS = {Severity.GOOD: " ", Severity.WAIT: "~", Severity.BAD: "!"}


@click.command(
    "status",
    epilog=make_epilog(
        "tokenkeeper status",
        "tokenkeeper status --watch",
        "tokenkeeper status --json | jq .connections.revoked",
        needs=NEEDS,
    ),
)
@json_option
@click.option("--watch", is_flag=True, help=f"Look again every {WATCH_SECONDS:g} seconds, until Ctrl-C.")
def show_status(as_json: bool, watch: bool) -> None:
    """Show on one screen how the connections, HubSpot and the sweep are doing.

    On a terminal, `~` marks what is not as it should be but resolves by itself, `!` what the operator has to act on.
    The exit status is 0 either way: `tokenkeeper doctor` is the check. With --watch it fills the terminal and stays;
    with --watch --json it prints an object at each look.

    Of several apps each has its line; connections whose app is in no setting any more are named.

    In JSON, `soonest_due_at` in the past says how late refreshes are; `hubspot.refreshes_per_second` is null where
    nothing limits them; `apps` has the same fields for each app, `journals` how far HubSpot's journal of each is read.
    For alerting use /metrics (docs/monitoring.md) or the alerts (docs/alerts.md).
    """
    console = Console()
    if watch and not as_json and not console.is_terminal:
        raise click.UsageError("--watch needs a terminal; for a machine: status --watch --json")
    settings = load_settings(*NEEDS)
    with open_database(settings) as engine:
        read = partial(_read, engine)
        if not watch:
            _print(read(), console, settings, as_json=as_json)
            return
        with suppress(KeyboardInterrupt):  # the normal end of --watch
            if as_json:
                _watch_as_json(read, settings)
            else:
                _watch_on_terminal(read, console, settings)


def _read(engine: Engine) -> StatusReading:
    return StatusReading(ConnectionReports(engine).read_overview(), read_journals(engine))


def _print(reading: StatusReading, console: Console, settings: Settings, *, as_json: bool) -> None:
    if as_json:
        click.echo(to_json_line(make_json_report(reading, settings.apps)))
        return
    lines = make_lines(reading, settings.sweep_seconds, settings.apps)
    if console.is_terminal:
        console.print(_make_panel(lines, f"{reading.overview.now:%Y-%m-%d %H:%M:%S %Z}"))
        return
    width = max(NAME_WIDTH, *(len(line.name) + 2 for line in lines))
    for line in lines:
        click.echo(f"{line.name:<{width}}{line.text}")


def _watch_as_json(read: Callable[[], StatusReading], settings: Settings) -> None:
    for _ in _wait_between():
        click.echo(to_json_line(make_json_report(read(), settings.apps)))


def _watch_on_terminal(read: Callable[[], StatusReading], console: Console, settings: Settings) -> None:
    """While PostgreSQL does not answer, the screen says so below what it showed last."""
    screen: RenderableType = ""
    with Live(screen, console=console, screen=True, auto_refresh=False) as live:
        for _ in _wait_between():
            try:
                reading = read()
            except StoreUnavailable as error:
                live.update(Group(screen, Text(f"{error}; looking again", style=COLOURS[Severity.BAD])), refresh=True)
                continue
            subtitle = f"{reading.overview.now:%Y-%m-%d %H:%M:%S %Z}, Ctrl-C ends"
            screen = _make_panel(make_lines(reading, settings.sweep_seconds, settings.apps), subtitle)
            live.update(screen, refresh=True)


def _wait_between() -> Iterator[None]:
    while True:
        yield
        time.sleep(WATCH_SECONDS)


def _make_panel(lines: list[StatusLine], subtitle: str) -> Panel:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for line in lines:
        is_good = line.severity is Severity.GOOD
        name = Text(f"{MARKS[line.severity]} {line.name}", style="bold" if is_good else COLOURS[line.severity])
        grid.add_row(name, Text(line.text, style="" if is_good else COLOURS[line.severity]))
    worst = max((line.severity for line in lines), key=list(Severity).index)
    return Panel(
        grid, title="tokenkeeper", subtitle=subtitle, box=box.ROUNDED, border_style=COLOURS[worst], expand=False
    )
