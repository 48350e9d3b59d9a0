"""What an operator can do about a connection. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from shared.db.reports.connections import ConnectionRow
from shared.domain.brake import HELD_REASON as HELD
from shared.domain.connection import Status
from shared.domain.provider import Condition, Provider
from web.admin import error_descriptions

#: How often a refusal that nobody knows is repeated before it is worth asking HubSpot about.
STUBBORN = 5

STATUS = {
    Status.ACTIVE: "HubSpot hands out tokens for it.",
    Status.SUSPECT: "HubSpot called it dead once. Its token is served until it ends, while a second witness is asked.",
    Status.REVOKED: "HubSpot ended it, two witnesses say so. No token is served.",
    Status.DISCONNECTED: "It was ended here. No token is served.",
}
PROVIDER = {
    Condition.OK: "It answers, and refreshes go on as they fall due.",
    Condition.UNAVAILABLE: "It is probed six times a minute; everything goes on by itself once it answers.",
    Condition.THROTTLED: "It asked everybody to wait; everything goes on by itself after that.",
    Condition.APP_REJECTED: "It refuses our app: check HUBSPOT_CLIENT_ID and HUBSPOT_CLIENT_SECRET, then restart "
    "worker and web. No connection is lost meanwhile.",
}


@dataclass(frozen=True, slots=True)
class Advice:
    title: str
    text: str
    link: bool = False  #: the link to install again helps


DISCONNECTED = Advice(
    "Nothing, unless it should come back",
    "Then the customer has to install the app again. Send them this link; it leads to their account.",
    link=True,
)
REVOKED = Advice(
    "Have the customer install again",
    "Somebody removed the app in HubSpot, or HubSpot ended its access. Send the customer this link; it leads to their "
    "account. If HubSpot was wrong, “Refresh now” tries the old grant once more. If the customer is gone for good, "
    "disconnect.",
    link=True,
)
ANOTHER_HUB = Advice(
    "Correct the import",
    "The refresh token that was imported for this account belongs to another one. Import the right one, or send the "
    "customer this link to install again.",
    link=True,
)
ON_HOLD = Advice(
    "Decide for all of them on the overview",
    "HubSpot called very many connections dead at once, so the brake holds them. Find out whether it is right, then "
    "confirm or dismiss there.",
)
APP = Advice(
    "Check the app's settings",
    "HubSpot refuses our app, not this account: compare HUBSPOT_CLIENT_ID and HUBSPOT_CLIENT_SECRET with the app's "
    "page at HubSpot, and restart worker and web. It goes on by itself then.",
)
KEY = Advice(
    "Put the key back",
    "Add the key that is missing to TOKEN_KEYS and restart worker and web: it goes on by itself then. If the key is "
    "lost, send the customer this link to install again.",
    link=True,
)
SUSPECT = Advice(
    "Nothing yet",
    "Both witnesses, HubSpot's token endpoint and its introspection, are asked again. If both call it dead, it becomes "
    "revoked; if one says that it lives, it goes on as before.",
)
UNAVAILABLE = Advice("Nothing", "HubSpot does not answer at the moment. It goes on by itself once it does.")
THROTTLED = Advice("Nothing", "HubSpot asked everybody to wait. It goes on by itself after that.")
MOVING = Advice("Nothing", "HubSpot says how long the move takes, and it is asked again then.")
UNKNOWN = Advice(
    "Ask HubSpot, if it goes on",
    "HubSpot refuses in words that we do not know; it is tried again at least every 15 minutes. HubSpot's support can "
    "look it up by the correlation id in the history below.",
)
AGAIN = Advice(
    "Nothing", "It is tried again by itself: after some seconds at first, then ever later, at most 15 minutes apart."
)
FIRST = Advice("Nothing", "Its first token is fetched with the next sweep.")
FINE = Advice("Nothing", "It is refreshed well before its token ends, for as long as the app is installed.")

BY_STATUS = {Status.DISCONNECTED: DISCONNECTED, Status.REVOKED: REVOKED}
BY_CODE = {"another_hub": ANOTHER_HUB, "sealed_with_unknown_key": KEY, **dict.fromkeys(error_descriptions.OURS, APP)}
BY_CONDITION = {Condition.UNAVAILABLE: UNAVAILABLE, Condition.THROTTLED: THROTTLED}


def advice(seen: ConnectionRow, provider: Provider) -> Advice:
    """The one thing that helps most."""
    code = error_descriptions.code(seen.last_error or "")
    return BY_STATUS.get(seen.status) or _to_do(seen, provider, code) or _to_expect(seen, provider, code)


def _to_do(seen: ConnectionRow, provider: Provider, code: str) -> Advice | None:
    if seen.status_reason == HELD:
        return ON_HOLD
    if provider.condition is Condition.APP_REJECTED:
        return APP
    if seen.failures >= STUBBORN and code not in error_descriptions.MEANING:
        return UNKNOWN
    return BY_CODE.get(code)


def _to_expect(seen: ConnectionRow, provider: Provider, code: str) -> Advice:
    """Where there is nothing to do: what will happen by itself."""
    if seen.status is Status.SUSPECT:
        return SUSPECT
    if elsewhere := BY_CONDITION.get(provider.condition):
        return elsewhere
    if seen.failures:
        return MOVING if code in error_descriptions.MOVING else AGAIN
    return FINE if seen.expires_at else FIRST
