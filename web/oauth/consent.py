"""The way to HubSpot's consent page and back: which app it is for, and that it is the same browser."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from flask import Response, request

from shared.settings.hubspot_app import HubSpotApp
from web import error_pages
from web.error_pages import AbortWithPage
from web.oauth.links.context import LinkContext, decrypt_link
from web.oauth.links.return_to import return_failures
from web.oauth.state import CheckedState, StateExpired, StateOfAnotherBrowser, StateRejected, States
from web.security.cookies import Cookies
from web.security.host_header import original_host
from web.services import Services


class Consent:
    def __init__(self, services: Services, cookies: Cookies, states: States) -> None:
        self._services = services
        self._cookies = cookies
        self._states = states

    def redirect(self, app: HubSpotApp, hub_id: int | None = None) -> Response:
        """To HubSpot's consent page; `hub_id` preselects an account there. Sets the browser's identifier."""
        response = Response(status=302)
        browser_id = self._cookies.ensure_browser_id(request, response)
        response.location = self.make_url(browser_id, app, hub_id)
        return response

    def make_url(
        self,
        browser_id: str,
        app: HubSpotApp,
        hub_id: int | None = None,
        conditional_scopes: Sequence[str] = (),
        link: LinkContext | None = None,
    ) -> str:
        """The consent page's, with a state for this browser, which carries the link."""
        encrypted = link.encrypt(self._services.cipher) if link else None
        state = self._states.issue(browser_id, self._services.clock(), app.name, encrypted)
        return self._services.hubspot_clients[app.name].authorize_url(state, hub_id, conditional_scopes)

    def is_at_host_of_another_app(self, app: HubSpotApp) -> bool:
        """Then HubSpot would redirect to a host to which the browser sends no cookie of this one.

        Only once in a handshake: behind a proxy that replaces the Host header it would never end.
        """
        host = original_host(request).lower()
        others = {urlsplit(origin).netloc for origin in self._services.origins} - {urlsplit(app.origin).netloc}
        return host in others and "moved" not in request.args

    def read_link(self, checked: CheckedState) -> LinkContext | None:
        """The link that the state carries; None: the browser came without one.

        Raises AbortWithPage where TOKEN_KEYS do not decrypt it: the install must not lose its customer.
        """
        if checked.link is None:
            return None
        link = decrypt_link(self._services.cipher, checked.link)
        if link is None:
            raise AbortWithPage(error_pages.STATE_INVALID)
        return link

    def check(self, state: str) -> tuple[CheckedState, HubSpotApp]:
        """What this browser was sent to HubSpot with. Raises AbortWithPage, or leads back to our product."""
        try:
            checked = self._states.check(state, self._cookies.browser_id(request), self._services.clock())
        except StateExpired as expired:
            link = self.read_link(expired.checked) if expired.checked else None
            with return_failures(link, expired.checked.app if expired.checked else ""):
                raise AbortWithPage(error_pages.STATE_EXPIRED) from None
        except StateOfAnotherBrowser:
            raise AbortWithPage(error_pages.OTHER_BROWSER) from None
        except StateRejected:
            raise AbortWithPage(error_pages.STATE_INVALID) from None
        app = self._services.apps.get(checked.app)
        if app is None:  # the settings were changed meanwhile
            raise AbortWithPage(error_pages.UNKNOWN_APP)
        return checked, app
