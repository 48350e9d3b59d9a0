"""`tokenkeeper doctor`: checks everything that has to be right, and says what to do where it is not."""

from __future__ import annotations

import os
import sys

import click
from rich.console import Console
from rich.text import Text

from cli.doctor.checks import check_all
from cli.doctor.findings import Level
from cli.output import json_option, make_epilog, to_json_line
from shared.settings import REQUIRED

COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red", Level.SKIP: "dim"}


@click.command(
    "doctor",
    epilog=make_epilog(
        "tokenkeeper doctor", "tokenkeeper doctor --json | jq 'select(.level == \"FAIL\")'", needs=REQUIRED
    ),
)
@json_option
@click.pass_obj
def run_doctor(ignored_variables: tuple[str, ...] | None, as_json: bool) -> None:
    """Check settings, database, rows, clock, beat, Redis and HubSpot: one line each, exit status 1 if any fails.

    Each line begins with ok, warn (works, but should be checked), FAIL (does not work, and what to do), or skip
    (something that it depends on fails). Run it where web runs, with web's settings: it compares this host's clock with
    PostgreSQL's.

    It checks all that web and worker check at their start, and more: it decrypts each stored refresh token, and asks
    HubSpot about a token that belongs to no account. With a million connections the rows take some minutes; a bar
    shows the progress.
    """
    console = Console()
    has_failed = False
    for finding in check_all(os.environ, ignored_variables or ()):  # noqa: TID251  an entry point
        if as_json:
            click.echo(to_json_line({"level": finding.level, "about": finding.about, "what": finding.what}))
        else:
            level = (f"{finding.level:<5}", COLOURS[finding.level])
            console.print(Text.assemble(level, f" {finding.about}: {finding.what}"), soft_wrap=True)
        has_failed |= finding.level is Level.FAIL
    if has_failed:
        sys.exit(1)
