"""`tokenkeeper completion`: a script with which a shell completes the commands and their options."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from cli.output import make_epilog

SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
#: The name that click derives from the command's.
VARIABLE = "_TOKENKEEPER_COMPLETE"


@click.command(
    "completion",
    epilog=make_epilog(
        "tokenkeeper completion bash > ~/.local/share/bash-completion/completions/tokenkeeper",
        'eval "$(tokenkeeper completion zsh)"  # in ~/.zshrc, after compinit',
        "tokenkeeper completion fish > ~/.config/fish/completions/tokenkeeper.fish",
    ),
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def print_completion_script(context: click.Context, shell: str) -> None:
    """Print the script that completes tokenkeeper's commands and options in SHELL.

    `tokenkeeper` itself must be on the PATH. Completion asks no database.
    """
    completion = SHELLS[shell](context.find_root().command, {}, "tokenkeeper", VARIABLE)
    click.echo(completion.source())
