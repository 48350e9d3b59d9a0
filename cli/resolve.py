"""Which connection a command is about: of a hub with several, the person names one by app and user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from cli.context import HUB_ID
from shared.db.reports.connections import ConnectionReports, ConnectionRow
from shared.domain.identity import ConnectionIdentity

Command = TypeVar("Command", bound=Callable[..., Any])


def identity_options(command: Command) -> Command:
    """Add `--app` and `--user`, as app_name and user_id."""
    app = click.option("--app", "app_name", metavar="NAME", help="Which app, where several have the hub.")
    user = click.option("--user", "user_id", type=HUB_ID, metavar="ID", help="Which user, of a user-level app.")
    return app(user(command))


def find_connection(
    reports: ConnectionReports, hub_id: int, app_name: str | None, user_id: int | None
) -> ConnectionRow:
    """Raises click.UsageError, which lists the connections where several fit, and click.ClickException where none."""
    found = reports.find(hub_id, app_name, user_id)
    if not found:
        raise click.ClickException(f"{format_wanted(hub_id, app_name, user_id)}: no such connection")
    if len(found) > 1:
        choices = "; ".join(_format_options(row.identity) for row in found)
        raise click.UsageError(f"{hub_id} has {len(found)} connections, add what names one of them: {choices}")
    return found[0]


def format_identity(identity: ConnectionIdentity, *, has_others: bool) -> str:
    """The hub, and what tells it apart from the hub's other connections."""
    return f"{identity.hub_id} {_format_options(identity)}" if has_others else str(identity.hub_id)


def format_wanted(hub_id: int, app_name: str | None, user_id: int | None) -> str:
    """The hub with the options that were given."""
    parts = [str(hub_id)]
    parts += [f"--app {app_name}"] if app_name else []
    parts += [f"--user {user_id}"] if user_id else []
    return " ".join(parts)


def _format_options(identity: ConnectionIdentity) -> str:
    user = f" --user {identity.user_id}" if identity.user_id else ""
    return f"--app {identity.app}{user}"
