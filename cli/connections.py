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

from cli.context import NumberInRange, load_settings, open_database
from cli.output import format_table_time, format_time, json_option, make_epilog, to_json_line
from shared.db.reports.connection_list import ConnectionList, ConnectionPage, Sort
from shared.db.reports.connections import ConnectionRow
from shared.domain.connection import Status
from shared.text_format import make_printable

NEEDS = ("DATABASE_URL",)
#: Read at a time, and shown under one heading.
PAGE_ROWS = 500
FIELDS = tuple(field.name for field in fields(ConnectionRow) if field.name != "id")
STATUS_COLOURS = {Status.ACTIVE: "green", Status.SUSPECT: "yellow", Status.REVOKED: "red", Status.DISCONNECTED: "dim"}


@dataclass(frozen=True, slots=True)
class Column:
    """Of the table. A fixed least width keeps the columns of all pages in line."""

    heading: str
    field: str
    min_width: int
    drop_order: int = 0  #: where the terminal is narrow, 1 is left out first; 0: never


COLUMNS = (
    Column("hub_id", "hub_id", 12),
    Column("app", "app", 8, drop_order=6),
    Column("customer", "customer", 12, drop_order=5),
    Column("status", "status", 12),
    Column("domain", "hub_domain", 24, drop_order=4),
    Column("expires (UTC)", "expires_at", 19, drop_order=1),
    Column("refresh due (UTC)", "next_refresh_at", 19, drop_order=2),
    Column("failures", "failures", 8, drop_order=3),
)
#: Characters between two columns.
GAP_WIDTH = 2


@click.command(
    "connections",
    epilog=make_epilog(
        "tokenkeeper connections --status revoked",
        "tokenkeeper connections --search acme --limit 10",
        "tokenkeeper connections --customer acme",
        "tokenkeeper connections --sort failures --json | jq -r '[.hub_id, .last_error] | @tsv'",
        needs=NEEDS,
    ),
)
@click.option("--status", type=click.Choice([status.value for status in Status]), help="Only those in this state.")
@click.option("--app", "app_name", metavar="NAME", help="Only those of this app.")
@click.option("--customer", metavar="CUSTOMER", help="Only those of this customer.")
@click.option(
    "--search",
    default="",
    help="Digits: accounts that begin with them. Else part of the name, the domain or the installer.",
)
@click.option(
    "--sort",
    type=click.Choice([sort.value for sort in Sort]),
    default=Sort.HUB.value,
    show_default=True,
    help="`due`: those that have a refresh ahead, soonest first; `failures`: those that fail, most first.",
)
@click.option("--limit", type=NumberInRange(min=1), help="So many at most.")
@json_option
def list_connections(
    *,
    status: str | None,
    app_name: str | None,
    customer: str | None,
    search: str,
    sort: str,
    limit: int | None,
    as_json: bool,
) -> None:
    """List the connections: a table on a terminal, else tab-separated lines with a heading.

    A narrow terminal gets fewer columns; tabs and --json always have all columns of hubspot.connections, and no
    secrets. A million connections are listed page by page, with constant memory, and `| head` ends it.
    """
    with open_database(load_settings(*NEEDS)) as engine:
        read_page = partial(
            ConnectionList(engine).read_page,
            status=Status(status) if status else None,
            app=app_name,
            customer=customer,
            search=search,
            sort=Sort(sort),
        )
        pages = _read_pages(read_page, limit)
        console = Console()
        if as_json:
            for page in pages:
                click.echo("\n".join(map(to_connection_json, page)))
        elif console.is_terminal:
            _print_tables(pages, console)
        else:
            click.echo("\t".join(FIELDS))
            for page in pages:
                click.echo("\n".join(map(_to_tabbed_line, page)))


def _read_pages(read_page: Callable[..., ConnectionPage], limit: int | None) -> Iterator[list[ConnectionRow]]:
    after, left = None, limit
    while left is None or left > 0:
        page = read_page(after=after, limit=PAGE_ROWS if left is None else min(PAGE_ROWS, left))
        if page.connections:
            yield page.connections
        if page.after is None:
            return
        after, left = page.after, None if left is None else left - len(page.connections)


def to_connection_json(row: ConnectionRow) -> str:
    return to_json_line({name: getattr(row, name) for name in FIELDS})


def _to_tabbed_line(row: ConnectionRow) -> str:
    return "\t".join(format_field(getattr(row, name)) for name in FIELDS)


def format_field(value: Any) -> str:
    """None is empty, a list has spaces, a time is as in ISO 8601; control characters are replaced."""
    if isinstance(value, tuple):
        return make_printable(" ".join(value))
    return "" if value is None else make_printable(format_time(value) if isinstance(value, datetime) else str(value))


def _print_tables(pages: Iterator[list[ConnectionRow]], console: Console) -> None:
    count, columns = 0, _choose_columns(console.width)
    for page in pages:
        table = Table(box=box.SIMPLE_HEAD)
        for column in columns:
            table.add_column(column.heading, min_width=column.min_width, overflow="fold")
        for row in page:
            table.add_row(*(_make_cell(row, column) for column in columns))
        console.print(table)
        count += len(page)
    click.echo(f"{count:,} connections" if count else "no connections")


def _choose_columns(width: int) -> list[Column]:
    """Those that fit into a terminal of this width; hub and status in any case."""
    columns = list(COLUMNS)
    for column in sorted(COLUMNS, key=lambda column: column.drop_order):
        if column.drop_order and sum(each.min_width + GAP_WIDTH for each in columns) > width:
            columns.remove(column)
    return columns


def _make_cell(row: ConnectionRow, column: Column) -> Text:
    value = getattr(row, column.field)
    text = format_table_time(value) if isinstance(value, datetime) else format_field(value)
    return Text(text, style=STATUS_COLOURS[row.status] if column.field == "status" else "")
