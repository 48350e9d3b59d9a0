"""The `tokenkeeper` command: its verbs, each loaded only when it is called, and the one way in which they fail.

A verb is a line in VERBS: where its click command is, and what it does. So `--help` loads none of
them, and the production image, which has no sandbox, lacks nothing but `up`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from traceback import extract_tb
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

VERBS = {
    "up": ("cli.up:run", "Run the whole product here, in the foreground."),
    "migrate": ("cli.migrate:run", "Bring the database to this code's schema; safe at any time."),
    "roles": ("cli.roles:run", "Make database roles for web and for the worker."),
    "status": ("cli.status:status", "Say on one screen whether all is well."),
    "connections": ("cli.connections:connections", "List the connections."),
    "history": ("cli.history:history", "Show one connection, and what happened to it."),
    "refresh": ("cli.refresh_disconnect:refresh", "Make connections due now."),
    "disconnect": ("cli.refresh_disconnect:disconnect", "End a connection, here and at HubSpot."),
    "revocations": ("cli.revocations:revocations", "Say what becomes of those that the revocation brake holds."),
    "import": ("cli.import_command:import_", "Take over connections from a file."),
    "keys": ("cli.keys:keys", "Make keys, and move every row to the newest."),
    "doctor": ("cli.doctor:doctor", "Check everything that has to be right."),
    "completion": ("cli.completion:completion", "Print what completes these verbs in your shell."),
}


class Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        if cmd_name not in VERBS:
            return None
        module, _, name = VERBS[cmd_name][0].partition(":")
        found: click.Command = getattr(import_module(module), name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Verbs"):
            formatter.write_dl([(name, does) for name, (_, does) in VERBS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs by their names, none loaded: somebody waits with a finger on Tab."""
        verbs = [CompletionItem(name, help=does) for name, (_, does) in VERBS.items() if name.startswith(incomplete)]
        return (
            verbs if verbs and not incomplete.startswith("-") else click.Command.shell_complete(self, ctx, incomplete)
        )


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tokenkeeper")
def verbs() -> None:
    """Connect your app to HubSpot accounts, and keep their access tokens fresh in Postgres.

    For example: tokenkeeper status. Each verb has a --help of its own. Settings come from the environment.

    Exit status: 0 done, 1 failed, 2 wrong use; what failed is one line on stderr.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Errors are one line on stderr; exit status 2 for wrong use, 1 for failure."""
    try:
        status = verbs.main(arguments, prog_name="tokenkeeper", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _end(error.format_message() + _where_to_read(error), error.exit_code)
    except click.Abort:
        _end("stopped", 1)
    except BrokenPipeError:
        # Whoever read us has enough. Python would stumble over the same pipe once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  whatever it is, its traceback may hold a token
        _end(in_one_line(error), 1)
    sys.exit(status if isinstance(status, int) else 0)


def in_one_line(error: Exception) -> str:
    """What people are told of an error: the message of one that is meant for them, else no values at all."""
    from shared.db.core.errors import SchemaError, StoreError  # noqa: PLC0415  not for `--help`
    from shared.settings import SettingsError  # noqa: PLC0415  not for `--help`

    if isinstance(error, (SettingsError, SchemaError, StoreError)):
        return str(error)
    place = extract_tb(error.__traceback__)[-1]
    return f"a bug of ours: {type(error).__name__} in {place.name}, {place.filename}, line {place.lineno}"


def _where_to_read(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f" (see: {context.command_path} --help)" if context else ""


def _end(message: str, status: int) -> NoReturn:
    click.echo("tokenkeeper: " + " ".join(message.split()), err=True)
    sys.exit(status)
