"""`tokenkeeper resume`: an operator ends the pause of refreshes that a 429 of HubSpot began."""

from __future__ import annotations

import getpass
import socket

import click

from cli.context import choose_stored_app, load_settings, one_of_stored_apps_option, open_database
from cli.output import json_option, make_epilog, to_json_line
from shared.db.refresh.apps import list_apps
from shared.db.refresh.provider import ProviderStore
from shared.domain.provider import DESCRIPTIONS, Condition, Provider

NEEDS = ("DATABASE_URL",)


@click.command("resume", epilog=make_epilog("tokenkeeper resume", needs=NEEDS))
@one_of_stored_apps_option
@json_option
def resume_refreshes(app_name: str | None, as_json: bool) -> None:
    """End the pause of all refreshes, and the waits of single connections, that a 429 of HubSpot began.

    HubSpot limits the requests of an app, and says in Retry-After for how long. All refreshes pause for that time, but
    for five minutes at most; then six calls a minute test whether one works. The connections that got the 429 wait for
    all of it, which can be a day. This command ends both: refreshes start again with the next sweep, ten a second at
    first, and these connections are due now. If HubSpot answers 429 again, a new pause begins.

    Where there are several apps, each has a pause of its own: without --app all of them end, with a line for each.

    The waits of other answers stay, such as those of an account that HubSpot is moving. Where nothing waits, nothing
    changes. An alert and the log say who resumed. Exit status 0 in every case.
    """
    with open_database(load_settings(*NEEDS)) as engine:
        apps = list_apps(engine)
        for app in [choose_stored_app(apps, app_name)] if app_name else apps:
            provider = ProviderStore(engine, app)
            before, after = provider.resume(_name_operator())
            connections = provider.make_throttled_due()
            if as_json:
                values = {"was_paused": before != after, "state": after.condition, "connections_due": connections}
                click.echo(to_json_line(values if len(apps) == 1 else {"app": app, **values}))
            else:
                name = f"{app}: " if len(apps) > 1 else ""
                click.echo(name + _describe(before, after, connections))


def _describe(before: Provider, after: Provider, connections: int) -> str:
    changes = []
    if before != after:
        is_ramp = after.condition is Condition.OK
        then = "refreshes start again, ten a second at first" if is_ramp else DESCRIPTIONS[after.condition].summary
        changes.append(f"the pause is over: {then}")
    if connections:
        were = (
            "connection that HubSpot had put off is" if connections == 1 else "connections that HubSpot had put off are"
        )
        changes.append(f"{connections:,} {were} due now")
    return "; ".join(changes) or "nothing was paused"


def _name_operator() -> str:
    """User and host, for the alert: `root@worker-1`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # pragma: no cover  a user id without a name, as in some containers: tests keep theirs
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
