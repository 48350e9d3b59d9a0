"""The page of one install: waits until the grant is stored, submits it again meanwhile, then shows the connection."""

from __future__ import annotations

import threading
from uuid import UUID

from flask import Response, jsonify, render_template, request, url_for

from web.error_pages import INSTALL_NOT_FOUND, AbortWithPage
from web.oauth.install_cookie import InstallCookie
from web.oauth.install_cookie_jar import InstallCookieJar
from web.oauth.install_storage import InstallProgress, check_and_resubmit, decrypt_browser_copy
from web.oauth.scope_descriptions import describe_scopes
from web.security.cookies import Cookies
from web.security.rate_limits import Rate, RateLimiter, client_address
from web.services import Services

#: After the install, the page reloads for this long while HubSpot has not told the domain.
DOMAIN_WAIT_SECONDS = 30.0
#: A page asks four times a second at first, then once.
INSTALL_PAGE_RATE = Rate(240, 40.0)
#: Installs at once that PostgreSQL or the queue is asked about: where these hang, the others' threads stay free.
MAX_CHECKS = 3


class InstallStatus:
    """`GET /installs/<install_id>` and its `/status`."""

    def __init__(self, services: Services, cookies: Cookies) -> None:
        self._services = services
        self._jar = InstallCookieJar(cookies, services.secret_key)
        self._limiter = RateLimiter("pages of installs", INSTALL_PAGE_RATE, services.monotonic_clock)
        self._checks = threading.BoundedSemaphore(MAX_CHECKS)

    def page(self, install_id: UUID) -> Response:
        progress = self._read_progress(str(install_id))
        if progress is None:
            raise AbortWithPage(INSTALL_NOT_FOUND)
        cookie, stored = progress.cookie, progress.stored
        is_new = self._services.clock().timestamp() - cookie.granted_at < DOMAIN_WAIT_SECONDS
        html = render_template(
            f"{progress.state}.html",
            hub_id=cookie.hub_id,
            stored=stored,
            scopes=describe_scopes(stored.scopes) if stored else [],
            awaits_domain=bool(stored and stored.hub_domain is None and is_new),
            status_url=url_for("install_status", install_id=install_id),
            start_url=url_for("start", hub_id=cookie.hub_id, app=self._services.app_parameter(cookie.app)),
        )
        response = Response(html)
        self._update_cookies(response, progress)
        return response

    def status(self, install_id: UUID) -> Response:
        progress = self._read_progress(str(install_id))
        if progress is None:
            response = jsonify(state="failed", hub_id=None)
            response.status_code = 404
            return response
        response = jsonify(state=progress.state, hub_id=progress.cookie.hub_id)
        self._update_cookies(response, progress)
        return response

    def _read_progress(self, install_id: str) -> InstallProgress | None:
        """None where this browser cannot prove that the install is its own: by the install's cookie or by the grant."""
        cookie, encrypted = self._jar.read(request, install_id)
        install = decrypt_browser_copy(self._services, encrypted, install_id) if encrypted else None
        if install is None:
            return self._check(cookie, None) if cookie else None
        # After a change of SECRET_KEY the cookie is not valid any more; the grant is encrypted with TOKEN_KEYS.
        granted_at = install.granted_at.timestamp()
        cookie = cookie or InstallCookie(install_id, install.hub_id, granted_at, app=install.app)
        return self._check(cookie, encrypted)

    def _check(self, cookie: InstallCookie, encrypted: str | None) -> InstallProgress:
        """Above the limits no server is asked: the page waits, and asks again soon."""
        if self._limiter.take(client_address(request)) or not self._checks.acquire(blocking=False):
            return InstallProgress("storing", cookie)
        try:
            return check_and_resubmit(self._services, cookie, encrypted)
        finally:
            self._checks.release()

    def _update_cookies(self, response: Response, progress: InstallProgress) -> None:
        """Records when the grant was submitted; once it is stored, lets the browser's copy expire."""
        _, encrypted = self._jar.read(request, progress.cookie.install_id)
        if progress.state != "connected":
            self._jar.update(response, progress.cookie)
        elif encrypted is not None:
            self._jar.let_grant_expire(response, progress.cookie, encrypted)
