"""The page of one install: waits until the grant is stored, submits it again meanwhile, then shows the connection."""

from __future__ import annotations

import threading
from uuid import UUID

from flask import Response, jsonify, render_template, request, url_for

from shared.domain.connection import Status
from web.error_pages import INSTALL_NOT_FOUND, AbortWithPage
from web.oauth.install_cookie import InstallCookie
from web.oauth.install_cookie_jar import InstallCookieJar
from web.oauth.install_storage import InstallProgress, check_and_resubmit, decrypt_browser_copy
from web.oauth.links.context import LinkContext, decrypt_link
from web.oauth.links.return_to import ReturnStatus, classify_claim, redirect_to_product
from web.oauth.scope_descriptions import describe_scopes
from web.security.cookies import Cookies
from web.security.rate_limits import Rate, RateLimiter, client_address
from web.services import Services

#: HubSpot, or the operator, has ended the connection since.
ENDED = (Status.REVOKED, Status.DISCONNECTED)
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
        link = self._read_link(str(install_id))
        status, reason = _classify_end(link, progress)
        if link is not None and status is not None:
            response = redirect_to_product(link, status, cookie.app, hub_id=cookie.hub_id, reason=reason)
            if response is not None:
                self._update_cookies(response, progress)
                return response
        is_new = self._services.clock().timestamp() - cookie.granted_at < DOMAIN_WAIT_SECONDS
        html = render_template(
            f"{progress.state}.html",
            hub_id=cookie.hub_id,
            stored=stored,
            claim_status=status,
            customer=link.shown_name if link else None,
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

    def _read_link(self, install_id: str) -> LinkContext | None:
        encrypted = self._jar.read_link(request, install_id)
        return decrypt_link(self._services.cipher, encrypted) if encrypted else None

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


def _classify_end(link: LinkContext | None, progress: InstallProgress) -> tuple[ReturnStatus | None, str | None]:
    """How an install by a link has ended, and the reason in a word; None while it waits, and where it ended later."""
    if link is None or progress.state == "storing":
        return None, None
    if progress.stored is None:
        return "failed", "not_stored"
    return (None, None) if progress.stored.status in ENDED else classify_claim(link, progress.stored)
