"""`tokenkeeper events`: what happens to all connections, and sending it to our own product again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from time import sleep

import click

from cli.context import NumberInRange, load_settings, open_database
from cli.output import confirm_or_abort, format_time, json_option, make_epilog, to_json_line, yes_option
from shared.db.core.errors import StoreError
from shared.db.events.delivery import EventDelivery
from shared.db.reports.history_lines import HistoryEntry, HistoryReader
from shared.text_format import make_printable

NEEDS = ("DATABASE_URL",)
MAX_LINE_ID = 2**63 - 1
#: Shown where no line is given to begin after.
NEWEST_LINES = 20
FOLLOW_SECONDS = 1.0
NOT_ENABLED = "no worker sends events: set EVENTS_WEBHOOK_URL and EVENTS_WEBHOOK_SECRET, and restart the worker"
COLUMNS = ("id", "at", "hub_id", "app", "user_id", "customer", "event", "detail")

since_type = NumberInRange(min=0, max=MAX_LINE_ID)


@click.group(
    "events",
    invoke_without_command=True,
    epilog=make_epilog(
        "tokenkeeper events",
        "tokenkeeper events --since 41812 --follow --json | jq -c 'select(.event == \"revoked\")'",
        "tokenkeeper events replay --since 41812",
        needs=NEEDS,
    ),
)
@click.option("--since", type=since_type, help="Those that follow this id. Without it: the newest.")
@click.option("--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@json_option
@click.pass_context
def events(context: click.Context, since: int | None, follow: bool, as_json: bool) -> None:
    """List what happened to all connections, oldest first: the lines of hubspot.history.

    The id is a cursor: no line appears before one that is there already, so a reader that begins after the last id
    it has seen misses none. The same lines are posted to EVENTS_WEBHOOK_URL where that is set.
    """
    if context.invoked_subcommand is not None:
        return
    with open_database(load_settings(*NEEDS)) as engine:
        if not as_json:
            click.echo("\t".join(COLUMNS))
        for page in _read_pages(HistoryReader(engine), since, follow=follow):
            click.echo("\n".join(map(_to_json if as_json else _to_tabbed_line, page)))


@events.command(
    "replay",
    short_help="Send events to EVENTS_WEBHOOK_URL again.",
    epilog=make_epilog("tokenkeeper events replay --since 41812", needs=NEEDS),
)
@click.option("--since", type=since_type, required=True, help="Those that follow this id.")
@yes_option
def replay(since: int, yes: bool) -> None:
    """Send what follows this id again, at 50 a second, in order, also what is older than three days.

    Each has the same webhook-id as before: a receiver that remembers which ids it has handled leaves those out.
    """
    with open_database(load_settings(*NEEDS)) as engine:
        if not HistoryReader(engine).read_delivery().is_enabled:
            raise click.ClickException(NOT_ENABLED)
        if not yes:
            confirm_or_abort(f"Send every event after {since} again?")
        total = EventDelivery(engine).replay(since)
    click.echo(
        f"{total:,} events are sent again" if total else f"no event after {since} was sent yet: nothing to repeat"
    )


@events.command(
    "resume",
    short_help="Send events again after the receiver answered 410 Gone.",
    epilog=make_epilog("tokenkeeper events resume", needs=NEEDS),
)
def resume() -> None:
    """Send events again after the receiver answered 410 Gone, and end a pause. Correct the receiver first."""
    with open_database(load_settings(*NEEDS)) as engine:
        if not EventDelivery(engine).resume():
            raise click.ClickException(NOT_ENABLED)
    click.echo("events are sent again, within seconds")


def _read_pages(reader: HistoryReader, since: int | None, *, follow: bool) -> Iterator[Sequence[HistoryEntry]]:
    page = reader.read_newest(NEWEST_LINES) if since is None else reader.read_after(since)
    last_id = since or 0
    retried = (StoreError,) if follow else ()
    while True:
        if page:
            yield page
            last_id = page[-1].id
        elif not follow:
            return
        else:
            sleep(FOLLOW_SECONDS)
        try:
            page = reader.read_after(last_id)
        except retried as error:
            click.echo(f"tokenkeeper: {error}; trying again", err=True)
            page = ()


def _to_json(entry: HistoryEntry) -> str:
    return to_json_line(asdict(entry))


def _to_tabbed_line(entry: HistoryEntry) -> str:
    detail = json.dumps(entry.detail, ensure_ascii=False)
    user_id = "" if entry.user_id is None else entry.user_id
    fields = (
        entry.id,
        format_time(entry.at),
        entry.hub_id,
        entry.app,
        user_id,
        entry.customer or "",
        entry.event,
        detail,
    )
    return "\t".join(make_printable(str(field)) for field in fields)
