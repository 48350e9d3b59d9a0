"""`tokenkeeper completion`: a script with which a shell completes the commands and their options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from cli.output import make_epilog

SHELLS = ("bash", "zsh", "fish")
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
    completion_class = get_completion_class(shell)
    if completion_class is None:
        raise click.ClickException(f"this version of click does not know {shell}")
    click.echo(completion_class(context.find_root().command, {}, "tokenkeeper", VARIABLE).source())
