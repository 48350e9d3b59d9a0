"""The way to HubSpot's consent page and back: which app it is for, and that it is the same browser."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Response, request

from shared.hubspot_apps import HubSpotApp
from web import error_pages
from web.error_pages import AbortWithPage
from web.oauth.state import CheckedState, StateExpired, StateOfAnotherBrowser, StateRejected, States
from web.security.cookies import Cookies
from web.services import Services


class Consent:
    def __init__(self, services: Services, cookies: Cookies, states: States) -> None:
        self._services = services
        self._cookies = cookies
        self._states = states

    def redirect(self, app: HubSpotApp, hub_id: int | None = None, conditional_scopes: Sequence[str] = ()) -> Response:
        """To HubSpot's consent page; `hub_id` preselects an account there. Sets the browser's identifier."""
        response = Response(status=302)
        browser_id = self._cookies.ensure_browser_id(request, response)
        state = self._states.issue(browser_id, self._services.clock(), app.name)
        response.location = self._services.hubspot_clients[app.name].authorize_url(state, hub_id, conditional_scopes)
        return response

    def check(self, state: str) -> tuple[CheckedState, HubSpotApp]:
        """What this browser was sent to HubSpot with. Raises AbortWithPage."""
        try:
            checked = self._states.check(state, self._cookies.browser_id(request), self._services.clock())
        except StateExpired:
            raise AbortWithPage(error_pages.STATE_EXPIRED) from None
        except StateOfAnotherBrowser:
            raise AbortWithPage(error_pages.OTHER_BROWSER) from None
        except StateRejected:
            raise AbortWithPage(error_pages.STATE_INVALID) from None
        app = self._services.apps.get(checked.app)
        if app is None:  # the settings were changed meanwhile
            raise AbortWithPage(error_pages.UNKNOWN_APP)
        return checked, app
