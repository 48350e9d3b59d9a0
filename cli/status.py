"""`tokenkeeper status`: one screen that says whether all is well."""

from __future__ import annotations

from datetime import datetime

import click

from cli.ready import database, settings
from cli.terminal import ago, example, harmless
from shared.db.roster import Overview, Roster
from shared.domain.connection import Status
from shared.domain.provider import Condition

#: What each state of HubSpot means for whoever reads it, where it is not well.
MEANING = {
    Condition.UNAVAILABLE: "it is probed a few times a minute; everything resumes by itself",
    Condition.THROTTLED: "it asked everybody to wait; everything resumes by itself",
    Condition.APP_REJECTED: "it refuses our app: check HUBSPOT_CLIENT_ID and HUBSPOT_CLIENT_SECRET",
}


@click.command(epilog=example("tokenkeeper status"))
def status() -> None:
    """Say on one screen how the connections, HubSpot and the sweep are doing."""
    with database(settings("DATABASE_URL")) as engine:
        overview = Roster(engine).overview()
    for name, text in lines(overview):
        click.echo(f"{name:<16}{text}")


def lines(overview: Overview) -> list[tuple[str, str]]:
    """What the screen says, by name."""
    now = overview.now
    soonest = overview.soonest_expiry
    return [
        ("connections", _counts(overview)),
        ("failing", f"{overview.failing:,} whose last attempt brought no token"),
        (
            "soonest expiry",
            f"{ago(soonest, now)} ({soonest:%Y-%m-%d %H:%M:%S %Z})" if soonest else "no token is served",
        ),
        ("backlog", _backlog(overview)),
        ("HubSpot", _provider(overview)),
        ("brake", _brake(overview)),
        ("last success", ago(overview.last_success_at, now) if overview.last_success_at else "none yet"),
        ("last sweep", ago(overview.swept_at, now) if overview.swept_at else "never: start worker and beat"),
    ]


def _counts(overview: Overview) -> str:
    total = sum(overview.counts.values())
    return f"{total:,}: " + ", ".join(f"{overview.counts[status]:,} {status}" for status in Status)


def _backlog(overview: Overview) -> str:
    if not overview.due or overview.soonest_due is None:
        return "nothing is due"
    return f"{overview.due:,} due, the first of them {ago(overview.soonest_due, overview.now)}"


def _since(since: datetime | None, now: datetime) -> str:
    return f" since {since:%Y-%m-%d %H:%M:%S %Z} ({ago(since, now)})" if since else ""


def _brake(overview: Overview) -> str:
    if overview.brake_since is None:
        return "off"
    held = f"{overview.held:,} held suspect instead of revoked, see: tokenkeeper revocations"
    return f"ON{_since(overview.brake_since, overview.now)}: {held}"


def _provider(overview: Overview) -> str:
    provider = overview.provider
    parts = [f"{provider.condition}{_since(provider.since, overview.now)}"]
    if provider.paused_until and provider.paused_until > overview.now:
        parts.append(f"paused, resumes {ago(provider.paused_until, overview.now)}")
    if provider.condition is Condition.OK:
        parts += [f"ramping up, {provider.rate:g} refreshes a second"] if provider.rate else []
    else:
        parts += [harmless(provider.reason or "no reason given"), MEANING[provider.condition]]
    return ", ".join(parts)
