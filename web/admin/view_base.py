"""What the operator's pages and actions share: rendering with a CSRF token, its check, and redirects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from flask import Response, render_template, request, url_for

from shared.db.reports.connections import ConnectionReports, ConnectionRow
from shared.domain.hub_id import parse_hub_id
from shared.domain.identity import APP_NAME
from web.admin import error_pages
from web.admin.flash_messages import FlashMessage, find_text
from web.error_pages import AbortWithPage, Link
from web.security.cookies import Cookies
from web.security.csrf import CsrfTokens, InvalidCsrfToken

#: For all queries of a page or an action together. After it, StoreUnavailable is raised and shown as an error page.
QUERY_SECONDS = 3.0


class ViewBase:
    def __init__(self, cookies: Cookies, csrf_tokens: CsrfTokens) -> None:
        self._cookies = cookies
        self._csrf_tokens = csrf_tokens

    def render(self, template: str, **context: object) -> Response:
        """A page of `templates/admin`. Its forms carry a CSRF token that is bound to this browser's cookie."""
        response = Response()
        browser_id = self._cookies.ensure_browser_id(request, response)
        context["csrf_token"] = self._csrf_tokens.issue(browser_id)
        context["notice"] = find_text(request.args.get("notice"))
        response.set_data(render_template(f"admin/{template}", **context))
        return response

    def check_csrf_token(self, back: Link) -> None:
        """Raises AbortWithPage where the form was not sent from a page of this site; its link is `back`."""
        try:
            self._csrf_tokens.check(request)
        except InvalidCsrfToken:
            raise AbortWithPage(replace(error_pages.INVALID_CSRF_TOKEN, links=(back,))) from None


@dataclass(frozen=True, slots=True)
class WantedConnection:
    """What an address says of a connection: its hub, and where several have that hub, app and user."""

    hub_id: int
    app: str | None
    user_id: int | None

    @classmethod
    def parse(cls, hub_id: str) -> Self:
        """With `app` and `user` of the query. Raises AbortWithPage where no account can have this number."""
        app = request.args.get("app") or None
        if app is not None and not APP_NAME.fullmatch(app):
            raise AbortWithPage(error_pages.UNKNOWN_CONNECTION)
        user = request.args.get("user") or None
        return cls(_parse_number(hub_id), app, None if user is None else _parse_number(user))

    @property
    def address(self) -> dict[str, object]:
        """What parse() reads: where it has led to one connection, another address with it does, too."""
        return {"hub_id": self.hub_id, "app": self.app, "user": self.user_id}

    def find(self, reports: ConnectionReports) -> list[ConnectionRow]:
        """Those that fit. Raises AbortWithPage where none does, StoreUnavailable."""
        if found := reports.find(self.hub_id, self.app, self.user_id):
            return found
        raise AbortWithPage(error_pages.UNKNOWN_CONNECTION)

    def find_one(self, reports: ConnectionReports) -> ConnectionRow:
        """Raises AbortWithPage where several fit, or none does, StoreUnavailable."""
        found = self.find(reports)
        if len(found) > 1:
            link = Link("connection", "Choose one of them", {"hub_id": self.hub_id})
            raise AbortWithPage(replace(error_pages.SEVERAL_CONNECTIONS, links=(link,)))
        return found[0]


def redirect_with_message(link: Link, message: FlashMessage) -> Response:
    """To the page that shows the result of an action."""
    return Response(status=303, headers={"Location": url_for(link.endpoint, **link.values, notice=message.value)})


def _parse_number(text: str) -> int:
    number = parse_hub_id(text)
    if number is None:
        raise AbortWithPage(error_pages.UNKNOWN_CONNECTION)
    return number
