"""The pages on which a person begins: the front page, and the one that asks which app it is to be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from flask import Response, render_template, request, url_for

from shared.settings.hubspot_app import HubSpotApp
from web.oauth.scope_descriptions import describe_scopes
from web.security.cookies import Cookies
from web.security.host_header import original_host
from web.services import Services

_LOOPBACK_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class OfferedApp:
    name: str
    start_url: str
    is_user_level: bool
    #: Each with its description.
    scopes: list[tuple[str, str]]
    optional_scopes: list[tuple[str, str]]


class FrontPage:
    """`GET /`."""

    def __init__(self, services: Services, cookies: Cookies) -> None:
        self._services = services
        self._cookies = cookies

    def home(self) -> Response:
        return self.render()

    def render(self, hub_id: int | None = None) -> Response:
        """Offers each app by name where there are several, for the account with `hub_id`; None: any.

        Sets the browser's identifier, so that tabs opened from the page share it.
        """
        if self._services.is_link_required:
            return Response(render_template("home_by_link.html", host=urlsplit(self._services.origin).netloc))
        offered = [self._describe(app, hub_id) for app in self._services.apps.values()]
        template = "home.html" if len(offered) == 1 else "choose_app.html"
        html = render_template(template, host=urlsplit(self._services.origin).netloc, apps=offered, hub_id=hub_id)
        response = Response(html)
        self._cookies.ensure_browser_id(request, response)
        return response

    def _describe(self, app: HubSpotApp, hub_id: int | None) -> OfferedApp:
        path = url_for("start", app=self._services.app_parameter(app.name), hub_id=hub_id)
        return OfferedApp(
            name=app.name,
            start_url=app.origin + path if self._is_reached_elsewhere(app) else path,
            is_user_level=app.is_user_level,
            scopes=describe_scopes(app.scopes),
            optional_scopes=describe_scopes(app.optional_scopes),
        )

    def _is_reached_elsewhere(self, app: HubSpotApp) -> bool:
        """Whether links to the app's handshake must name its host, to which HubSpot will redirect.

        To a browser two hosts are two sites, and the cookie of one is not sent to the other: where apps differ in it,
        and where a developer opens 127.0.0.1 instead of localhost.
        """
        host, own_host = original_host(request), urlsplit(app.origin).netloc
        is_other_loopback = host != own_host and _LOOPBACK_HOST.fullmatch(host) and _LOOPBACK_HOST.fullmatch(own_host)
        return len(self._services.origins) > 1 or bool(is_other_loopback)
