"""The routes of the operator's pages, the template filters, and the pages shown when PostgreSQL does not answer.

From here: `pages` shows, `actions` changes, `view_base` is what both share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import structlog
from flask import Flask, Response, request

from shared.db.core.errors import SchemaError, StatementRejected, StoreUnavailable
from shared.db.reports.connections import ConnectionRow
from shared.domain.account import describe_account
from shared.text_format import format_ago
from web.admin import error_pages
from web.admin.actions import Actions
from web.admin.pages import Pages
from web.admin.view_base import ViewBase
from web.error_pages import ErrorPage, Link, render_error_page
from web.security.cookies import Cookies
from web.security.csrf import CsrfTokens
from web.security.rate_limits import View
from web.services import Services

log = structlog.get_logger(__name__)

#: From the endpoint of an action to the page that shows whether it was carried out.
RESULT_PAGES = {
    "refresh": "connection",
    "disconnect": "connection",
    "confirm_revocations": "overview",
    "dismiss_revocations": "overview",
}
RETRY_AFTER_SECONDS = 5


def add_routes(app: Flask, services: Services, cookies: Cookies, require_operator: Callable[[View], View]) -> None:
    view_base = ViewBase(cookies, CsrfTokens(services.secret_key, cookies, services.clock, services.hosts))
    pages, actions = Pages(services, view_base), Actions(services, view_base)

    def add(rule: str, endpoint: str, view: View, method: str = "GET") -> None:
        app.add_url_rule(rule, endpoint, require_operator(view), methods=[method], provide_automatic_options=False)

    add("/operator", "overview", pages.show_overview)
    add("/connections", "connections", pages.show_connections)
    # A plain string, not <int:hub_id>: without the password, valid and invalid numbers get the same 401.
    add("/connections/<hub_id>", "connection", pages.show_connection)
    add("/connections/<hub_id>/disconnect", "confirm_disconnect", pages.confirm_disconnect)
    add("/connections/<hub_id>/disconnect", "disconnect", actions.disconnect, "POST")
    add("/connections/<hub_id>/refresh", "refresh", actions.refresh, "POST")
    add("/operator/revocations/confirm", "confirm_revocations", actions.confirm_revocations, "POST")
    add("/operator/revocations/dismiss", "dismiss_revocations", actions.dismiss_revocations, "POST")
    app.register_error_handler(StoreUnavailable, _handle_unavailable)
    app.register_error_handler(StatementRejected, _handle_wrong_schema)
    app.register_error_handler(SchemaError, _handle_wrong_schema)
    app.jinja_env.filters.update(ago=format_ago, utc=_format_utc, iso=_format_iso, account=_describe_account)


def _handle_unavailable(error: StoreUnavailable) -> Response:
    log.warning("an operator's page could not be shown", why=str(error))
    page = error_pages.POSTGRES_UNAVAILABLE
    response = _render_with_link_back(replace(page, text=f"{page.text} ({error})"))
    response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _handle_wrong_schema(error: Exception) -> Response:
    log.error("an operator's page could not be shown", why=str(error))
    return _render_with_link_back(error_pages.WRONG_SCHEMA)


def _render_with_link_back(page: ErrorPage) -> Response:
    """With a link to the page that was asked for, or to the one that shows the result of the action."""
    endpoint = RESULT_PAGES.get(request.endpoint or "", request.endpoint or "overview")
    label = "Try again" if request.method == "GET" else "Back"
    return render_error_page(replace(page, links=(Link(endpoint, label, dict(request.view_args or {})),)))


def _format_utc(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _format_iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")


def _describe_account(connection: ConnectionRow) -> str:
    return describe_account(connection.account_name, connection.account_type, connection.region)
