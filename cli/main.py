"""The `tokenkeeper` command: its subcommands, each imported only when it is called, and how errors are reported.

A subcommand is a line in COMMANDS: where its click command is, and what it does. So `--help` imports none of them, and
the production image, which has no sandbox, lacks `up` alone.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from traceback import extract_tb
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from shared.foreign_environment import remove_foreign_variables

COMMANDS = {
    "up": ("cli.up:run_product", "Run the whole product here, in the foreground."),
    "migrate": ("cli.migrate:migrate_database", "Bring the database to this code's schema; safe at any time."),
    "roles": ("cli.roles:create_database_roles", "Create database roles for web and for the worker."),
    "status": ("cli.status:show_status", "Show on one screen whether all is well."),
    "connections": ("cli.connections:list_connections", "List the connections."),
    "history": ("cli.history:show_history", "Show one connection, and what happened to it."),
    "scopes": ("cli.scopes:list_lacking", "List the connections that lack scopes, with a link for each."),
    "events": ("cli.events:events", "List what happened to all connections; send it to our product again."),
    "claim": ("cli.claim:claim_connection", "Give a connection to a customer."),
    "refresh": ("cli.refresh_disconnect:request_refresh", "Make connections due now."),
    "disconnect": ("cli.refresh_disconnect:disconnect", "End a connection, here and at HubSpot."),
    "resume": ("cli.resume:resume_refreshes", "End the pause that a 429 of HubSpot began."),
    "revocations": ("cli.revocations:revocations", "Decide about connections that the revocation brake holds."),
    "import": ("cli.imports.command:import_connections", "Take over connections from a file."),
    "link": ("cli.link:make_link", "Make a connect link, by which a customer connects an account."),
    "app": ("cli.app:app", "Define the HubSpot app that the settings describe."),
    "keys": ("cli.keys:keys", "Make keys, and re-encrypt every row with the newest."),
    "doctor": ("cli.doctor.command:run_doctor", "Check everything that has to be right."),
    "completion": ("cli.completion:print_completion_script", "Print what completes these commands in your shell."),
}


class LazyCommands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands without importing them: completion must be quick."""
        items = [
            CompletionItem(name, help=help_text)
            for name, (_, help_text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        if items and not incomplete.startswith("-"):
            return items
        return click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tokenkeeper")
def commands() -> None:
    """Connect your app to HubSpot accounts, and keep their access tokens fresh in Postgres.

    For example: tokenkeeper status. Each command has its own --help. Settings come from the environment.

    Exit status: 0 success, 1 failure, 2 wrong use; the error is one line on stderr.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Errors are one line on stderr; exit status 2 for wrong use, 1 for failure."""
    ignored = remove_foreign_variables(os.environ)  # noqa: TID251  an entry point
    try:
        status = commands.main(arguments, prog_name="tokenkeeper", standalone_mode=False, obj=ignored)
        if sys.stdout:  # None where the caller has closed it
            sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        where = f" (see: {context.command_path} --help)" if context else ""
        exit_with_message(error.format_message() + where, error.exit_code)
    except click.Abort:
        exit_with_message("stopped", 1)
    except Exception as error:  # noqa: BLE001  whatever it is, its traceback may hold a token
        exit_with_message(describe_error(error), 1)
    sys.exit(status if isinstance(status, int) else 0)


def describe_error(error: Exception) -> str:
    """The message of an error that is meant for people; of any other the type and place, without values."""
    from shared.settings import SettingsError  # noqa: PLC0415  not for `--help`

    if isinstance(error, SettingsError):
        return str(error)
    from shared.db.core.errors import SchemaError, StoreError  # noqa: PLC0415  not for a wrong setting

    if isinstance(error, (SchemaError, StoreError)):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
        return "the output could not be written: no space left on the device"
    place = extract_tb(error.__traceback__)[-1]
    return f"a bug in tokenkeeper: {type(error).__name__} in {place.name}, {place.filename}, line {place.lineno}"


def exit_with_message(message: str, status: int) -> NoReturn:
    click.echo("tokenkeeper: " + " ".join(message.split()), err=True)
    sys.exit(status)
