"""Everything that can stop an operator's request, each with a way on."""

from __future__ import annotations

from dataclasses import replace

from web import error_pages
from web.error_pages import ErrorPage, Link

OVERVIEW = Link("overview", "Overview")
LIST = Link("connections", "All connections")

NO_SUCH_CONNECTION = ErrorPage(
    404,
    "There is no such connection",
    "No account of this number has ever been connected here.",
    "Look for it in the list, by its number or its domain.",
    badge="",
    links=(LIST, OVERVIEW),
)
BAD_QUERY = ErrorPage(
    400,
    "This address makes no sense",
    "A part of it is not as our pages write it: a status or an order that does not exist, or a place in the list that "
    "was cut off.",
    "Begin again at the first page.",
    badge="",
    links=(LIST, OVERVIEW),
)
NOT_FOUND = ErrorPage(
    404, "There is no such page", "The address leads nowhere.", "Go on from here:", badge="", links=(OVERVIEW, LIST)
)
BAD_REQUEST = ErrorPage(
    400,
    "We do not understand that",
    "Your browser sent something that makes no sense here.",
    "Nothing was changed. Go on from here:",
    badge="",
    links=(OVERVIEW, LIST),
)
INTERNAL_ERROR = replace(error_pages.INTERNAL_ERROR, links=(OVERVIEW, LIST))
FORGED = ErrorPage(
    403,
    "This was not done",
    "We cannot tell that the button was pressed on a page of ours, by you: the page was too old, cookies are blocked, "
    "or another site sent this.",
    "Nothing was changed. Open the page anew and press the button there.",
    badge="Refused",
)
NO_DATABASE = ErrorPage(
    503,
    "PostgreSQL does not answer",
    "These pages show what is in the database, and cannot be shown at the moment.",
    "See that it runs and that DATABASE_URL is right; “tokenkeeper doctor” says what is wrong. What was to be stored "
    "meanwhile waits, and nothing is lost. If you pressed a button: it may or may not have been heard; look before you "
    "press it again.",
    badge="Out of reach",
)
WRONG_DATABASE = ErrorPage(
    503,
    "The database is not as we need it",
    "PostgreSQL answers, but refuses what these pages ask for: its tables are older or newer than this program.",
    "Run “tokenkeeper migrate”, and “tokenkeeper doctor” if that does not help.",
    badge="Out of order",
)
