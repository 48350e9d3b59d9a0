"""`tokenkeeper connections`: every connection, page by page, for people, for `cut` and for `jq`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from functools import partial
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.context import database, settings
from cli.json_output import iso, json_line, json_option
from cli.output import example
from shared.db.reports.connection_list import ConnectionList, ConnectionPage, Sort
from shared.db.reports.connections import ConnectionRow
from shared.domain.connection import Status
from shared.text_format import make_printable

#: Rows asked for at a time, and shown under one heading.
PAGE = 500
FIELDS = tuple(field.name for field in fields(ConnectionRow))


@dataclass(frozen=True, slots=True)
class Column:
    """Of the table. The least widths keep its pages in line."""

    heading: str
    field: str
    width: int
    goes: int = 0  #: its turn to be left out where the terminal is narrow; 0: never


COLUMNS = (
    Column("hub_id", "hub_id", 12),
    Column("status", "status", 12),
    Column("domain", "hub_domain", 24, goes=4),
    Column("expires (UTC)", "expires_at", 19, goes=1),
    Column("refresh due (UTC)", "next_refresh_at", 19, goes=2),
    Column("failures", "failures", 8, goes=3),
)
#: Columns between two columns.
GAP = 2
COLOURS = {Status.ACTIVE: "green", Status.SUSPECT: "yellow", Status.REVOKED: "red", Status.DISCONNECTED: "dim"}


@click.command(
    epilog=example(
        "tokenkeeper connections --status revoked",
        "tokenkeeper connections --search acme --limit 10",
        "tokenkeeper connections --sort failures --json | jq -r '[.hub_id, .last_error] | @tsv'",
    )
)
@click.option("--status", type=click.Choice([status.value for status in Status]), help="Only those in this state.")
@click.option("--search", default="", help="Digits: accounts that begin so. Else part of the domain or the installer.")
@click.option(
    "--sort",
    type=click.Choice([sort.value for sort in Sort]),
    default=Sort.HUB.value,
    show_default=True,
    help="`due` lists those that have a refresh ahead, soonest first; `failures` those that fail, most first.",
)
@click.option("--limit", type=click.IntRange(min=1), help="So many at most.")
@json_option
def connections(status: str | None, search: str, sort: str, limit: int | None, as_json: bool) -> None:
    """List the connections: a table on a terminal, else tab-separated lines with a heading.

    A narrow terminal gets fewer columns; tabs and --json always have all of hubspot.connections, and no secrets.
    """
    state = Status(status) if status else None
    with database(settings("DATABASE_URL")) as engine:
        page = partial(ConnectionList(engine).read_page, status=state, search=search, sort=Sort(sort))
        _show(_pages(page, limit), as_json=as_json)


def _pages(page: Callable[..., ConnectionPage], limit: int | None) -> Iterator[list[ConnectionRow]]:
    after, left = None, limit
    while left is None or left > 0:
        listing = page(after=after, limit=PAGE if left is None else min(PAGE, left))
        if listing.connections:
            yield listing.connections
        if listing.after is None:
            return
        after, left = listing.after, None if left is None else left - len(listing.connections)


def _show(pages: Iterator[list[ConnectionRow]], *, as_json: bool) -> None:
    console = Console()
    if as_json:
        _print(pages, as_json_line)
    elif console.is_terminal:
        _tables(pages, console)
    else:
        click.echo("\t".join(FIELDS))
        _print(pages, as_tabbed_line)


def _print(pages: Iterator[list[ConnectionRow]], line: Callable[[ConnectionRow], str]) -> None:
    for page in pages:
        click.echo("\n".join(map(line, page)))


def as_json_line(seen: ConnectionRow) -> str:
    """The columns of `hubspot.connections`."""
    return json_line({name: getattr(seen, name) for name in FIELDS})


def as_tabbed_line(seen: ConnectionRow) -> str:
    """The same, an empty field where there is nothing."""
    return "\t".join(as_field(getattr(seen, name)) for name in FIELDS)


def as_field(value: Any) -> str:
    if isinstance(value, tuple):
        return make_printable(" ".join(value))
    return "" if value is None else make_printable(iso(value) if isinstance(value, datetime) else str(value))


def _tables(pages: Iterator[list[ConnectionRow]], console: Console) -> None:
    shown, columns = 0, fitting(console.width)
    for page in pages:
        table = Table(box=box.SIMPLE_HEAD)
        for column in columns:
            table.add_column(column.heading, min_width=column.width, overflow="fold")
        for seen in page:
            table.add_row(*(_cell(seen, column) for column in columns))
        console.print(table)
        shown += len(page)
    click.echo(f"{shown:,} connections" if shown else "no connections")


def fitting(width: int) -> list[Column]:
    """The columns for a terminal of this width; hub and status also where even they do not fit."""
    columns = list(COLUMNS)
    for column in sorted(COLUMNS, key=lambda column: column.goes):
        if column.goes and sum(each.width + GAP for each in columns) > width:
            columns.remove(column)
    return columns


def _cell(seen: ConnectionRow, column: Column) -> Text:
    value = getattr(seen, column.field)
    text = f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else as_field(value)
    return Text(text, style=COLOURS[seen.status] if column.field == "status" else "")
