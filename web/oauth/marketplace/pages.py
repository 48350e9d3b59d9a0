"""Installs that begin in HubSpot's Marketplace, with and without a sign-in to our product (docs/marketplace.md).

HubSpot sends `code` and `returnUrl`; or `step=authorize` and, from a frame that gets none of this site's cookies,
`step=finalize`. The browser goes back to `returnUrl` once the grant is in the queue or in PostgreSQL, or HubSpot asks
again without end. Nothing that comes by a code alone belongs to a customer: anyone can send a person here with a code.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import structlog
from flask import Response, abort, g, render_template, request, url_for

from shared import tracing
from shared.db.lifecycle.installs import StoredInstall
from shared.domain.grant import EncryptedInstall
from shared.domain.return_urls import set_query
from shared.net.deadline import deadline
from shared.settings.hubspot_app import HubSpotApp
from shared.token_cipher import DecryptionError
from shared.tracing import SpanKind
from web import error_pages
from web.error_pages import AbortWithPage
from web.oauth.code_exchange import CodeExchange
from web.oauth.connect_page import ConnectPage
from web.oauth.handshake import Handshake, choose_refusal_page, make_install
from web.oauth.install_storage import DATABASE_ERRORS, submit_install
from web.oauth.links.context import LinkContext
from web.oauth.links.error_pages import LINK_MALFORMED
from web.oauth.links.reader import LinkReader
from web.oauth.links.wrong_account import refuse_wrong_account
from web.oauth.marketplace import error_pages as marketplace_error_pages
from web.oauth.marketplace.request import (
    AUTHORIZE,
    FINALIZE,
    MarketplaceRequest,
    is_marketplace_request,
    list_frame_ancestors,
    read_request,
)
from web.oauth.marketplace.state import MarketplaceStates
from web.oauth.state import States
from web.security.cookies import Cookies
from web.services import Services

log = structlog.get_logger(__name__)

#: The browser waits for it; where PostgreSQL does not answer, the link is settled when the install is stored.
SPEND_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A code that HubSpot's Marketplace brought, and all that is known of where it belongs."""

    app: HubSpotApp
    handshake_id: str  #: of this code, for the limits of exchanges
    install_id: str
    code: str
    return_url: str | None
    link: LinkContext | None = None


class Marketplace:
    """`GET` and `POST /marketplace`, `GET /marketplace/<app>`, and the Marketplace's part of `/oauth/callback`."""

    def __init__(
        self,
        services: Services,
        cookies: Cookies,
        *,
        handshake: Handshake,
        exchange: CodeExchange,
        links: LinkReader,
        connect_page: ConnectPage,
    ) -> None:
        self._services = services
        self._cookies = cookies
        self._handshake = handshake
        self._exchange = exchange
        self._links = links
        self._connect_page = connect_page
        self._states = MarketplaceStates(services.cipher, services.secret_key)
        self._install_ids = States(services.secret_key)

    def callback(self) -> Response:
        """The OAuth callback, which HubSpot may know as the install URL."""
        return self.page() if is_marketplace_request() else self._handshake.callback()

    @tracing.trace_calls("oauth.marketplace", SpanKind.SERVER)
    def page(self, app_name: str | None = None) -> Response:
        """Decides by the parameters which step it is; a request without any begins an ordinary install."""
        # 1. GET only: a HEAD request must not use up the code.
        if request.method != "GET":
            abort(405)
        app, values = self._find_app(app_name), read_request(self._services)

        # 2. The first of two steps: a top-level page, which may sign the person in.
        if values.step == AUTHORIZE:
            return self._authorize(app, values)

        # 3. What follows may be in a frame of HubSpot's.
        g.frame_ancestors = list_frame_ancestors(self._services, values.return_url)
        if values.error is not None:
            raise AbortWithPage(choose_refusal_page(values.error))
        if values.code is not None and values.step == FINALIZE:
            return self._finalize(app_name, values, values.code)
        if values.code is not None and values.state is None and values.return_url is not None:
            return self._take_unclaimed(app, values.return_url, values.code)

        # 4. An ordinary handshake, on which HubSpot's Marketplace has no part.
        g.frame_ancestors = ()
        if values.state is not None:
            return self._handshake.callback()
        return self._handshake.restart(app) if values.code is not None else self._handshake.begin(app)

    def store(self) -> Response:
        """The page in a frame hands in the grant that it holds, until the queue or PostgreSQL has it."""
        ciphertext, return_url = request.form.get("grant", ""), read_request(self._services).return_url
        g.frame_ancestors = list_frame_ancestors(self._services, return_url)
        try:
            install = self._services.cipher.decrypt_install(ciphertext)
        except DecryptionError:
            raise AbortWithPage(error_pages.MALFORMED_LINK) from None
        encrypted = EncryptedInstall(install.install_id, install.hub_id, ciphertext)
        return self._finish(encrypted, return_url)

    def _authorize(self, app: HubSpotApp, values: MarketplaceRequest) -> Response:
        """To our product's sign-in page, where there is one; with its connect link, or without one, back to HubSpot."""
        if values.return_url is None:
            raise AbortWithPage(marketplace_error_pages.RETURN_URL_REFUSED)
        now = self._services.clock()
        browser_id = self._cookies.browser_id(request)
        if values.link is None and app.marketplace_sign_in_url:
            return self._redirect_to_sign_in(app, values.return_url)
        if values.link is None:
            return _redirect(
                set_query(values.return_url, {"state": self._states.issue(app.name, browser_id, None, now)})
            )
        read = self._links.read(values.link)
        if read.app.name != app.name:
            raise AbortWithPage(LINK_MALFORMED)
        state = self._states.issue(app.name, browser_id, LinkContext.from_link(read.link), now)
        location = set_query(values.return_url, {"state": state})
        # The proof is missing where another site sent the person here with its own link: then a person decides.
        is_ours = self._states.is_sign_in(values.signed_in or "", browser_id, values.return_url, now)
        return _redirect(location) if is_ours else self._connect_page.render(read, location)

    def _redirect_to_sign_in(self, app: HubSpotApp, return_url: str) -> Response:
        response = Response(status=303)
        browser_id = self._cookies.ensure_browser_id(request, response)
        signed_in = self._states.issue_sign_in(browser_id, return_url, self._services.clock())
        query = {"step": AUTHORIZE, "returnUrl": return_url, "signed_in": signed_in}
        response.location = set_query(
            app.marketplace_sign_in_url, {"continue": set_query(self._install_url(app), query)}
        )
        return response

    def _finalize(self, app_name: str | None, values: MarketplaceRequest, code: str) -> Response:
        # 1. The state: ours, of this app, not of another browser.
        state = self._states.read(values.state or "", self._services.clock())
        app = self._services.apps.get(state.app) if state else None
        if state is None or app is None or app_name not in {None, state.app}:
            raise AbortWithPage(marketplace_error_pages.STATE_REFUSED)
        if not state.is_of_browser(self._cookies.browser_id(request)):
            raise AbortWithPage(error_pages.OTHER_BROWSER)

        # 2. It works once. A repeated request with the same code is the same install.
        install_id = self._install_ids.install_id(f"marketplace/{state.state_id}", code)
        try:
            with deadline(SPEND_TIMEOUT_SECONDS):
                spent_by = self._services.single_uses.spend_state(state.state_id, install_id, state.expires_at)
        except DATABASE_ERRORS:
            spent_by = install_id
        if spent_by != install_id:
            raise AbortWithPage(marketplace_error_pages.STATE_REFUSED)
        return self._take(_Arrival(app, state.state_id, install_id, code, values.return_url, state.link))

    def _take_unclaimed(self, app: HubSpotApp, return_url: str, code: str) -> Response:
        """HubSpot's flow without sign-in: no state says for whom the code is."""
        handshake_id = hashlib.sha256(f"marketplace/{code}".encode()).hexdigest()
        install_id = self._install_ids.install_id("marketplace", code)
        return self._take(_Arrival(app, handshake_id, install_id, code, return_url))

    def _take(self, arrival: _Arrival) -> Response:
        # 1. Exchange the code, unless that is done.
        app, install_id = arrival.app, arrival.install_id
        if self._exchange.find_exchanged(arrival.handshake_id, install_id) is not None:
            return self._go_back(arrival.return_url)
        redirect_uri = self._install_url(app)
        grant = self._exchange.exchange(app.name, arrival.handshake_id, install_id, arrival.code, redirect_uri)
        if isinstance(grant, StoredInstall):
            return self._go_back(arrival.return_url)

        # 2. Only the account that the link names, where it names one.
        claim = arrival.link.claim if arrival.link else None
        if claim is not None and claim.hub_id not in {None, grant.hub_id}:
            raise refuse_wrong_account(self._services, app, grant, claim)

        # 3. Store the grant, then go back to HubSpot.
        install = make_install(install_id, app, grant, claim)
        log.info(
            "HubSpot granted a connection", **install.identity.log_fields(), install_id=install_id, by="marketplace"
        )
        return self._finish(self._services.cipher.encrypt_install(install), arrival.return_url, arrival.handshake_id)

    def _finish(self, install: EncryptedInstall, return_url: str | None, handshake_id: str | None = None) -> Response:
        """Back to HubSpot once the grant is in the queue or in PostgreSQL; until then a page holds it."""
        if submit_install(self._services, install):
            if handshake_id is not None:
                self._exchange.remember(install.install_id, install.hub_id)
            return self._go_back(return_url)
        log.warning("a page holds a grant until it can be stored", hub_id=install.hub_id, install_id=install.install_id)
        return Response(
            render_template(
                "marketplace_storing.html", grant=install.ciphertext, return_url=return_url, hub_id=install.hub_id
            )
        )

    def _go_back(self, return_url: str | None) -> Response:
        return Response(render_template("marketplace_done.html")) if return_url is None else _redirect(return_url)

    def _find_app(self, name: str | None) -> HubSpotApp:
        app = self._services.default_app if name is None else self._services.apps.get(name)
        if app is None:
            raise AbortWithPage(marketplace_error_pages.APP_MISSING)
        return app

    def _install_url(self, app: HubSpotApp) -> str:
        """As registered at HubSpot: the URL of this request, without its query."""
        if request.endpoint == "callback":
            return app.redirect_uri
        return app.origin + url_for(request.endpoint or "", **(request.view_args or {}))


def _redirect(location: str) -> Response:
    return Response(status=303, headers={"Location": location})
