"""`tokenkeeper revocations`: an operator's word on the connections that the revocation brake holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from cli.context import database, settings
from cli.json_output import json_line, json_option
from cli.output import example
from shared.db.refresh.brake import BrakeState, RevocationBrake
from shared.text_format import format_ago

NOTHING = "the revocation brake is off: there is nothing to {word}"
QUESTIONS = {
    "confirm": "{held:,} connections are held. Are they really dead? Once revoked, they are not served any more",
    "dismiss": "{held:,} connections are held. Were they called dead by mistake? They, and those revoked in the ten "
    "minutes before, become active and are asked again",
}
_yes = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group(invoke_without_command=True, epilog=example("tokenkeeper revocations", "tokenkeeper revocations dismiss"))
@json_option
@click.pass_context
def revocations(context: click.Context, as_json: bool) -> None:
    """Say how many connections the revocation brake holds, and since when; end it by confirm or dismiss.

    HubSpot called more connections dead than is plausible. They stay suspect, and are asked again now and then.
    Often the fault is ours (the client id of another app): mend that, then dismiss.
    """
    if context.invoked_subcommand is None:
        with _store() as store:
            brake = store.read()
        click.echo(json_line({"on_since": brake.since, "held": brake.held}) if as_json else told(brake))


@revocations.command(epilog=example("tokenkeeper revocations confirm"))
@_yes
def confirm(yes: bool) -> None:
    """They are dead: revoke those that are held. They do not count towards the next brake."""
    with _store() as store:
        _ask("confirm", store.read(), yes)
        revoked = store.confirm()
        if revoked is None:
            raise click.ClickException(NOTHING.format(word="confirm"))
    click.echo(f"{revoked:,} revoked; the revocation brake is off")


@revocations.command(
    short_help="It was a mistake: all of them are active again.", epilog=example("tokenkeeper revocations dismiss")
)
@_yes
def dismiss(yes: bool) -> None:
    """It was a mistake: those held, and those revoked in the ten minutes before, are active and due again."""
    with _store() as store:
        _ask("dismiss", store.read(), yes)
        back = store.dismiss()
        if back is None:
            raise click.ClickException(NOTHING.format(word="dismiss"))
    click.echo(f"{back:,} active and due again; the revocation brake is off")


def told(brake: BrakeState) -> str:
    if brake.since is None:
        return "the revocation brake is off"
    return (
        f"the revocation brake is on since {brake.since:%Y-%m-%d %H:%M:%S %Z} ({format_ago(brake.since, brake.now)}): "
        f"{brake.held:,} connections held suspect, called dead by both witnesses\n"
        "If they are dead: tokenkeeper revocations confirm. If it was a mistake, once that is mended: "
        "tokenkeeper revocations dismiss"
    )


def _ask(word: str, brake: BrakeState, yes: bool) -> None:
    if brake.since is None:
        raise click.ClickException(NOTHING.format(word=word))
    if not yes:
        click.confirm(QUESTIONS[word].format(held=brake.held), abort=True)


@contextmanager
def _store() -> Iterator[RevocationBrake]:
    ours = settings("DATABASE_URL")
    with database(ours) as engine:
        yield RevocationBrake(engine)
