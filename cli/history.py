"""`tokenkeeper history`: one connection as it is, and what happened to it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.connections import FIELDS, STATUS_COLOURS, format_field
from cli.context import HUB_ID, NumberInRange, load_settings, open_database
from cli.output import format_table_time, format_time, make_epilog, to_json_line
from cli.resolve import find_connection, format_wanted, identity_options
from shared.db.reports.connections import ConnectionReports, ConnectionRow, HistoryLine
from shared.text_format import make_printable

NEEDS = ("DATABASE_URL",)


@click.command(
    "history",
    epilog=make_epilog(
        "tokenkeeper history 62515",
        "tokenkeeper history 62515 --json | jq -r '.history[] | select(.event == \"revoked\") | .at'",
        needs=NEEDS,
    ),
)
@click.argument("hub_id", metavar="HUB", type=HUB_ID)
@click.option("--limit", type=NumberInRange(1, 10_000), default=100, show_default=True, help="Events at most.")
@click.option("--json", "as_json", is_flag=True, help="For machines: one JSON object with connection and history.")
@identity_options
def show_history(hub_id: int, limit: int, as_json: bool, app_name: str | None, user_id: int | None) -> None:
    """Show the connection of HUB, and what happened to it, newest first.

    The correlation ids in the detail are HubSpot's: its support finds a call by them.
    """
    with open_database(load_settings(*NEEDS)) as engine:
        reports = ConnectionReports(engine)
        connection = None
        if reports.find(hub_id, app_name, user_id):  # else it is deleted, and its history stays
            connection = find_connection(reports, hub_id, app_name, user_id)
            app_name, user_id = connection.app, connection.user_id
        events = reports.read_history(hub_id, limit, app=app_name, user_id=user_id)
    if connection is None and not events:
        raise click.ClickException(f"{format_wanted(hub_id, app_name, user_id)}: no such connection")
    console = Console()
    if as_json:
        report = {
            "connection": {name: getattr(connection, name) for name in FIELDS} if connection else None,
            "history": [asdict(event) for event in events],
        }
        click.echo(to_json_line(report))
    elif console.is_terminal:
        console.print(*([_make_card(connection)] if connection else []), _make_table(events), sep="\n")
    else:
        _print_tabbed(connection, events)


def _print_tabbed(connection: ConnectionRow | None, events: list[HistoryLine]) -> None:
    if connection:
        for name in FIELDS:
            click.echo(f"{name}\t{format_field(getattr(connection, name))}")
        click.echo()
    click.echo("at\tevent\tdetail")
    for event in events:
        detail = make_printable(json.dumps(event.detail, ensure_ascii=False))
        click.echo(f"{format_time(event.at)}\t{event.event}\t{detail}")


def _make_card(connection: ConnectionRow) -> Table:
    card = Table.grid(padding=(0, 2))
    card.add_column(style="bold", no_wrap=True)
    card.add_column(overflow="fold")
    for name in FIELDS:
        style = STATUS_COLOURS[connection.status] if name == "status" else ""
        card.add_row(name, Text(format_field(getattr(connection, name)), style=style))
    return card


def _make_table(events: list[HistoryLine]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("at (UTC)", no_wrap=True)
    for heading in ("event", "detail"):
        table.add_column(heading, overflow="fold")
    for event in events:
        table.add_row(format_table_time(event.at), make_printable(event.event), "\n".join(_list_pairs(event.detail)))
    return table


def _list_pairs(detail: dict[str, Any], prefix: str = "") -> list[str]:
    """`code BAD_REFRESH_TOKEN`, one a line; a nested name is `refresh.code`."""
    pairs = []
    for name, value in detail.items():
        if isinstance(value, dict):
            pairs += _list_pairs(value, f"{prefix}{name}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            pairs.append(make_printable(f"{prefix}{name} {text}"))
    return pairs
