"""The error pages of the operator's pages: what happened, what to do now, and links."""

from __future__ import annotations

from dataclasses import replace

from web import error_pages
from web.error_pages import ErrorPage, Link

OVERVIEW = Link("overview", "Overview")
LIST = Link("connections", "All connections")

UNKNOWN_CONNECTION = ErrorPage(
    404,
    "There is no such connection",
    "No account with this number was ever connected here.",
    "Search the list by account number, name or domain.",
    badge="",
    links=(LIST, OVERVIEW),
)
SEVERAL_CONNECTIONS = ErrorPage(
    400,
    "Several connections have this account",
    "The account is connected by several apps or users, and the request does not say which of them is meant. Nothing "
    "was changed.",
    "Choose one of them, and press the button there.",
    badge="",
    links=(LIST, OVERVIEW),
)
INVALID_LIST_PARAMS = ErrorPage(
    400,
    "This address is not valid",
    "It names a status or an order that does not exist, or its end was cut off.",
    "Begin again at the first page of the list.",
    badge="",
    links=(LIST, OVERVIEW),
)
NOT_FOUND = ErrorPage(
    404,
    "There is no such page",
    "The address is not one of this site.",
    "Continue here:",
    badge="",
    links=(OVERVIEW, LIST),
)
BAD_REQUEST = ErrorPage(
    400,
    "This request is not valid",
    "Your browser sent a request that this page does not accept. Nothing was changed.",
    "Continue here:",
    badge="",
    links=(OVERVIEW, LIST),
)
INTERNAL_ERROR = replace(error_pages.INTERNAL_ERROR, links=(OVERVIEW, LIST))
INVALID_CSRF_TOKEN = ErrorPage(
    403,
    "The action was refused",
    "It cannot be verified that you pressed the button on a page of this site: the page was too old, cookies are "
    "blocked, or another site sent the request. Nothing was changed.",
    "Open the page again and press the button there.",
    badge="Refused",
)
POSTGRES_UNAVAILABLE = ErrorPage(
    503,
    "PostgreSQL does not answer",
    "These pages show what is in the database, and it cannot be read at the moment.",
    "Check that PostgreSQL runs and that DATABASE_URL is right; “tokenkeeper doctor” says what is wrong. New installs "
    "wait and are not lost. If you pressed a button, the action may or may not have been carried out: look at the "
    "page before you press it again.",
    badge="Unavailable",
)
WRONG_SCHEMA = ErrorPage(
    503,
    "The database has another schema",
    "PostgreSQL answers but refuses the queries of these pages: its tables are older or newer than this program.",
    "Run “tokenkeeper migrate”, and “tokenkeeper doctor” if that does not help.",
    badge="Unavailable",
)
