"""`tokenkeeper completion`: what a shell needs to complete the verbs and their options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from cli.output import example

SHELLS = ("bash", "zsh", "fish")
#: As click names it after the command.
VARIABLE = "_TOKENKEEPER_COMPLETE"


@click.command(
    epilog=example(
        "tokenkeeper completion bash > ~/.local/share/bash-completion/completions/tokenkeeper",
        'eval "$(tokenkeeper completion zsh)"  # in ~/.zshrc, after compinit',
        "tokenkeeper completion fish > ~/.config/fish/completions/tokenkeeper.fish",
    )
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes tokenkeeper's verbs and options in SHELL."""
    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"this version of click does not know {shell}")
    click.echo(found(context.find_root().command, {}, "tokenkeeper", VARIABLE).source())
