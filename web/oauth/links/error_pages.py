"""The pages of requests with a connect link that fail."""

from __future__ import annotations

from web.error_pages import FRONT_PAGE, ErrorPage

#: In place of an advice to start again: without a link that would connect the account for no customer.
FROM_PRODUCT = "Go back to where the link came from, and start from there. Nothing was connected by this."

LINKS_OFF = ErrorPage(
    404,
    "This site accepts no such links",
    "Links that connect an account for a customer are turned off here.",
    "The people who run this site turn them on by the setting CONNECT_LINK_KEYS.",
    badge="",
    links=(FRONT_PAGE,),
)
LINK_FORGED = ErrorPage(
    400,
    "This link is not valid",
    "It was not made for this site, or a part of it was changed or lost on the way.",
    FROM_PRODUCT,
    links=(),
)
LINK_MALFORMED = ErrorPage(
    400,
    "This link was made incorrectly",
    "It is genuine, but something in it is not as this site needs it. The people who run this site find in their log "
    "what that is.",
    FROM_PRODUCT,
    links=(),
)
LINK_EXPIRED = ErrorPage(
    410,
    "This link has expired",
    "For your safety such a link works for a short time only.",
    FROM_PRODUCT,
    links=(),
    reason="link_expired",
)
LINK_SPENT = ErrorPage(
    410,
    "This link was used already",
    "Such a link connects one account, once. If it was you who used it, your account is connected already.",
    "Go back to where the link came from: it shows what is connected, and makes a new link.",
    badge="",
    links=(),
    reason="link_spent",
)
LINK_REQUIRED = ErrorPage(
    403,
    "Please start in the product",
    "Here accounts are connected by a personal link, which the product makes for its customers.",
    "Sign in to the product, and connect your HubSpot account from there.",
    badge="",
    links=(),
)
#: The text names the account that was asked for.
WRONG_ACCOUNT = ErrorPage(
    409,
    "That was another account",
    "This link is for the HubSpot account {wanted}, and you chose {chosen}. Nothing was stored.",
    "Start again from the product, and choose {wanted} at HubSpot.",
    links=(),
    reason="wrong_account",
)
WRONG_ACCOUNT_ADVICE = {
    "uninstalled": " The app was removed again from {chosen}.",
    "connected_before": " {chosen} was connected before and stays so.",
    "left": " The app could not be removed from {chosen}: please uninstall it there, in HubSpot under Connected Apps.",
}
