"""`tokenkeeper connections`: every connection, page by page, for people, for `cut` and for `jq`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import datetime
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.ready import database, settings
from cli.terminal import example, harmless
from shared.db.roster import ConnectionSeen, Roster
from shared.domain.connection import Status

#: Rows asked for at a time, and shown under one heading.
PAGE = 500
FIELDS = tuple(field.name for field in fields(ConnectionSeen))
#: Heading and least width of each column of the table; the widths keep its pages in line.
COLUMNS = (("hub_id", 12), ("status", 12), ("domain", 24), ("expires_at", 20), ("next_refresh_at", 20), ("failures", 8))
COLOURS = {Status.ACTIVE: "green", Status.SUSPECT: "yellow", Status.REVOKED: "red", Status.DISCONNECTED: "dim"}


@click.command(
    epilog=example(
        "tokenkeeper connections --status revoked",
        "tokenkeeper connections --json | jq -r 'select(.failures > 0) | .hub_id'",
    )
)
@click.option("--status", type=click.Choice([status.value for status in Status]), help="Only those in this state.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with every field.")
def connections(status: str | None, as_json: bool) -> None:
    """List the connections: a table on a terminal, else tab-separated lines with a heading."""
    with database(settings("DATABASE_URL")) as engine:
        _show(_pages(Roster(engine), Status(status) if status else None), as_json=as_json)


def _pages(roster: Roster, status: Status | None) -> Iterator[list[ConnectionSeen]]:
    after = -1
    while page := roster.page(status=status, after=after, limit=PAGE):
        yield page
        after = page[-1].hub_id


def _show(pages: Iterator[list[ConnectionSeen]], *, as_json: bool) -> None:
    console = Console()
    if as_json:
        _print(pages, as_json_line)
    elif console.is_terminal:
        _tables(pages, console)
    else:
        click.echo("\t".join(FIELDS))
        _print(pages, as_tabbed_line)


def _print(pages: Iterator[list[ConnectionSeen]], line: Callable[[ConnectionSeen], str]) -> None:
    for page in pages:
        click.echo("\n".join(map(line, page)))


def as_json_line(seen: ConnectionSeen) -> str:
    """The columns of `hubspot.connections`; dates as in ISO 8601."""
    return json.dumps({name: getattr(seen, name) for name in FIELDS}, default=_iso, separators=(",", ":"))


def as_tabbed_line(seen: ConnectionSeen) -> str:
    """The same, an empty field where there is nothing."""
    return "\t".join(_field(getattr(seen, name)) for name in FIELDS)


def _field(value: Any) -> str:
    if isinstance(value, tuple):
        return harmless(" ".join(value))
    return "" if value is None else harmless(_iso(value) if isinstance(value, datetime) else str(value))


def _iso(value: datetime) -> str:
    return value.isoformat(timespec="seconds")


def _tables(pages: Iterator[list[ConnectionSeen]], console: Console) -> None:
    shown = 0
    for page in pages:
        table = Table(box=box.SIMPLE_HEAD)
        for heading, width in COLUMNS:
            table.add_column(heading, min_width=width, overflow="fold")
        for seen in page:
            table.add_row(*_cells(seen))
        console.print(table)
        shown += len(page)
    click.echo(f"{shown:,} connections" if shown else "no connections")


def _cells(seen: ConnectionSeen) -> list[Text]:
    texts = (seen.hub_id, seen.status, seen.hub_domain, seen.expires_at, seen.next_refresh_at, seen.failures)
    cells = [Text(_field(text)) for text in texts]
    cells[1].stylize(COLOURS[seen.status])
    return cells
