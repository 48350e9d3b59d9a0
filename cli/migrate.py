"""`tokenkeeper migrate`: brings the database to this code's schema."""

from __future__ import annotations

import click

from cli.context import load_settings
from cli.output import make_epilog
from shared.db.schema.migrate import migrate

NEEDS = ("DATABASE_URL",)


@click.command("migrate", epilog=make_epilog("tokenkeeper migrate", needs=NEEDS))
def migrate_database() -> None:
    """Bring the database to this code's schema. Safe at any time, twice, and on two hosts at once.

    Before an upgrade, stop beat and worker: docs/operations.md.
    """
    migrate(load_settings(*NEEDS).database_url)
    click.echo("the database is up to date")
