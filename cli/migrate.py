"""`tokenkeeper migrate`: brings the database to this code's schema."""

from __future__ import annotations

import click

from cli.context import settings
from cli.output import example
from shared.db.schema.migrate import migrate


@click.command("migrate", epilog=example("tokenkeeper migrate"))
def run() -> None:
    """Bring the database to this code's schema. Safe at any time, twice, and on two hosts at once."""
    migrate(settings("DATABASE_URL").database_url)
    click.echo("the database is up to date")
