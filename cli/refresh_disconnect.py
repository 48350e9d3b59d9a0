"""`tokenkeeper refresh` and `tokenkeeper disconnect`: what an operator does to single connections."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from cli.context import HUB_ID, load_settings, open_database
from cli.output import confirm_or_abort, json_option, make_epilog, to_json_line, track_pages, yes_option
from cli.resolve import find_connection, format_identity, format_wanted, identity_options
from shared import logs
from shared.db.lifecycle.disconnects import DisconnectStore
from shared.db.refresh.requests import RefreshRequestOutcome, RefreshRequests
from shared.db.reports.connection_list import ConnectionList
from shared.db.reports.connections import ConnectionReports, ConnectionRow
from shared.domain.connection import Status
from shared.hubspot.client import HubSpot
from shared.hubspot.transport import Transport
from shared.token_cipher import TokenCipher
from shared.workflows.disconnect import DisconnectOutcome
from shared.workflows.disconnect import disconnect as disconnect_connection

REFRESH_NEEDS = ("DATABASE_URL",)
DISCONNECT_NEEDS = ("DATABASE_URL", "HUBSPOT_CLIENT_ID", "HUBSPOT_CLIENT_SECRET", "TOKEN_KEYS")
#: In one statement.
PAGE_ROWS = 1000
#: In the summary of many connections, after their number.
SUMMARIES = {RefreshRequestOutcome.IN_FLIGHT: "in flight already", RefreshRequestOutcome.ALREADY_DUE: "due already"}
DISCONNECT_MESSAGES = {
    DisconnectOutcome.DISCONNECTED: "disconnected; its tokens are deleted",
    DisconnectOutcome.NOTHING_TO_DO: "was disconnected already",
    DisconnectOutcome.REINSTALLED: "the account installed the app again meanwhile, and that install stays; to end it "
    "too, disconnect again",
}
FAILURES = (RefreshRequestOutcome.DISCONNECTED, RefreshRequestOutcome.UNKNOWN)


@click.command(
    "refresh",
    epilog=make_epilog(
        "tokenkeeper refresh 62515 62516",
        "tokenkeeper refresh --revoked  # HubSpot was wrong about all of them",
        needs=REFRESH_NEEDS,
    ),
)
@click.argument("hub_ids", metavar="HUB...", type=HUB_ID, nargs=-1)
@click.option("--revoked", is_flag=True, help="All that are revoked, instead of naming them.")
@json_option
@identity_options
def request_refresh(
    hub_ids: tuple[int, ...], revoked: bool, as_json: bool, app_name: str | None, user_id: int | None
) -> None:
    """Make connections due now, so that the next sweep refreshes them; a revoked one is tried again, too.

    Asking is harmless: a connection whose refresh token is invalid stays revoked, and while a refresh is in flight
    none is added. Where several apps or users have a HUB, all of them are meant, or those that --app and --user name.
    Exit status 1 where one of those named is unknown or disconnected. In JSON, `answer` is asked, in_flight,
    already_due, disconnected or unknown.

    --revoked is for the day after a mass revocation by mistake that was confirmed: all that are revoked are tried
    again, at the pace of any backlog. Those whose refresh token works are active again; the others stay revoked, and
    no alert reports them a second time.
    """
    if bool(hub_ids) == revoked:
        raise click.UsageError("name a HUB, or several, or else say --revoked")
    with open_database(load_settings(*REFRESH_NEEDS)) as engine:
        requests, reports = RefreshRequests(engine), ConnectionReports(engine)
        if revoked:
            _print_summary(_request_all_revoked(reports, ConnectionList(engine), requests, app_name), as_json=as_json)
            return
        named = {hub_id: reports.find(hub_id, app_name, user_id) for hub_id in dict.fromkeys(hub_ids)}
        outcomes = requests.request([row.id for rows in named.values() for row in rows])
    for hub_id, rows in named.items():
        for row in rows:
            name = format_identity(row.identity, has_others=len(rows) > 1)
            _print_outcome(name, asdict(row.identity), outcomes[row.id], as_json=as_json)
        if not rows:
            identity = {"app": app_name, "hub_id": hub_id, "user_id": user_id}
            name = format_wanted(hub_id, app_name, user_id)
            _print_outcome(name, identity, RefreshRequestOutcome.UNKNOWN, as_json=as_json)
    if not all(named.values()) or any(outcome in FAILURES for outcome in outcomes.values()):
        sys.exit(1)


def _print_outcome(name: str, identity: dict[str, Any], outcome: RefreshRequestOutcome, *, as_json: bool) -> None:
    if as_json:
        click.echo(to_json_line({**identity, "answer": outcome}))
    else:
        click.echo(f"{name}: {outcome.description}", err=outcome in FAILURES)


def _request_all_revoked(
    reports: ConnectionReports, connections: ConnectionList, requests: RefreshRequests, app_name: str | None
) -> Counter[RefreshRequestOutcome]:
    """Raises StoreUnavailable; earlier requests are kept then, and it may be run again."""
    outcomes: Counter[RefreshRequestOutcome] = Counter()
    with track_pages(reports.read_overview().counts[Status.REVOKED]) as track:
        for page in track(_read_revoked_pages(connections, app_name), "requesting refreshes"):
            outcomes.update(requests.request([row.id for row in page]).values())
    return outcomes


def _read_revoked_pages(connections: ConnectionList, app_name: str | None) -> Iterator[list[ConnectionRow]]:
    after = None
    while True:
        page = connections.read_page(status=Status.REVOKED, app=app_name, after=after, limit=PAGE_ROWS)
        if page.connections:
            yield page.connections
        if (after := page.after) is None:
            return


def _print_summary(outcomes: Counter[RefreshRequestOutcome], *, as_json: bool) -> None:
    if as_json:
        click.echo(to_json_line(dict(outcomes.items())))
        return
    if not outcomes:
        click.echo("no connection is revoked: there is nothing to do")
        return
    others = [f"{outcomes[outcome]:,} {words}" for outcome, words in SUMMARIES.items() if outcomes[outcome]]
    asked = f"{outcomes[RefreshRequestOutcome.ASKED]:,} due now, the next sweeps try them again"
    click.echo("; ".join([asked, *others]))


@click.command(
    "disconnect",
    epilog=make_epilog(
        "tokenkeeper disconnect 62515", "tokenkeeper disconnect 62515 --yes  # in a script", needs=DISCONNECT_NEEDS
    ),
)
@click.argument("hub_id", metavar="HUB", type=HUB_ID)
@identity_options
@yes_option
def disconnect(hub_id: int, app_name: str | None, user_id: int | None, yes: bool) -> None:
    """End a connection: uninstall the app at HubSpot, revoke the refresh token, delete both tokens here.

    Its token is not served from the first instant on. Where HubSpot refuses or does not answer, the connection ends
    here all the same, and stderr says so: then remove the app in the account by hand.
    """
    settings = load_settings(*DISCONNECT_NEEDS)
    logs.configure(settings.log_format, "warning", settings.list_secrets())  # HubSpot's refusals are logged
    with open_database(settings) as engine:
        connection = find_connection(ConnectionReports(engine), hub_id, app_name, user_id)
        if connection.status is not Status.DISCONNECTED and not yes:
            confirm_or_abort(f"End the connection of {hub_id} for good? Only a new install brings it back")
        transport = Transport(max_idle_connections=1, proxy=settings.hubspot_proxy)
        hubspots = {app.name: HubSpot.for_app(app, settings, transport) for app in settings.apps.values()}
        try:
            outcome = disconnect_connection(
                connection.id, DisconnectStore(engine), hubspots, TokenCipher(settings.token_keys)
            )
        finally:
            transport.close()
    click.echo(f"{hub_id}: {DISCONNECT_MESSAGES[outcome]}")
