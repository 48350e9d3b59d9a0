"""What operators are told of: each kind of alert in words, and how often anybody is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any


class AlertKind(StrEnum):
    """Each is told when it begins, and once more, as recovered, when it is over."""

    #: HubSpot as a whole: `detail` has state, before and reason
    PROVIDER = "provider"
    #: HubSpot ended connections: `detail` has count and hubs, the first of them
    REVOKED = "connection_revoked"
    #: tokens end without a refresh having worked: `detail` has count and hubs, the first of them
    STALE = "stale_connections"
    #: more connections were called dead than is plausible
    BRAKE = "revocation_brake"


@dataclass(frozen=True, slots=True)
class Alert:
    """One change, told under one id however often it takes to get through."""

    id: str
    kind: AlertKind
    at: datetime
    recovered: bool = False
    subject: str = ""  #: whom it is about, where that is one thing: a hub
    detail: dict[str, Any] = field(default_factory=dict)
    attempts: int = 0  #: how often it was posted, this time included
    summarized_count: int = 0  #: earlier changes of this kind that are not posted: too many waited


#: Seconds between the tries to post an alert: the first, and the longest. Doubled each time.
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 2.0, 3600.0
#: After so long nobody is waiting for it any more.
GIVE_UP_AFTER = timedelta(hours=24)
#: How far back `pause` looks.
RECENT_WINDOW = timedelta(minutes=10)
#: Seconds between the first and the second message of a kind; doubled with each further one.
FIRST_PAUSE_SECONDS = 10.0


def post_retry_seconds(attempts: int) -> float:
    """Seconds until the next try after `attempts` in vain (at least 1)."""
    return min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(attempts - 1, 30))


def pause_seconds(recent_alerts: int) -> float:
    """Seconds that must have passed since the last message of a kind, of which there were so many RECENT_WINDOW.

    The first is told at once; a hundred in ten minutes become seven, each of which sums what came meanwhile.
    """
    return FIRST_PAUSE_SECONDS * 2.0 ** min(recent_alerts - 1, 6) if recent_alerts else 0.0


def describe_alert(alert: Alert) -> str:
    """One message for people, as Slack shows it. Bare of anything that HubSpot could make a link or a mention of."""
    said = _OVER[alert.kind] if alert.recovered else _BEGUN[alert.kind]
    plain = said(alert.detail).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    before = (
        f" ({alert.summarized_count} changes before it were not sent one by one.)" if alert.summarized_count else ""
    )
    return f"tokenkeeper: {plain}{before}"


def _provider(detail: dict[str, Any]) -> str:
    said = {
        "unavailable": "HubSpot does not answer ({reason}). Tokens are served until they end; HubSpot is asked six "
        "times a minute, and refreshes go on by themselves once it answers.",
        "throttled": "HubSpot asks everybody to wait ({reason}). Refreshes go on when the wait is over.",
        "app_rejected": "HubSpot refuses our app ({reason}). No connection is lost by that. Check HUBSPOT_CLIENT_ID "
        "and HUBSPOT_CLIENT_SECRET; refreshes go on by themselves once they are right.",
    }
    form = said.get(str(detail.get("state")), "HubSpot is not well ({reason}).")
    return form.format(reason=detail.get("reason") or "no reason given")


def _provider_over(detail: dict[str, Any]) -> str:
    was = ", ".join(str(detail[name]) for name in ("before", "reason") if detail.get(name))
    return f"HubSpot is well again (it was: {was}). Refreshes go on."


def _revoked(detail: dict[str, Any]) -> str:
    return (
        f"HubSpot ended {_connections(detail)}; two witnesses say so. No token of theirs is served any more. "
        "Ask the customer to install the app again; where HubSpot was wrong: tokenkeeper refresh HUB."
    )


def _revoked_over(detail: dict[str, Any]) -> str:
    return f"no longer revoked (installed again, refreshed after all, or disconnected): {_connections(detail)}."


def _stale(detail: dict[str, Any]) -> str:
    return (
        f"no refresh works for {_connections(detail)}: tokens are about to end, or have ended. See: tokenkeeper status."
    )


def _stale_over(_detail: dict[str, Any]) -> str:
    return "no connection's token is about to end any more."


def _brake(detail: dict[str, Any]) -> str:
    held = f" {detail['held']} are held so far." if detail.get("held") else ""
    return (
        f"the revocation brake is on: HubSpot calls more connections dead than is plausible.{held} They stay "
        "suspect and are served while their tokens live, until you say: tokenkeeper revocations confirm, or dismiss."
    )


def _brake_over(detail: dict[str, Any]) -> str:
    said = next((f": {detail[word]} {word}" for word in ("confirmed", "dismissed") if word in detail), "")
    return f"the revocation brake is off again{said}."


def _connections(detail: dict[str, Any]) -> str:
    count, hubs = int(detail.get("count", 0)), list(detail.get("hubs", ()))
    named = ", ".join(str(hub) for hub in hubs)
    more = f" and {count - len(hubs)} more" if count > len(hubs) else ""
    return f"{count} connection{'' if count == 1 else 's'} ({'hub' if count == 1 else 'hubs'} {named}{more})"


_BEGUN = {
    AlertKind.PROVIDER: _provider,
    AlertKind.REVOKED: _revoked,
    AlertKind.STALE: _stale,
    AlertKind.BRAKE: _brake,
}
_OVER = {
    AlertKind.PROVIDER: _provider_over,
    AlertKind.REVOKED: _revoked_over,
    AlertKind.STALE: _stale_over,
    AlertKind.BRAKE: _brake_over,
}
