"""The handshake: from the Connect button to HubSpot and back, until the grant is stored where it is not lost."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import structlog
from flask import Response, abort, render_template, request, url_for

from shared import tracing
from shared.db.lifecycle.installs import StoredInstall
from shared.domain.grant import ExchangedGrant, Install
from shared.domain.hub_id import parse_hub_id
from shared.tracing import SpanKind
from web import error_pages
from web.error_pages import AbortWithPage
from web.oauth.code_exchange import CodeExchange
from web.oauth.install_cookie import InstallCookie
from web.oauth.install_cookie_jar import InstallCookieJar
from web.oauth.install_storage import submit_install
from web.oauth.scope_descriptions import describe_scopes
from web.oauth.state import STATE_LIFETIME, StateExpired, StateOfAnotherBrowser, StateRejected, States
from web.security.cookies import MAX_RESTARTS, Cookies
from web.security.host_header import original_host
from web.services import Services

log = structlog.get_logger(__name__)

_LOOPBACK_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?")
#: HubSpot's codes are na1-<uuid>. Whatever else could be one is left for HubSpot to refuse.
_CODE = re.compile(r"[!-~]{1,2048}")


class Handshake:
    """`GET /`, `GET /install` and `GET /oauth/callback`."""

    def __init__(self, services: Services, cookies: Cookies) -> None:
        self._services = services
        self._cookies = cookies
        self._states = States(services.secret_key)
        self._jar = InstallCookieJar(cookies, services.secret_key)
        self._exchange = CodeExchange(services)

    def home(self) -> Response:
        """The front page. Sets the browser's identifier, so that tabs opened from it share it."""
        origin = urlsplit(self._services.origin)
        # A developer may open 127.0.0.1 where HubSpot will redirect to localhost. To a browser those are two sites, and
        # the cookie of one is not sent to the other: the links of the page lead to the right one.
        host = original_host(request)
        is_other_loopback = (
            host != origin.netloc and _LOOPBACK_HOST.fullmatch(host) and _LOOPBACK_HOST.fullmatch(origin.netloc)
        )
        html = render_template(
            "home.html",
            start_url=(self._services.origin if is_other_loopback else "") + url_for("start"),
            host=origin.netloc,
            scopes=describe_scopes(self._services.scopes),
            optional_scopes=describe_scopes(self._services.optional_scopes),
        )
        response = Response(html)
        self._cookies.ensure_browser_id(request, response)
        return response

    def start(self) -> Response:
        """Redirects to HubSpot's consent page; `hub_id` preselects an account there."""
        return self._redirect_to_hubspot(_read_hub_id())

    @tracing.trace_calls("oauth.callback", SpanKind.SERVER)
    def callback(self) -> Response:
        """HubSpot redirects the browser here, with a code or with an error."""
        # 1. GET only: a HEAD request must not use up the code.
        if request.method != "GET":
            abort(405)

        # 2. Read the parameters. HubSpot's marketplace sends people here with a code alone: the handshake begins again.
        state, code, error = (_read_parameter(name) for name in ("state", "code", "error"))
        if state is None and error is None:
            return self._restart()

        # 3. Check that this browser began the handshake. HubSpot does not repeat the state with every error.
        handshake_id = self._check_state(state) if state is not None else ""

        # 4. Did HubSpot, or the person, refuse?
        if error is not None:
            raise AbortWithPage(error_pages.CONSENT_DENIED if error == "access_denied" else error_pages.CONSENT_FAILED)
        if code is None:
            raise AbortWithPage(error_pages.CODE_MISSING)
        if not _CODE.fullmatch(code):
            raise AbortWithPage(error_pages.MALFORMED_LINK)

        # 5. Was the code exchanged already? Then this is a reload, or a double click.
        install_id = self._states.install_id(handshake_id, code)
        if self._cookies.is_code_used(request, install_id):
            return _redirect_to_install_page(install_id)
        hub_id = self._exchange.find_exchanged(handshake_id, install_id)
        if hub_id is not None:
            return self._redirect_to_known_install(install_id, hub_id)

        return self._exchange_and_store(handshake_id, install_id, code)

    def _exchange_and_store(self, handshake_id: str, install_id: str, code: str) -> Response:
        # 1. Exchange the code. It works once.
        grant = self._exchange.exchange(handshake_id, install_id, code)
        if isinstance(grant, StoredInstall):
            return self._redirect_to_known_install(install_id, grant.hub_id)
        install = _make_install(install_id, grant)
        tracing.set_attributes(hub_id=install.hub_id, install_id=install_id)

        # 2. Store the grant where it is not lost: in the queue or the database, and in the browser until it is stored.
        is_accepted = submit_install(self._services, self._services.cipher.encrypt_install(install))
        now = self._services.clock()
        cookie = InstallCookie(install_id, install.hub_id, now.timestamp())
        if is_accepted:
            cookie = cookie.mark_submitted(now, is_accepted=True)

        # 3. Redirect to the page that waits until the grant is stored.
        response = _redirect_to_install_page(install_id)
        browser_copy = self._services.cipher.encrypt_install(install.without_access_token()).ciphertext
        is_in_cookie = self._jar.add(request, response, cookie, browser_copy)
        if not is_in_cookie and not is_accepted:
            raise AbortWithPage(error_pages.NOT_STORED)
        self._exchange.remember(install_id, install.hub_id)
        self._cookies.mark_code_used(request, response, install_id, STATE_LIFETIME)
        log.info(
            "HubSpot granted a connection",
            hub_id=install.hub_id,
            install_id=install_id,
            accepted=is_accepted,
            in_cookie=is_in_cookie,
        )
        return response

    def _restart(self) -> Response:
        restarts = self._cookies.read_restarts(request)
        if restarts >= MAX_RESTARTS:
            raise AbortWithPage(error_pages.STATE_MISSING)
        response = self._redirect_to_hubspot()
        self._cookies.set_restarts(response, restarts + 1)
        return response

    def _redirect_to_hubspot(self, hub_id: int | None = None) -> Response:
        response = Response(status=302)
        browser_id = self._cookies.ensure_browser_id(request, response)
        state = self._states.issue(browser_id, self._services.clock())
        response.location = self._services.hubspot.authorize_url(state, hub_id)
        return response

    def _check_state(self, state: str) -> str:
        """The identifier of the handshake."""
        try:
            return self._states.check(state, self._cookies.browser_id(request), self._services.clock())
        except StateExpired:
            raise AbortWithPage(error_pages.STATE_EXPIRED) from None
        except StateOfAnotherBrowser:
            raise AbortWithPage(error_pages.OTHER_BROWSER) from None
        except StateRejected:
            raise AbortWithPage(error_pages.STATE_INVALID) from None

    def _redirect_to_known_install(self, install_id: str, hub_id: int) -> Response:
        """For a code that was exchanged by another request, whose response the browser may have dropped."""
        response = _redirect_to_install_page(install_id)
        self._jar.update(response, InstallCookie(install_id, hub_id, self._services.clock().timestamp()))
        return response


def _redirect_to_install_page(install_id: str) -> Response:
    return Response(status=303, headers={"Location": url_for("install_page", install_id=install_id)})


def _read_parameter(name: str) -> str | None:
    """None where it is absent or empty. Given twice, neither value counts."""
    values = request.args.getlist(name)
    if len(values) > 1:
        raise AbortWithPage(error_pages.MALFORMED_LINK)
    return values[0] if values and values[0] else None


def _read_hub_id() -> int | None:
    """The account to preselect; None where the field is empty."""
    values = [value.strip() for value in request.args.getlist("hub_id")]
    if not any(values):
        return None
    hub_id = parse_hub_id(values[0]) if len(values) == 1 else None
    if hub_id is None:
        raise AbortWithPage(error_pages.INVALID_HUB_ID)
    return hub_id


def _make_install(install_id: str, grant: ExchangedGrant) -> Install:
    return Install(
        install_id=install_id,
        hub_id=grant.hub_id,
        granted_at=grant.granted_at,
        refresh_token=grant.refresh_token,
        access_token=grant.access_token,
        expires_in=grant.expires_in,
        scopes=grant.scopes,
        is_dated_by_host=grant.is_dated_by_host,
    )
