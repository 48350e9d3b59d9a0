"""The page of a request that failed: what happened, what to do now, and links.

The texts of failed requests are here, and in the `error_pages` of `web/admin`, `web/oauth/links` and
`web/oauth/marketplace`. Texts of pages that succeed are in the templates and in `web/admin`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from flask import Response, render_template, request

from shared.domain.errors import (
    InvalidClient,
    ProviderError,
    TemporarilyUnavailable,
    Throttled,
)

#: Error pages below these paths are shown in the frame of the operator's pages.
ADMIN_PATHS = ("/operator", "/connections")


@dataclass(frozen=True, slots=True)
class Link:
    endpoint: str  #: of Flask
    label: str
    values: dict[str, Any] = field(default_factory=dict)  #: the endpoint's parameters


START_AGAIN, FRONT_PAGE = Link("start", "Start again"), Link("home", "Front page")


@dataclass(frozen=True, slots=True)
class ErrorPage:
    status: int
    title: str
    text: str
    advice: str = "This attempt stored nothing. You can start again."
    badge: str = "Not finished"
    links: tuple[Link, ...] = (START_AGAIN, FRONT_PAGE)  #: the first is shown as a button
    #: What our product is told where it sent the person by a connect link; "": it is not, and the page is shown.
    reason: str = ""


class AbortWithPage(Exception):
    """Ends the request with this error page."""

    def __init__(
        self,
        page: ErrorPage,
        retry_after: float | None = None,
        *,
        refresh_seconds: float | None = None,
        hub_id: int | None = None,
    ) -> None:
        """`retry_after` in seconds, for the header of that name; after `refresh_seconds` the browser asks again.

        `hub_id`: the account that the person chose, where it is known.
        """
        super().__init__(page.title)
        self.page = page
        self.retry_after = retry_after
        self.refresh_seconds = refresh_seconds
        self.hub_id = hub_id


@contextmanager
def start_again_with(app: str | None) -> Iterator[None]:
    """The page of a request that fails inside begins again with this app; None: no app needs to be named."""
    try:
        yield
    except AbortWithPage as failure:
        links = tuple(
            replace(link, values={"app": app}) if app and link.endpoint == "start" else link
            for link in failure.page.links
        )
        failure.page = replace(failure.page, links=links)
        raise


def render_error_page(page: ErrorPage) -> Response:
    frame = "admin/base.html" if is_admin_path(request.path) else "base.html"
    return Response(render_template("error.html", page=page, frame=frame), page.status)


def is_admin_path(path: str) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in ADMIN_PATHS)


def classify_exchange_error(error: ProviderError) -> AbortWithPage:
    """The page for an exchange of a code that brought no grant."""
    if isinstance(error, InvalidClient):
        return AbortWithPage(APP_MISCONFIGURED)
    if isinstance(error, Throttled) or error.retry_after is not None:
        return AbortWithPage(HUBSPOT_THROTTLES, error.retry_after)
    if isinstance(error, TemporarilyUnavailable):
        return AbortWithPage(HUBSPOT_TIMED_OUT if error.code == "timeout" else HUBSPOT_UNAVAILABLE)
    return AbortWithPage(UNKNOWN_REFUSAL)


# The handshake: the browser sent something wrong.

INVALID_HUB_ID = ErrorPage(
    400,
    "That is not a HubSpot account number",
    "An account number (hub ID) is made of digits only, such as 62515. HubSpot shows it in the account menu.",
    "Correct the number, or leave it out and choose the account at HubSpot.",
)
UNKNOWN_APP = ErrorPage(
    404,
    "There is no such app here",
    "The link names an app that this site does not offer: it is misspelled, or the app was taken away.",
    "Nothing was changed. The front page shows what can be connected.",
    links=(Link("home", "Front page"),),
)
MALFORMED_LINK = ErrorPage(
    400,
    "This link is damaged",
    "HubSpot sends you back here with a link. This one is not in HubSpot's format: a part may have been lost.",
)
STATE_INVALID = ErrorPage(
    400,
    "This link is damaged",
    "The link does not say which sign-in it belongs to: a part of it was changed or lost.",
)
STATE_EXPIRED = ErrorPage(
    400,
    "That took too long",
    "For your safety a sign-in has to be finished within 15 minutes.",
    reason="expired",
)
STATE_MISSING = ErrorPage(
    400,
    "HubSpot's answer does not say what it belongs to",
    "The sign-in was restarted several times, and each time a part of the link was lost on the way back.",
)
OTHER_BROWSER = ErrorPage(
    403,
    "This sign-in was begun in another browser",
    "A sign-in has to be finished in the browser in which it was begun, with cookies allowed.",
    "This attempt stored nothing. Start again here, and finish in this browser.",
)
CODE_MISSING = ErrorPage(
    400,
    "HubSpot's answer is incomplete",
    "The link that brought you back lacks the code that is needed to finish the connection.",
)

# The handshake: HubSpot granted nothing.

CONSENT_DENIED = ErrorPage(
    403,
    "You did not allow the connection",
    "HubSpot says that access was denied, so this attempt did not connect your account.",
    "This attempt stored nothing. If that was not what you wanted, start again and choose to allow it.",
    reason="access_denied",
)
CONSENT_FAILED = ErrorPage(
    400,
    "HubSpot did not grant the connection",
    "HubSpot ended this sign-in with an error. The account may lack something that this app needs, "
    "or you may lack the right to install apps in it.",
    "This attempt stored nothing. Start again, perhaps with another account, or ask a super admin of the account to "
    "do it.",
    reason="consent_failed",
)
CODE_REJECTED = ErrorPage(
    400,
    "This sign-in cannot be used again",
    "HubSpot gives out a code that works once and for a short while. This one was used already, or is too old.",
    "If you came here twice, by a double click or a reload, your account may be connected already: for a few seconds "
    "this page looks for it. Otherwise start again; connecting an account again does no harm.",
    badge="",
    reason="code_rejected",
)
EXCHANGE_WAITS = ErrorPage(
    503,
    "One moment, please",
    "Many sign-ins are being finished at this moment. Yours waits here and continues by itself.",
    "Nothing is lost. Please keep this page open.",
    badge="",
    links=(),
)
TOO_MANY_CODES = ErrorPage(
    429,
    "One moment, please",
    "HubSpot rejected many sign-ins that came from your address, or that of your office. Yours waits here "
    "and continues by itself.",
    "Nothing is lost. Please keep this page open, or start again a little later.",
    badge="",
)
APP_MISCONFIGURED = ErrorPage(
    502,
    "This app is not set up correctly",
    "HubSpot refused this app, not you: its settings here do not match those at HubSpot.",
    "This attempt stored nothing. Only the people who run this site can correct it: please tell them, "
    "then start again.",
    reason="app_misconfigured",
)
UNKNOWN_REFUSAL = ErrorPage(
    502,
    "HubSpot refused the connection",
    "HubSpot answered with a refusal that this site does not know. The people who run it find it in their log.",
    reason="hubspot_refused",
)
HUBSPOT_UNAVAILABLE = ErrorPage(
    502,
    "HubSpot does not answer as it should",
    "HubSpot, or the network between, has a problem at the moment. This attempt did not connect your account.",
    "This attempt stored nothing. Wait a moment and reload this page; if that does not help, start again.",
    reason="hubspot_unavailable",
)
HUBSPOT_TIMED_OUT = ErrorPage(
    504,
    "HubSpot takes too long to answer",
    "HubSpot did not answer in time. This attempt did not connect your account.",
    HUBSPOT_UNAVAILABLE.advice,
    reason="hubspot_timed_out",
)
HUBSPOT_THROTTLES = ErrorPage(
    503,
    "HubSpot asks us to wait",
    "HubSpot has too much to do at the moment and asked this site to come back later.",
    HUBSPOT_UNAVAILABLE.advice,
    reason="hubspot_throttles",
)

# After the handshake.

NOT_STORED = ErrorPage(
    503,
    "We cannot store your connection just now",
    "HubSpot allowed the connection, but neither the database nor the queue of this site answers in time.",
    "Please start again in a few minutes. Connecting an account again does no harm.",
    reason="not_stored",
)
INSTALL_NOT_FOUND = ErrorPage(
    404,
    "There is no such connection here",
    "Only the browser that made a connection can see its page, for a day, and of many connections the last ones only.",
    "If your account is connected already, it stays so. Connecting it again does no harm.",
    badge="",
)

# Any page.

RATE_LIMITED = ErrorPage(
    429,
    "That was too often",
    "Your address, or that of your office, sent more requests than people do.",
    "Nothing is lost. Wait a few seconds: this page reloads itself.",
    badge="",
)
NOT_FOUND = ErrorPage(
    404,
    "There is no such page",
    "No page has this address.",
    advice="",
    badge="",
    links=(Link("home", "Connect an account"),),
)
BAD_REQUEST = ErrorPage(
    400, "We do not understand that", "Your browser sent a request that this site cannot read.", badge=""
)
INTERNAL_ERROR = ErrorPage(
    500,
    "Something went wrong on our side",
    "This is our fault, not yours. The people who run this site find it in their log.",
    "You can try again.",
    badge="",
)

# Pages behind the operator's password.

SIGN_IN = ErrorPage(
    401,
    "This page requires the operator's password",
    "It shows the state of the connections. To read it, sign in as the user “operator”.",
    "The password is the setting OPERATOR_PASSWORD. “make up” prints it; in the containers it is in the file "
    "/run/tokenkeeper/OPERATOR_PASSWORD. Reload this page to be asked for it.",
    badge="",
    links=(FRONT_PAGE,),
)
TOO_MANY_WRONG_PASSWORDS = ErrorPage(
    429,
    "Too many wrong passwords",
    "Several wrong passwords in a row came from your address. For a moment no password from it is checked, "
    "not even the right one.",
    "Wait a few seconds, then reload this page.",
    badge="",
    links=(FRONT_PAGE,),
)
