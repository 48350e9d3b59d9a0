"""The pages of requests from HubSpot's Marketplace that fail."""

from __future__ import annotations

from web.error_pages import ErrorPage

RETURN_URL_REFUSED = ErrorPage(
    400,
    "HubSpot's address is not one that this site knows",
    "HubSpot's Marketplace sends an address to return to. This one is missing, or leads elsewhere than to HubSpot.",
    "Nothing was connected. Please start again from HubSpot's Marketplace.",
    links=(),
)
STATE_REFUSED = ErrorPage(
    400,
    "This installation cannot be finished",
    "It took longer than ten minutes, was finished already, or was begun elsewhere.",
    "Please start again from HubSpot's Marketplace.",
    links=(),
)
APP_MISSING = ErrorPage(
    404,
    "There is no such app here",
    "HubSpot's Marketplace sent you to an address of an app that this site does not have.",
    "The people who run this site have to correct the install URL of the app's listing.",
    badge="",
    links=(),
)
