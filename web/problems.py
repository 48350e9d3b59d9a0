"""Everything that can stop an install, as a person is told it: what happened, what to do now, and the way there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shared.domain.errors import (
    CodeRejected,
    InvalidClient,
    ProviderError,
    TemporarilyUnavailable,
    Throttled,
)


@dataclass(frozen=True, slots=True)
class Way:
    """A way on: a page of ours, and what its link says."""

    endpoint: str
    words: str
    values: dict[str, Any] = field(default_factory=dict)


START_AGAIN, FRONT_PAGE = Way("start", "Start again"), Way("home", "Front page")


@dataclass(frozen=True, slots=True)
class Problem:
    status: int
    title: str
    text: str
    advice: str = "Nothing was stored. You can start again."
    badge: str = "Not connected"
    ways: tuple[Way, ...] = (START_AGAIN, FRONT_PAGE)  #: the best one first


class AbortWithPage(Exception):
    """Ends a request with the page of a problem."""

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        """`retry_after` in seconds."""
        super().__init__(problem.title)
        self.problem = problem
        self.retry_after = retry_after


BAD_HUB_ID = Problem(
    400,
    "That is not a HubSpot account number",
    "An account number (hub ID) is made of digits only, such as 62515. HubSpot shows it in the account menu.",
    "Correct the number, or leave it out and choose the account at HubSpot.",
)
MALFORMED = Problem(
    400,
    "This link is damaged",
    "HubSpot sends you back here with a link. This one is not as HubSpot writes it: a part may have been lost.",
)
DENIED = Problem(
    403,
    "You did not allow the connection",
    "HubSpot says that access was denied, so your account was not connected.",
    "Nothing was stored. If that was not what you wanted, start again and choose to allow it.",
)
NOT_GRANTED = Problem(
    400,
    "HubSpot did not grant the connection",
    "HubSpot ended this sign-in with an error. The account may lack something that this app needs, "
    "or you may lack the right to install apps in it.",
    "Nothing was stored. Start again, perhaps with another account, or ask a super admin of the account to do it.",
)
STATE_FORGED = Problem(
    400,
    "This link is damaged",
    "We cannot tell which sign-in this answer of HubSpot belongs to: a part of the link was changed or lost.",
)
STATE_EXPIRED = Problem(
    400,
    "That took too long",
    "For your safety a sign-in has to be finished within 15 minutes.",
)
OTHER_BROWSER = Problem(
    403,
    "This sign-in was begun in another browser",
    "A sign-in has to be finished in the browser in which it was begun, with cookies allowed.",
    "Nothing was stored. Start again here, and finish in this browser.",
)
STATE_LOST = Problem(
    400,
    "HubSpot's answer does not say what it belongs to",
    "We began again several times, and each time a part of the link was lost on the way back.",
)
NO_CODE = Problem(
    400,
    "HubSpot's answer is incomplete",
    "The link that brought you back lacks the code that we need to finish the connection.",
)
CODE_REJECTED = Problem(
    400,
    "This sign-in cannot be used again",
    "HubSpot gives out a code that works once and for a short while. This one was used already, or is too old.",
)
APP_REJECTED = Problem(
    502,
    "This app is not set up correctly",
    "HubSpot refused our app, not you: its settings here do not match those at HubSpot.",
    "Nothing was stored. Only whoever runs this site can mend it; please tell them. Then start again.",
)
REFUSED = Problem(
    502,
    "HubSpot refused the connection",
    "HubSpot answered with a refusal that we do not know. The people who run this site find it in their log.",
)
UNWELL = Problem(
    502,
    "HubSpot does not answer as it should",
    "HubSpot, or the way there, has a problem at the moment. Your account was not connected.",
    "Nothing was stored. Wait a moment and reload this page; if that does not help, start again.",
)
SLOW = Problem(
    504,
    "HubSpot takes too long to answer",
    "We waited for HubSpot, and no answer came. Your account was not connected.",
    UNWELL.advice,
)
BUSY = Problem(
    503,
    "HubSpot asks us to wait",
    "HubSpot has too much to do at the moment and asked us to come back later.",
    UNWELL.advice,
)
UNKEEPABLE = Problem(
    503,
    "We cannot keep your connection just now",
    "HubSpot allowed the connection, but our database and our queue are both out of reach.",
    "Nothing was stored. Please start again in a few minutes.",
)
TOO_OFTEN = Problem(
    429,
    "That was too often",
    "From your address, or from that of your office, we were asked more often than people do.",
    "Nothing was lost or stored. Wait a few seconds, then reload this page.",
    badge="",
)
NO_SUCH_INSTALL = Problem(
    404,
    "There is no such connection here",
    "Only the browser that made a connection can see its page, and only for a day.",
    "If your account is connected already, it stays so. Connecting it again does no harm.",
    badge="",
)
NOT_FOUND = Problem(404, "There is no such page", "The address leads nowhere.", "You can start here:", badge="")
BAD_REQUEST = Problem(
    400, "We do not understand that", "Your browser sent something that makes no sense here.", badge=""
)
BUG = Problem(
    500,
    "Something went wrong on our side",
    "This is our fault, not yours. The people who run this site find it in their log.",
    "You can try again.",
    badge="",
)


def of(error: ProviderError) -> AbortWithPage:
    """What became of an exchange that brought no grant."""
    if isinstance(error, CodeRejected):
        return AbortWithPage(CODE_REJECTED)
    if isinstance(error, InvalidClient):
        return AbortWithPage(APP_REJECTED)
    if isinstance(error, Throttled) or error.retry_after is not None:
        return AbortWithPage(BUSY, error.retry_after)
    if isinstance(error, TemporarilyUnavailable):
        return AbortWithPage(SLOW if error.code == "timeout" else UNWELL)
    return AbortWithPage(REFUSED)
