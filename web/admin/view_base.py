"""What all of the operator's pages have in common: they are shown to a browser that we know, and are asked in time."""

from __future__ import annotations

from dataclasses import replace

from flask import Response, render_template, request, url_for

from shared.domain.hub_id import parse_hub_id
from web.admin import problems
from web.admin.flash_messages import FlashMessage, sentence
from web.error_pages import AbortWithPage, Link
from web.security.cookies import Cookies
from web.security.csrf import CsrfTokens, InvalidCsrfToken

#: Seconds that PostgreSQL is given for all that a page shows.
PATIENCE = 3.0


class ViewBase:
    def __init__(self, cookies: Cookies, csrf: CsrfTokens) -> None:
        self._cookies = cookies
        self._csrf = csrf

    def show(self, template: str, **values: object) -> Response:
        """A page whose forms this browser may send."""
        response = Response()
        browser = self._cookies.ensure_browser_id(request, response)
        notice = sentence(request.args.get("notice"))
        response.set_data(
            render_template(f"admin/{template}", csrf_token=self._csrf.issue(browser), notice=notice, **values)
        )
        return response

    def accept(self, back: Link) -> None:
        """Raises Stopped where a form was not sent from a page of ours; `back` leads to that page."""
        try:
            self._csrf.check(request)
        except InvalidCsrfToken:
            raise AbortWithPage(replace(problems.FORGED, links=(back,))) from None


def account(text: str) -> int:
    """The number of an account, of an address. Raises Stopped where it can be none."""
    hub_id = parse_hub_id(text)
    if hub_id is None:
        raise AbortWithPage(problems.NO_SUCH_CONNECTION)
    return hub_id


def back_to(link: Link, notice: FlashMessage) -> Response:
    """After an order: to the page that shows what became of it."""
    return Response(status=303, headers={"Location": url_for(link.endpoint, **link.values, notice=notice.value)})
