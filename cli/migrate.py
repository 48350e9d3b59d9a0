"""`tokenkeeper migrate`: brings the database to this code's schema."""

from __future__ import annotations

import click

from cli.context import load_settings
from cli.output import make_epilog
from shared.db.schema.migrate import migrate

NEEDS = ("DATABASE_URL",)
DONE = "the database is up to date"


@click.command(
    "migrate",
    epilog=make_epilog(
        "tokenkeeper migrate --prepare  # of the new version, while the old one runs",
        "tokenkeeper migrate",
        needs=NEEDS,
    ),
)
@click.option("--prepare", is_flag=True, help="Only what can be done while the old version runs.")
def migrate_database(prepare: bool) -> None:
    """Bring the database to this code's schema. Safe at any time, twice, and on two hosts at once.

    For an upgrade, run it with --prepare first: that takes some minutes at a million connections, and no token is read
    or refreshed later for it. Then stop beat and worker, and run it without: docs/upgrading.md.
    """
    migrate(load_settings(*NEEDS).database_url, prepare_only=prepare)
    click.echo("the database is prepared: stop beat and worker, then run: tokenkeeper migrate" if prepare else DONE)
