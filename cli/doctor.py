"""`tokenkeeper doctor`: looks at everything that has to be right, and says what to do where it is not."""

from __future__ import annotations

import os
import sys

import click
from rich.console import Console
from rich.text import Text

from cli.doctor_checks import examine
from cli.doctor_findings import Finding, Level
from cli.json_output import json_line, json_option
from cli.output import example

COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red", Level.SKIP: "dim"}


@click.command(epilog=example("tokenkeeper doctor", "tokenkeeper doctor --json | jq 'select(.level == \"FAIL\")'"))
@json_option
def doctor(as_json: bool) -> None:
    """Check settings, database, rows, clock, beat, Redis and HubSpot: one line each, exit status 1 if any fails.

    Each line begins with ok, warn (it works, but look), FAIL (it does not, and what to do), or skip (something that it
    rests on fails). Run it where web runs, with web's settings: it compares this host's clock with PostgreSQL's.
    """
    console = Console()
    failed = False
    for finding in examine(os.environ):  # noqa: TID251  an entry point
        if as_json:
            click.echo(json_line({"level": finding.level, "about": finding.about, "what": finding.what}))
        else:
            console.print(_told(finding), soft_wrap=True)
        failed |= finding.level is Level.FAIL
    if failed:
        sys.exit(1)


def _told(finding: Finding) -> Text:
    level = (f"{finding.level:<5}", COLOURS[finding.level])
    return Text.assemble(level, f" {finding.about}: {finding.what}")
