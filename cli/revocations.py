"""`tokenkeeper revocations`: the operator decides about the connections that the revocation brake holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from cli.context import load_settings, open_database
from cli.output import confirm_or_abort, json_option, make_epilog, to_json_line, yes_option
from shared.db.refresh.brake import BrakeState, RevocationBrake
from shared.text_format import format_ago

NEEDS = ("DATABASE_URL",)
BRAKE_IS_OFF = "the revocation brake is off: there is nothing to {decision}"
QUESTIONS = {
    "confirm": "{held:,} connections are held. Are their grants really invalid? Once revoked, they are not served any "
    "more",
    "dismiss": "{held:,} connections are held. Were they reported as revoked by mistake? They, and those revoked in "
    "the ten minutes before, become active and are asked again",
}


@click.group(
    "revocations",
    invoke_without_command=True,
    epilog=make_epilog("tokenkeeper revocations", "tokenkeeper revocations dismiss", needs=NEEDS),
)
@json_option
@click.pass_context
def revocations(context: click.Context, as_json: bool) -> None:
    """Say how many connections the revocation brake holds, and since when; end it by confirm or dismiss.

    HubSpot reported more connections as revoked than is plausible. They stay suspect, and HubSpot is asked again now
    and then. Often the cause is on this side, such as the client id of another app: correct that, then dismiss.
    """
    if context.invoked_subcommand is None:
        with _open_brake() as brake:
            state = brake.read()
        if as_json:
            click.echo(to_json_line({"on_since": state.since, "held": state.held}))
        else:
            click.echo(_describe(state))


@revocations.command(
    "confirm",
    short_help="The grants are invalid: revoke those that are held.",
    epilog=make_epilog("tokenkeeper revocations confirm", needs=NEEDS),
)
@yes_option
def confirm(yes: bool) -> None:
    """The grants are invalid: revoke those that are held. They do not count towards the next brake."""
    with _open_brake() as brake:
        _ask("confirm", brake.read(), yes)
        revoked = brake.confirm()
        if revoked is None:
            raise click.ClickException(BRAKE_IS_OFF.format(decision="confirm"))
    click.echo(f"{revoked:,} revoked; the revocation brake is off")


@revocations.command(
    "dismiss",
    short_help="It was a mistake: all of them are active again.",
    epilog=make_epilog("tokenkeeper revocations dismiss", needs=NEEDS),
)
@yes_option
def dismiss(yes: bool) -> None:
    """It was a mistake: those held, and those revoked in the ten minutes before, are active and due again."""
    with _open_brake() as brake:
        _ask("dismiss", brake.read(), yes)
        activated = brake.dismiss()
        if activated is None:
            raise click.ClickException(BRAKE_IS_OFF.format(decision="dismiss"))
    click.echo(f"{activated:,} active and due again; the revocation brake is off")


def _describe(state: BrakeState) -> str:
    if state.since is None:
        return "the revocation brake is off"
    return (
        f"the revocation brake is on since {state.since:%Y-%m-%d %H:%M:%S %Z} ({format_ago(state.since, state.now)}): "
        f"{state.held:,} connections held suspect, which HubSpot reported as revoked twice\n"
        "If the grants are invalid: tokenkeeper revocations confirm. If it was a mistake, once its cause is corrected: "
        "tokenkeeper revocations dismiss"
    )


def _ask(decision: str, state: BrakeState, yes: bool) -> None:
    if state.since is None:
        raise click.ClickException(BRAKE_IS_OFF.format(decision=decision))
    if not yes:
        confirm_or_abort(QUESTIONS[decision].format(held=state.held))


@contextmanager
def _open_brake() -> Iterator[RevocationBrake]:
    with open_database(load_settings(*NEEDS)) as engine:
        yield RevocationBrake(engine)
