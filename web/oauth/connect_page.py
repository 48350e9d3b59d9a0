"""`GET /connect/<link>`: says for which customer of which product an account is connected, before HubSpot is asked.

Anyone who has a link can send it to others: so the page names the customer, and only a person's click goes on.
"""

from __future__ import annotations

from flask import Response, render_template, request, url_for

from shared.domain.return_urls import get_origin
from web.oauth.consent import Consent
from web.oauth.links.context import LinkContext
from web.oauth.links.reader import LinkReader, ReadLink
from web.oauth.scope_descriptions import describe_scopes
from web.security.cookies import Cookies
from web.services import Services

#: A page that stays open fetches another state, long before the one in its button expires.
REFRESH_SECONDS = 300


class ConnectPage:
    def __init__(self, services: Services, cookies: Cookies, links: LinkReader, consent: Consent) -> None:
        self._services = services
        self._cookies = cookies
        self._links = links
        self._consent = consent

    def page(self, link: str) -> Response:
        read = self._links.read(link)
        if self._consent.is_at_host_of_another_app(read.app):
            location = read.app.origin + url_for("connect", link=link, moved=1)
            return Response(status=302, headers={"Location": location})
        response = Response()
        browser_id = self._cookies.ensure_browser_id(request, response)
        context = LinkContext.from_link(read.link)
        conditional = [scope for scope in read.link.scopes if scope in read.app.conditional_scopes]
        url = self._consent.make_url(browser_id, read.app, read.link.claim.hub_id, conditional, context)
        response.data = self._render(read, url)
        response.headers["Refresh"] = str(REFRESH_SECONDS)
        return response

    def render(self, read: ReadLink, continue_url: str) -> Response:
        """The page, whose button leads to `continue_url`."""
        return Response(self._render(read, continue_url))

    def _render(self, read: ReadLink, continue_url: str) -> str:
        link, app = read.link, read.app
        conditional = [scope for scope in app.conditional_scopes if scope in link.scopes]
        return render_template(
            "connect.html",
            name=link.name or link.claim.customer,
            customer=link.claim.customer,
            origin=get_origin(link.return_to) if link.return_to else app.origin,
            has_return_to=link.return_to is not None,
            hub_id=link.claim.hub_id,
            authorize_url=continue_url,
            expires_at=link.claim.link_expires_at,
            scopes=describe_scopes((*app.scopes, *conditional)),
            optional_scopes=describe_scopes(app.optional_scopes),
        )
