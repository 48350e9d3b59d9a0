"""The page of one install: waits until it is stored, hands its grant in again meanwhile, then says what it is."""

from __future__ import annotations

from uuid import UUID

from flask import Response, jsonify, render_template, request, url_for

from web import problems
from web.oauth.install_cookie import InstallCookie, InstallCookies
from web.oauth.install_storage import InstallState, carried, standing
from web.oauth.scope_descriptions import describe_scopes
from web.problems import AbortWithPage
from web.security.cookies import Cookies
from web.services import Services

#: Seconds after the install in which its domain may still be on its way.
INTRODUCTION = 30.0


class InstallStatus:
    """`GET /installs/<install_id>` and its `/status`."""

    def __init__(self, services: Services, cookies: Cookies) -> None:
        self._services = services
        self._cookies = cookies
        self._tickets = InstallCookies(services.secret_key)

    def page(self, install_id: UUID) -> Response:
        found = self._standing(str(install_id))
        if found is None:
            raise AbortWithPage(problems.NO_SUCH_INSTALL)
        response = Response(render_template(f"{found.state}.html", **self._shown(found)))
        self._remember(response, found)
        return response

    def status(self, install_id: UUID) -> Response:
        found = self._standing(str(install_id))
        if found is None:
            response = jsonify(state="failed", hub_id=None)
            response.status_code = 404
            return response
        response = jsonify(state=found.state, hub_id=found.ticket.hub_id)
        self._remember(response, found)
        return response

    def _standing(self, install_id: str) -> InstallState | None:
        """None where this browser cannot show that the install is its own: by its ticket, or by the grant itself."""
        ticket = self._tickets.read(self._cookies.read(request, "ticket") or "", install_id)
        sealed = self._cookies.read(request, "grant")
        install = carried(self._services, sealed, install_id) if sealed else None
        if install is None:
            return standing(self._services, ticket, None) if ticket else None
        # SECRET_KEY may have changed meanwhile; the grant is sealed with TOKEN_KEYS.
        ticket = ticket or InstallCookie(install_id, install.hub_id, install.granted_at.timestamp())
        return standing(self._services, ticket, sealed)

    def _shown(self, found: InstallState) -> dict[str, object]:
        seen = found.seen
        young = self._services.clock().timestamp() - found.ticket.since < INTRODUCTION
        return {
            "hub_id": found.ticket.hub_id,
            "seen": seen,
            "scopes": describe_scopes(seen.scopes) if seen else [],
            "look_again": bool(seen and seen.hub_domain is None and young),
            "status_url": url_for("install_status", install_id=found.ticket.install_id),
        }

    def _remember(self, response: Response, found: InstallState) -> None:
        """The ticket says when the grant was handed in; once it is stored, its copy in the browser goes."""
        path = url_for("install_page", install_id=found.ticket.install_id)
        if found.state == "connected":
            if self._cookies.read(request, "grant") is not None:
                self._cookies.drop(response, "grant", path=path)
        else:
            self._cookies.set(response, "ticket", self._tickets.sign(found.ticket), path=path)
