"""`tokenkeeper link`: makes a connect link, as our product does with a JWT library (docs/connect-links.md)."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from cli.context import HUB_ID, load_settings
from cli.output import format_time, json_option, make_epilog, to_json_line
from shared.connect_links import ConnectLink, ConnectLinks, LinkRejected, find_app
from shared.domain.customer import CustomerClaim
from shared.settings import Settings

NEEDS = ("CONNECT_LINK_KEYS", "HUBSPOT_REDIRECT_URI")
_DURATION = re.compile(r"(?P<count>[1-9][0-9]{0,6})(?P<unit>[smhd])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class DurationType(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        match = _DURATION.fullmatch(value)
        if match is None:
            self.fail(f"{value!r} is no duration such as 90s, 30m, 2h or 7d", param, ctx)
        return timedelta(seconds=int(match["count"]) * _UNIT_SECONDS[match["unit"]])


@click.command("link", epilog=make_epilog('tokenkeeper link --customer acme --name "Acme Ltd"', needs=NEEDS))
@click.option("--customer", required=True, help="The customer of your product that the connection belongs to.")
@click.option("--name", help="The customer's name, shown to the person who connects.")
@click.option(
    "--return-to", metavar="URL", help="Where the browser goes at the end; its origin is in RETURN_TO_ORIGINS."
)
@click.option("--hub-id", type=HUB_ID, help="Only this HubSpot account may be chosen.")
@click.option("--app", "app_name", metavar="NAME", help="Which app, where the settings describe several.")
@click.option(
    "--scope", "scopes", multiple=True, help="A conditional or optional scope to ask for as well; may be repeated."
)
@click.option(
    "--expires", type=DurationType(), default="30m", show_default=True, help="From now: 90s, 30m, 2h; at most 7d."
)
@click.option("--move", "may_move", is_flag=True, help="Also take over an account that another customer has.")
@json_option
def make_link(
    *,
    customer: str,
    name: str | None,
    return_to: str | None,
    hub_id: int | None,
    app_name: str | None,
    scopes: tuple[str, ...],
    expires: timedelta,
    may_move: bool,
    as_json: bool,
) -> None:
    """Make a connect link and print it: the person who opens it connects an account for that customer.

    Anyone who has the link can use it once until it expires: pass it on like a password. Your product makes its own
    links with any JWT library and calls nothing for that.
    """
    settings = load_settings(*NEEDS)
    now = datetime.now(UTC)  # noqa: TID251  this host's clock, as in our product
    claim = CustomerClaim(customer, str(uuid.uuid4()), now + expires, may_move, hub_id)
    link = ConnectLink(claim, name, return_to, app_name, scopes)
    url, app = _sign_and_check(link, settings, now)
    if as_json:
        values = {"link": url, "jti": claim.link_id, "expires_at": claim.link_expires_at, "customer": customer}
        click.echo(to_json_line({**values, "app": app}))
    else:
        click.echo(url)
        click.echo(f"valid once, until {format_time(claim.link_expires_at)}", err=True)


def _sign_and_check(link: ConnectLink, settings: Settings, now: datetime) -> tuple[str, str]:
    """The link's URL and the name of its app. Raises click.UsageError."""
    links = ConnectLinks(settings.connect_link_keys, settings.return_to_origins)
    try:
        token = links.sign(link)
        app = find_app(links.read(token, lambda: now), settings.apps)
    except LinkRejected as rejected:
        raise click.UsageError(rejected.why) from None
    return f"{app.base_url}/connect/{token}", app.name
