"""`tokenkeeper claim`: gives a connection to a customer."""

from __future__ import annotations

import click

from cli.context import HUB_ID, load_settings, open_database
from cli.output import confirm_or_abort, make_epilog, yes_option
from cli.resolve import find_connection, identity_options
from shared.db.lifecycle.customers import CustomerChange, CustomerStore
from shared.db.reports.connections import ConnectionReports
from shared.domain.customer import InvalidText, parse_customer

NEEDS = ("DATABASE_URL",)


@click.command(
    "claim", epilog=make_epilog("tokenkeeper claim 62515 acme", "tokenkeeper claim 62515 acme --yes", needs=NEEDS)
)
@click.argument("hub_id", metavar="HUB", type=HUB_ID)
@click.argument("customer", metavar="CUSTOMER")
@identity_options
@yes_option
def claim_connection(hub_id: int, customer: str, app_name: str | None, user_id: int | None, yes: bool) -> None:
    """Give the connection of HUB to CUSTOMER, a text of your choice, such as a name or an id of your own database.

    `SELECT access_token FROM hubspot.tokens WHERE customer = …` reads its token from then on. A connection of another
    customer moves only after a question, or with --yes.
    """
    try:
        customer = parse_customer(customer)
    except InvalidText as error:
        raise click.UsageError(f"CUSTOMER cannot be used: {error}") from None
    with open_database(load_settings(*NEEDS)) as engine:
        connection = find_connection(ConnectionReports(engine), hub_id, app_name, user_id)
        is_moved = connection.customer not in (None, customer)
        if is_moved and not yes:
            confirm_or_abort(f"{hub_id} belongs to the customer {connection.customer!r}. Give it to {customer!r}?")
        change = CustomerStore(engine).set_customer(connection.identity, customer, may_move=is_moved)
    if change in (CustomerChange.OTHER_CUSTOMER, CustomerChange.UNKNOWN):
        raise click.ClickException(f"{hub_id}: it changed at this moment, so nothing was done: run this again")
    done = "is this customer's already" if change is CustomerChange.UNCHANGED else f"belongs to {customer!r} now"
    click.echo(f"{hub_id}: {done}")
