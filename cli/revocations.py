"""`tokenkeeper revocations`: the operator decides about the connections that the revocation brake holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from cli.context import choose_stored_app, load_settings, one_of_stored_apps_option, open_database
from cli.output import confirm_or_abort, json_option, make_epilog, to_json_line, yes_option
from shared.db.refresh.apps import list_apps
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
    and then. Often the cause is on this side, such as the client id of another app: correct that, then dismiss. Where
    there are several apps, each has a brake of its own; --app names one where it is on for several.
    """
    if context.invoked_subcommand is None:
        with open_database(load_settings(*NEEDS)) as engine:
            states = {app: RevocationBrake(engine, app).read() for app in list_apps(engine)}
        for app, state in states.items():
            if as_json:
                values = {"on_since": state.since, "held": state.held}
                click.echo(to_json_line(values if len(states) == 1 else {"app": app, **values}))
            else:
                click.echo(_describe(state, app if len(states) > 1 else None))


@revocations.command(
    "confirm",
    short_help="The grants are invalid: revoke those that are held.",
    epilog=make_epilog("tokenkeeper revocations confirm", needs=NEEDS),
)
@one_of_stored_apps_option
@yes_option
def confirm(app_name: str | None, yes: bool) -> None:
    """The grants are invalid: revoke those that are held. They do not count towards the next brake."""
    revoked = _decide("confirm", RevocationBrake.confirm, app_name, yes)
    click.echo(f"{revoked:,} revoked; the revocation brake is off")


@revocations.command(
    "dismiss",
    short_help="It was a mistake: all of them are active again.",
    epilog=make_epilog("tokenkeeper revocations dismiss", needs=NEEDS),
)
@one_of_stored_apps_option
@yes_option
def dismiss(app_name: str | None, yes: bool) -> None:
    """It was a mistake: those held, and those revoked in the ten minutes before, are active and due again."""
    activated = _decide("dismiss", RevocationBrake.dismiss, app_name, yes)
    click.echo(f"{activated:,} active and due again; the revocation brake is off")


def _describe(state: BrakeState, app: str | None) -> str:
    """`app`: where there are several."""
    name, option = (f"{app}: ", f" --app {app}") if app else ("", "")
    if state.since is None:
        return f"{name}the revocation brake is off"
    return (
        f"{name}the revocation brake is on since {state.since:%Y-%m-%d %H:%M:%S %Z} "
        f"({format_ago(state.since, state.now)}): {state.held:,} connections held suspect, which HubSpot reported as "
        "revoked twice\n"
        f"If the grants are invalid: tokenkeeper revocations confirm{option}. If it was a mistake, once its cause is "
        f"corrected: tokenkeeper revocations dismiss{option}"
    )


def _decide(decision: str, decide: Callable[[RevocationBrake], int | None], app_name: str | None, yes: bool) -> int:
    """How many connections it changed. `decide` returns None where the brake is off by then."""
    with _open_brake(app_name) as brake:
        state = brake.read()
        if state.since is not None and not yes:
            confirm_or_abort(QUESTIONS[decision].format(held=state.held))
        changed = None if state.since is None else decide(brake)
    if changed is None:
        raise click.ClickException(BRAKE_IS_OFF.format(decision=decision))
    return changed


@contextmanager
def _open_brake(app_name: str | None) -> Iterator[RevocationBrake]:
    """Of that app; without a name, of the only one of which it is on. Raises click.UsageError."""
    with open_database(load_settings(*NEEDS)) as engine:
        apps = list_apps(engine)
        if app_name is not None:
            yield RevocationBrake(engine, choose_stored_app(apps, app_name))
            return
        brakes = {app: RevocationBrake(engine, app) for app in apps}
        on = [app for app, brake in brakes.items() if brake.read().since is not None]
        if len(on) > 1:
            raise click.UsageError(f"it is on for several apps: add --app with one of {', '.join(on)}")
        yield brakes[(on or apps)[0]]
