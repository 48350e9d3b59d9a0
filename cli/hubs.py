"""`tokenkeeper refresh` and `tokenkeeper disconnect`: what an operator does to single connections."""

from __future__ import annotations

import sys

import click

from cli.ready import database, settings
from cli.terminal import example
from shared import logs
from shared.db.operator import Requested
from shared.db.roster import Roster
from shared.db.store import ConnectionStore
from shared.domain.connection import Status
from shared.hubspot.client import HubSpot
from shared.hubspot.fields import LARGEST_HUB_ID
from shared.vault import Vault
from worker.disconnect import disconnect as end

HUB = click.IntRange(1, LARGEST_HUB_ID)
ANSWERS = {
    Requested.ASKED: "due now; the next sweep refreshes it",
    Requested.IN_FLIGHT: "a refresh is in flight already",
    Requested.ALREADY_DUE: "due already; the next sweep refreshes it",
    Requested.DISCONNECTED: "disconnected: it has to be connected again",
    Requested.UNKNOWN: "no such connection",
}
NOT_DONE = (Requested.DISCONNECTED, Requested.UNKNOWN)
DISCONNECT_NEEDS = (
    "DATABASE_URL",
    "HUBSPOT_CLIENT_ID",
    "HUBSPOT_CLIENT_SECRET",
    "TOKEN_KEYS",
)


@click.command(epilog=example("tokenkeeper refresh 62515 62516"))
@click.argument("hubs", metavar="HUB...", type=HUB, nargs=-1, required=True)
def refresh(hubs: tuple[int, ...]) -> None:
    """Make connections due now, so that the next sweep refreshes them; a revoked one is tried again, too."""
    ours = settings("DATABASE_URL")
    with database(ours) as engine:
        store = ConnectionStore(engine, lease_seconds=ours.lease_seconds)
        answers = store.request(list(dict.fromkeys(hubs)))
    for hub_id, answer in answers.items():
        click.echo(f"{hub_id}: {ANSWERS[answer]}", err=answer in NOT_DONE)
    if any(answer in NOT_DONE for answer in answers.values()):
        sys.exit(1)


@click.command(epilog=example("tokenkeeper disconnect 62515"))
@click.argument("hub", metavar="HUB", type=HUB)
@click.option("--yes", is_flag=True, help="Do not ask.")
def disconnect(hub: int, yes: bool) -> None:
    """End a connection: uninstall the app at HubSpot, revoke the refresh token, wipe both tokens here."""
    ours = settings(*DISCONNECT_NEEDS)
    logs.configure(ours.log_format, "warning", ours.secrets())  # HubSpot's refusals are the operator's business
    with database(ours) as engine:
        seen = Roster(engine).one(hub)
        if seen is None:
            raise click.ClickException(f"{hub}: no such connection")
        if seen.status is not Status.DISCONNECTED and not yes:
            click.confirm(f"End the connection of {hub} for good? Only a new install brings it back", abort=True)
        store = ConnectionStore(engine, lease_seconds=ours.lease_seconds)
        hubspot = HubSpot.from_settings(ours, connections=1)
        try:
            ended = end(hub, store, hubspot, Vault(ours.token_keys))
        finally:
            hubspot.close()
    click.echo(f"{hub}: disconnected, its tokens are wiped" if ended else f"{hub}: it was disconnected already")
