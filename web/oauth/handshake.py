"""The handshake: from the Connect button to HubSpot and back, until the grant is stored where it is not lost."""

from __future__ import annotations

import re

import structlog
from flask import Response, abort, request, url_for

from shared import tracing
from shared.db.lifecycle.installs import StoredInstall
from shared.domain.customer import CustomerClaim
from shared.domain.grant import ExchangedGrant, Install
from shared.domain.hub_id import parse_hub_id
from shared.settings.hubspot_app import HubSpotApp
from shared.tracing import SpanKind
from web import error_pages
from web.error_pages import AbortWithPage, ErrorPage, start_again_with
from web.oauth.code_exchange import CodeExchange
from web.oauth.consent import Consent
from web.oauth.front_page import FrontPage
from web.oauth.install_cookie import InstallCookie
from web.oauth.install_cookie_jar import InstallCookieJar
from web.oauth.install_storage import submit_install
from web.oauth.links.context import LinkContext
from web.oauth.links.error_pages import LINK_REQUIRED, LINK_SPENT
from web.oauth.links.reader import LinkReader
from web.oauth.links.return_to import return_failures
from web.oauth.links.wrong_account import refuse_wrong_account
from web.oauth.state import STATE_LIFETIME, States
from web.security.cookies import MAX_RESTARTS, Cookies
from web.services import Services

log = structlog.get_logger(__name__)

#: HubSpot's codes are na1-<uuid>. Whatever else could be one is left for HubSpot to refuse.
_CODE = re.compile(r"[!-~]{1,2048}")


class Handshake:
    """`GET /install` and `GET /oauth/callback`."""

    def __init__(
        self,
        services: Services,
        cookies: Cookies,
        *,
        front_page: FrontPage,
        consent: Consent,
        exchange: CodeExchange,
        links: LinkReader,
    ) -> None:
        self._services = services
        self._cookies = cookies
        self._front_page = front_page
        self._states = States(services.secret_key)
        self._consent = consent
        self._jar = InstallCookieJar(cookies, services.secret_key)
        self._exchange = exchange
        self._links = links

    def start(self) -> Response:
        """Redirects to HubSpot's consent page; `app` names the app, `hub_id` preselects an account there."""
        app, hub_id = self._read_app(), _read_hub_id()
        if app is None:
            return self._front_page.render(hub_id)
        return self.begin(app, hub_id)

    def begin(self, app: HubSpotApp, hub_id: int | None = None) -> Response:
        """As `start`, for this app."""
        if self._services.is_link_required:
            raise AbortWithPage(LINK_REQUIRED)
        if self._consent.is_at_host_of_another_app(app):
            location = app.origin + url_for("start", app=app.name, hub_id=hub_id, moved=1)
            return Response(status=302, headers={"Location": location})
        return self._consent.redirect(app, hub_id)

    @tracing.trace_calls("oauth.callback", SpanKind.SERVER)
    def callback(self) -> Response:
        """HubSpot redirects the browser here, with a code or with an error."""
        # 1. GET only: a HEAD request must not use up the code.
        if request.method != "GET":
            abort(405)

        # 2. Read the parameters. HubSpot's marketplace sends people here with a code alone: the handshake begins again.
        state, code, error = (read_parameter(name) for name in ("state", "code", "error"))
        if state is None and error is None:
            return self.restart(self._services.default_app)
        if state is None:  # HubSpot does not repeat it with every error
            raise AbortWithPage(choose_refusal_page(error))

        # 3. Check that this browser began the handshake, and for which app.
        checked, app = self._consent.check(state)
        link = self._consent.read_link(checked)
        with return_failures(link, app.name), start_again_with(self._services.app_parameter(app.name)):
            # 4. Did HubSpot, or the person, refuse?
            if error is not None:
                raise AbortWithPage(choose_refusal_page(error))
            if code is None:
                raise AbortWithPage(error_pages.CODE_MISSING)
            if not _CODE.fullmatch(code):
                raise AbortWithPage(error_pages.MALFORMED_LINK)
            return self._take_code(app, checked.handshake_id, code, link)

    def _take_code(self, app: HubSpotApp, handshake_id: str, code: str, link: LinkContext | None) -> Response:
        # 1. Was the code exchanged already? Then this is a reload, or a double click.
        install_id = self._states.install_id(handshake_id, code)
        if self._cookies.is_code_used(request, install_id):
            return _redirect_to_install_page(install_id)
        hub_id = self._exchange.find_exchanged(handshake_id, install_id)
        if hub_id is not None:
            return self._redirect_to_known_install(app, install_id, hub_id, link)

        # 2. Exchange it. It works once, and so does the link.
        claim = link.claim if link else None
        if claim is not None and self._links.find_use(claim.link_id) not in {None, install_id}:
            raise AbortWithPage(LINK_SPENT)
        grant = self._exchange.exchange(app.name, handshake_id, install_id, code)
        if isinstance(grant, StoredInstall):
            return self._redirect_to_known_install(app, install_id, grant.hub_id, link)
        if claim is not None and claim.hub_id not in {None, grant.hub_id}:
            raise refuse_wrong_account(self._services, app, grant, claim)
        install = make_install(install_id, app, grant, claim)
        tracing.set_attributes(**install.identity.log_fields(), install_id=install_id)

        # 3. Store the grant where it is not lost, and redirect to the page that waits until it is stored.
        return self._store(install, link)

    def _store(self, install: Install, link: LinkContext | None) -> Response:
        # 1. In the queue or the database.
        is_accepted = submit_install(self._services, self._services.cipher.encrypt_install(install))
        now = self._services.clock()
        cookie = InstallCookie(install.install_id, install.hub_id, now.timestamp(), app=install.app)
        if is_accepted:
            cookie = cookie.mark_submitted(now, is_accepted=True)

        # 2. In the browser, until it is stored.
        response = _redirect_to_install_page(install.install_id)
        browser_copy = self._services.cipher.encrypt_install(install.without_access_token()).ciphertext
        encrypted_link = link.encrypt(self._services.cipher) if link else None
        is_in_cookie = self._jar.add(request, response, cookie, browser_copy, encrypted_link)
        if not is_in_cookie and not is_accepted:
            raise AbortWithPage(error_pages.NOT_STORED)

        # 3. A reload of this address must not exchange the code again.
        self._exchange.remember(install.install_id, install.hub_id)
        self._cookies.mark_code_used(request, response, install.install_id, STATE_LIFETIME)
        log.info(
            "HubSpot granted a connection",
            **install.identity.log_fields(),
            install_id=install.install_id,
            accepted=is_accepted,
            in_cookie=is_in_cookie,
        )
        return response

    def restart(self, app: HubSpotApp | None) -> Response:
        """For a code without a state, of which it cannot be known who began the handshake."""
        restarts = self._cookies.read_restarts(request)
        if restarts >= MAX_RESTARTS:
            raise AbortWithPage(error_pages.STATE_MISSING)
        if app is None:
            return self._front_page.render()
        response = self.begin(app)
        self._cookies.set_restarts(response, restarts + 1)
        return response

    def _read_app(self) -> HubSpotApp | None:
        """None where the person has to choose one. Raises AbortWithPage."""
        names = [name for name in request.args.getlist("app") if name]
        if not names:
            return self._services.default_app
        app = self._services.apps.get(names[0]) if len(names) == 1 else None
        if app is None:
            raise AbortWithPage(error_pages.UNKNOWN_APP)
        return app

    def _redirect_to_known_install(
        self, app: HubSpotApp, install_id: str, hub_id: int, link: LinkContext | None
    ) -> Response:
        """For a code that was exchanged by another request, whose response the browser may have dropped."""
        response = _redirect_to_install_page(install_id)
        now = self._services.clock().timestamp()
        self._jar.update(response, InstallCookie(install_id, hub_id, now, app=app.name))
        if link is not None:
            self._jar.set_link(response, install_id, link.encrypt(self._services.cipher))
        return response


def _redirect_to_install_page(install_id: str) -> Response:
    return Response(status=303, headers={"Location": url_for("install_page", install_id=install_id)})


def read_parameter(name: str) -> str | None:
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


def choose_refusal_page(error: str | None) -> ErrorPage:
    return error_pages.CONSENT_DENIED if error == "access_denied" else error_pages.CONSENT_FAILED


def make_install(install_id: str, app: HubSpotApp, grant: ExchangedGrant, claim: CustomerClaim | None) -> Install:
    return Install(
        install_id=install_id,
        hub_id=grant.hub_id,
        granted_at=grant.granted_at,
        refresh_token=grant.refresh_token,
        access_token=grant.access_token,
        expires_in=grant.expires_in,
        scopes=grant.scopes,
        is_dated_by_host=grant.is_dated_by_host,
        app=app.name,
        user_id=grant.user_id,
        needs_user_id=app.is_user_level and grant.user_id is None,
        customer_claim=claim,
    )
