"""`tokenkeeper scopes`: which connections lack scopes that their app requires, and a link for each to get them."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import urlencode

import click

from cli.context import load_settings, open_database
from cli.output import json_option, make_epilog, to_json_line
from shared.connect_links import MAX_LIFETIME, ConnectLink, ConnectLinks
from shared.db.reports.scopes import LackingConnection, ScopeReports
from shared.domain.customer import CustomerClaim
from shared.domain.scopes import explain_missing
from shared.settings import Settings
from shared.text_format import make_printable

NEEDS, NEEDS_FOR_LINKS = ("DATABASE_URL",), ("HUBSPOT_REDIRECT_URI",)
#: Web's clock may be behind this one.
LINK_LIFETIME = MAX_LIFETIME - timedelta(minutes=5)
COLUMNS = ("hub_id", "app", "user_id", "customer", "status", "missing_scopes")


@click.command(
    "scopes",
    epilog=make_epilog(
        "tokenkeeper scopes",
        "tokenkeeper scopes --links --json | jq -r '[.customer, .link] | @tsv'",
        needs=(*NEEDS, *NEEDS_FOR_LINKS),
    ),
)
@click.option("--app", "app_name", metavar="NAME", help="Of this app alone.")
@click.option("--links", "with_links", is_flag=True, help="With a link for each, by which its customer consents again.")
@json_option
def list_lacking(app_name: str | None, with_links: bool, as_json: bool) -> None:
    """List the connections whose grant lacks scopes that the settings require, compared literally.

    HubSpot keeps the scopes of a grant when those of the app change: the account has to install the app again. With
    CONNECT_LINK_KEYS the link of a connection that has a customer is a connect link for that customer and account; it
    works once, for a week. Any other is a link to /install.
    """
    settings = load_settings(*NEEDS, *(NEEDS_FOR_LINKS if with_links else ()))
    make_link = partial(_make_link, settings) if with_links else None
    lacking: Counter[str] = Counter()
    notes: dict[str, str] = {}
    with open_database(settings) as engine:
        if not as_json:
            click.echo("\t".join((*COLUMNS, *(("link",) if with_links else ()))))
        for page in ScopeReports(engine).read_lacking(app_name):
            for connection in page:
                click.echo(_format(connection, make_link, as_json=as_json))
                for scope in connection.missing_scopes:
                    lacking[scope] += 1
                    notes[scope] = notes.get(scope) or explain_missing(scope, connection.scopes)
    for scope, count in lacking.most_common():
        note = f" ({notes[scope]})" if notes[scope] else ""
        click.echo(f"{count:,} lack {make_printable(scope)}{note}", err=True)


def _format(
    connection: LackingConnection, make_link: Callable[[LackingConnection], str] | None, *, as_json: bool
) -> str:
    identity = connection.identity
    link = make_link(connection) if make_link else None
    if as_json:
        values = {"hub_id": identity.hub_id, "app": identity.app, "user_id": identity.user_id}
        values |= {"customer": connection.customer, "status": connection.status.value}
        values |= {"missing_scopes": list(connection.missing_scopes)}
        return to_json_line(values | ({"link": link} if link else {}))
    user_id = "" if identity.user_id is None else identity.user_id
    fields = (identity.hub_id, identity.app, user_id, connection.customer or "", connection.status.value)
    texts = [make_printable(str(field)) for field in (*fields, " ".join(connection.missing_scopes))]
    return "\t".join([*texts, *([link] if link else [])])


def _make_link(settings: Settings, connection: LackingConnection) -> str:
    """Empty where the connection's app is in no setting."""
    identity = connection.identity
    app = settings.apps.get(identity.app)
    if app is None:
        return ""
    name = identity.app if len(settings.apps) > 1 else None
    if connection.customer is not None and settings.connect_link_keys:
        expires_at = datetime.now(UTC) + LINK_LIFETIME  # noqa: TID251  this host's clock, as in our product
        claim = CustomerClaim(
            connection.customer, str(uuid.uuid4()), expires_at, may_move=False, hub_id=identity.hub_id
        )
        links = ConnectLinks(settings.connect_link_keys, settings.return_to_origins)
        return f"{app.base_url}/connect/{links.sign(ConnectLink(claim, app=name))}"
    query = {"hub_id": str(identity.hub_id), **({"app": name} if name else {})}
    return f"{app.base_url}/install?{urlencode(query)}"
