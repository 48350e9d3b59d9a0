"""`tokenkeeper doctor`: looks at everything that has to be right, and says what to do where it is not."""

from __future__ import annotations

import os
import sys

import click

from cli.checks import Level, examine
from cli.terminal import example

COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red", Level.SKIP: None}


@click.command(epilog=example("tokenkeeper doctor"))
def doctor() -> None:
    """Check settings, database, rows, clock, beat, Redis and HubSpot: one line each, exit status 1 if any fails.

    Run it where web runs, with web's settings: it compares this host's clock with PostgreSQL's.
    """
    failed = False
    for finding in examine(os.environ):  # noqa: TID251  an entry point
        level = click.style(f"{finding.level:<5}", fg=COLOURS[finding.level])
        click.echo(f"{level} {finding.about}: {finding.what}")
        failed |= finding.level is Level.FAIL
    if failed:
        sys.exit(1)
