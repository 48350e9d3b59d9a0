"""`tokenkeeper history`: one connection as it stands, and what happened to it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.connections import COLOURS, FIELDS, as_field
from cli.context import HUB, database, settings
from cli.json_output import iso, json_line
from cli.output import example
from shared.db.reports.connections import ConnectionReports, ConnectionRow, HistoryLine
from shared.text_format import make_printable


@click.command(
    epilog=example(
        "tokenkeeper history 62515",
        "tokenkeeper history 62515 --json | jq -r '.history[] | select(.event == \"revoked\") | .at'",
    )
)
@click.argument("hub", metavar="HUB", type=HUB)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Events at most.")
@click.option("--json", "as_json", is_flag=True, help="For machines: one JSON object with connection and history.")
def history(hub: int, limit: int, as_json: bool) -> None:
    """Show how the connection of HUB stands, and what happened to it with the evidence, the newest first.

    The correlation ids in it are HubSpot's: its support finds a call by them.
    """
    with database(settings("DATABASE_URL")) as engine:
        reports = ConnectionReports(engine)
        seen, events = reports.find(hub), reports.read_history(hub, limit)
    if seen is None and not events:
        raise click.ClickException(f"{hub}: no such connection")
    console = Console()
    if as_json:
        click.echo(
            json_line({"connection": asdict(seen) if seen else None, "history": [asdict(event) for event in events]})
        )
    elif console.is_terminal:
        console.print(*([_card(seen)] if seen else []), _table(events), sep="\n")
    else:
        _plain(seen, events)


def _plain(seen: ConnectionRow | None, events: list[HistoryLine]) -> None:
    if seen:
        for name in FIELDS:
            click.echo(f"{name}\t{as_field(getattr(seen, name))}")
        click.echo()
    click.echo("at\tevent\tdetail")
    for event in events:
        click.echo(f"{iso(event.at)}\t{event.event}\t{make_printable(json.dumps(event.detail, ensure_ascii=False))}")


def _card(seen: ConnectionRow) -> Table:
    card = Table.grid(padding=(0, 2))
    card.add_column(style="bold", no_wrap=True)
    card.add_column(overflow="fold")
    for name in FIELDS:
        style = COLOURS[seen.status] if name == "status" else ""
        card.add_row(name, Text(as_field(getattr(seen, name)), style=style))
    return card


def _table(events: list[HistoryLine]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("at", "event", "evidence"):
        table.add_column(heading, overflow="fold")
    for event in events:
        table.add_row(iso(event.at), make_printable(event.event), "\n".join(_pairs(event.detail)))
    return table


def _pairs(detail: dict[str, Any], within: str = "") -> list[str]:
    """`code BAD_REFRESH_TOKEN`, a line each; what stands in another is named after it."""
    pairs = []
    for name, value in detail.items():
        if isinstance(value, dict):
            pairs += _pairs(value, f"{within}{name}.")
        else:
            told = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            pairs.append(make_printable(f"{within}{name} {told}"))
    return pairs
