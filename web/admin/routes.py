"""Where the operator's pages are, and what they say where PostgreSQL does not answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import structlog
from flask import Flask, Response, request

from shared.db.core.errors import SchemaError, StatementRejected, StoreUnavailable
from shared.text_format import format_ago, format_duration, make_printable
from web.admin import problems
from web.admin.actions import Actions
from web.admin.pages import Pages
from web.admin.view_base import ViewBase
from web.error_pages import ErrorPage, Link, render_error_page
from web.security.cookies import Cookies
from web.security.csrf import CsrfTokens
from web.security.rate_limits import View
from web.services import Services

log = structlog.get_logger(__name__)

#: The page that shows what an order is about: there one looks whether it was heard.
SHOWS = {"refresh": "connection", "disconnect": "connection", "confirm": "overview", "dismiss": "overview"}


def add_routes(app: Flask, services: Services, cookies: Cookies, guarded: Callable[[View], View]) -> None:
    screen = ViewBase(cookies, CsrfTokens(services.secret_key, cookies, services.clock))
    pages, orders = Pages(services, screen), Actions(services, screen)

    def add(rule: str, name: str, view: View, method: str = "GET") -> None:
        app.add_url_rule(rule, name, guarded(view), methods=[method], provide_automatic_options=False)

    add("/operator", "overview", pages.overview)
    add("/connections", "connections", pages.connections)
    # Not <int:…>: whether a number is one of an account is the operator's to know.
    add("/connections/<hub_id>", "connection", pages.connection)
    add("/connections/<hub_id>/disconnect", "question", pages.question)
    add("/connections/<hub_id>/disconnect", "disconnect", orders.disconnect, "POST")
    add("/connections/<hub_id>/refresh", "refresh", orders.refresh, "POST")
    add("/operator/revocations/confirm", "confirm", orders.confirm, "POST")
    add("/operator/revocations/dismiss", "dismiss", orders.dismiss, "POST")
    app.register_error_handler(StoreUnavailable, _no_database)
    app.register_error_handler(StatementRejected, _wrong_database)
    app.register_error_handler(SchemaError, _wrong_database)
    app.jinja_env.filters.update(ago=format_ago, harmless=make_printable, span=format_duration, utc=_utc, iso=_iso)


def _no_database(error: StoreUnavailable) -> Response:
    log.warning("an operator's page could not be shown", why=str(error))
    response = _with_link(replace(problems.NO_DATABASE, text=f"{problems.NO_DATABASE.text} ({error})"))
    response.headers["Retry-After"] = "5"
    return response


def _wrong_database(error: Exception) -> Response:
    log.error("an operator's page could not be shown", why=str(error))
    return _with_link(problems.WRONG_DATABASE)


def _with_link(page: ErrorPage) -> Response:
    endpoint = SHOWS.get(request.endpoint or "", request.endpoint or "overview")
    here = Link(endpoint, "Try again" if request.method == "GET" else "Back", dict(request.view_args or {}))
    return render_error_page(replace(page, links=(here,)))


def _utc(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")
