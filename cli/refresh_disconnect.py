"""`tokenkeeper refresh` and `tokenkeeper disconnect`: what an operator does to single connections."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

import click

from cli.context import HUB, database, settings
from cli.json_output import json_line, json_option
from cli.output import example, watched
from shared import logs
from shared.db.lifecycle.disconnects import DisconnectStore
from shared.db.refresh.requests import RefreshRequestOutcome, RefreshRequests
from shared.db.reports.connections import ConnectionReports
from shared.domain.connection import Status
from shared.hubspot.client import HubSpot
from shared.token_cipher import TokenCipher
from shared.workflows.disconnect import disconnect as end

#: Rows in one statement.
PAGE = 1000
#: In the summary of many connections, after their number.
BESIDES = {RefreshRequestOutcome.IN_FLIGHT: "in flight already", RefreshRequestOutcome.ALREADY_DUE: "due already"}
NOT_DONE = (RefreshRequestOutcome.DISCONNECTED, RefreshRequestOutcome.UNKNOWN)
DISCONNECT_NEEDS = (
    "DATABASE_URL",
    "HUBSPOT_CLIENT_ID",
    "HUBSPOT_CLIENT_SECRET",
    "TOKEN_KEYS",
)


@click.command(
    epilog=example(
        "tokenkeeper refresh 62515 62516",
        "tokenkeeper refresh --revoked  # HubSpot was wrong about all of them",
    )
)
@click.argument("hubs", metavar="HUB...", type=HUB, nargs=-1)
@click.option("--revoked", is_flag=True, help="All that are revoked, instead of naming them.")
@json_option
def refresh(hubs: tuple[int, ...], revoked: bool, as_json: bool) -> None:
    """Make connections due now, so that the next sweep refreshes them; a revoked one is tried again, too.

    Nothing is lost by asking: one whose refresh token is really dead stays revoked. Exit status 1 where one of those
    named is unknown or disconnected.
    """
    if bool(hubs) == revoked:
        raise click.UsageError("name a HUB, or several, or else say --revoked")
    ours = settings("DATABASE_URL")
    with database(ours) as engine:
        requests = RefreshRequests(engine)
        if revoked:
            _say_sum(_refresh_revoked(ConnectionReports(engine), requests), as_json=as_json)
            return
        answers = requests.request(list(dict.fromkeys(hubs)))
    for hub_id, answer in answers.items():
        if as_json:
            click.echo(json_line({"hub_id": hub_id, "answer": answer}))
        else:
            click.echo(f"{hub_id}: {answer.description}", err=answer in NOT_DONE)
    if any(answer in NOT_DONE for answer in answers.values()):
        sys.exit(1)


def _refresh_revoked(reports: ConnectionReports, requests: RefreshRequests) -> Counter[RefreshRequestOutcome]:
    """Raises StoreUnavailable; what was asked for before stays, and all of it may be asked for again."""
    answers: Counter[RefreshRequestOutcome] = Counter()
    with watched(reports.read_overview().counts[Status.REVOKED]) as watch:
        for page in watch(_revoked(reports), "asking for"):
            answers.update(requests.request(page).values())
    return answers


def _revoked(reports: ConnectionReports) -> Iterator[list[int]]:
    after = -1
    while page := reports.read_page(status=Status.REVOKED, after=after, limit=PAGE):
        after = page[-1].hub_id
        yield [seen.hub_id for seen in page]


def _say_sum(answers: Counter[RefreshRequestOutcome], *, as_json: bool) -> None:
    if as_json:
        click.echo(json_line(dict(answers.items())))
        return
    asked = answers[RefreshRequestOutcome.ASKED]
    others = [f"{answers[answer]:,} {words}" for answer, words in BESIDES.items() if answers[answer]]
    click.echo("; ".join([f"{asked:,} due now, the next sweeps try them again", *others]))


@click.command(epilog=example("tokenkeeper disconnect 62515", "tokenkeeper disconnect 62515 --yes  # in a script"))
@click.argument("hub", metavar="HUB", type=HUB)
@click.option("--yes", is_flag=True, help="Do not ask.")
def disconnect(hub: int, yes: bool) -> None:
    """End a connection: uninstall the app at HubSpot, revoke the refresh token, wipe both tokens here.

    It is not served from the first instant on. Where HubSpot does not take it, it is ended here all the same, and the
    refusal is told: remove the app in the account by hand.
    """
    ours = settings(*DISCONNECT_NEEDS)
    logs.configure(ours.log_format, "warning", ours.list_secrets())  # HubSpot's refusals are the operator's business
    with database(ours) as engine:
        seen = ConnectionReports(engine).find(hub)
        if seen is None:
            raise click.ClickException(f"{hub}: no such connection")
        if seen.status is not Status.DISCONNECTED and not yes:
            click.confirm(f"End the connection of {hub} for good? Only a new install brings it back", abort=True)
        hubspot = HubSpot.from_settings(ours, connections=1)
        try:
            ended = end(hub, DisconnectStore(engine), hubspot, TokenCipher(ours.token_keys))
        finally:
            hubspot.close()
    click.echo(f"{hub}: disconnected, its tokens are wiped" if ended else f"{hub}: it was disconnected already")
