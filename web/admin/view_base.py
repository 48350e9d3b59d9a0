"""What the operator's pages and actions share: rendering with a CSRF token, its check, and redirects."""

from __future__ import annotations

from dataclasses import replace

from flask import Response, render_template, request, url_for

from shared.domain.hub_id import parse_hub_id
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


def parse_hub_id_or_abort(text: str) -> int:
    """Raises AbortWithPage where no account can have this number."""
    hub_id = parse_hub_id(text)
    if hub_id is None:
        raise AbortWithPage(error_pages.UNKNOWN_CONNECTION)
    return hub_id


def redirect_with_message(link: Link, message: FlashMessage) -> Response:
    """To the page that shows the result of an action."""
    return Response(status=303, headers={"Location": url_for(link.endpoint, **link.values, notice=message.value)})
