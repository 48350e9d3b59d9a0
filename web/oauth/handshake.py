"""The handshake: from the Connect button to HubSpot and back, until the grant is in safe hands."""

from __future__ import annotations

import re
import time
from urllib.parse import urlsplit

import structlog
from flask import Response, abort, render_template, request, url_for
from werkzeug.datastructures import MultiDict

from shared import tracing
from shared.domain.errors import CodeRejected, InvalidClient, ProviderError, TemporarilyUnavailable
from shared.domain.grant import Grant, Install
from shared.tracing import SpanKind
from web import problems
from web.oauth.install_cookie import InstallCookie, InstallCookies
from web.oauth.install_storage import keep, seen
from web.oauth.scope_descriptions import describe_scopes
from web.oauth.state import StateExpired, StateOfAnotherBrowser, StateRejected, States
from web.problems import AbortWithPage
from web.security.cookies import MOST_RESTARTS, Cookies
from web.services import Services

log = structlog.get_logger(__name__)

#: In the WSGI environment: what the client called us (see web/app.py).
ORIGINAL_HOST = "tokenkeeper.called"
_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?")
#: PostgreSQL's bigint.
LARGEST_HUB_ID = 2**63 - 1
#: HubSpot's are na1-<uuid>; anything that could be one is HubSpot's to judge.
_CODE = re.compile(r"[!-~]{1,2048}")
_HUB_ID = re.compile(r"[1-9][0-9]{0,18}")


class Handshake:
    """`GET /`, `GET /install` and `GET /oauth/callback`."""

    def __init__(self, services: Services, cookies: Cookies) -> None:
        self._services = services
        self._cookies = cookies
        self._states = States(services.secret_key)
        self._tickets = InstallCookies(services.secret_key)

    def home(self) -> Response:
        """What this is. Tells this browser from others already here, so that tabs opened at once share it."""
        response = Response(
            render_template(
                "home.html",
                start=self._door() + url_for("start"),
                host=urlsplit(self._services.origin).netloc,
                scopes=describe_scopes(self._services.scopes),
                optional_scopes=describe_scopes(self._services.optional_scopes),
            )
        )
        self._cookies.recognise(request, response)
        return response

    def _door(self) -> str:
        """Before our paths: nothing, unless a developer says 127.0.0.1 where HubSpot will say localhost.

        To a browser those are two sites: the cookie of the one would not come along to the other.
        """
        called, wanted = request.environ.get(ORIGINAL_HOST, ""), urlsplit(self._services.origin)
        astray = _LOOPBACK.fullmatch(called) and _LOOPBACK.fullmatch(wanted.netloc) and called != wanted.netloc
        return self._services.origin if astray else ""

    def start(self) -> Response:
        return self._to_hubspot(_hub_id(request.args))

    @tracing.trace_calls("oauth.callback", SpanKind.SERVER)
    def callback(self) -> Response:
        """HubSpot sends the browser back: with a code, or with an error."""
        if request.method != "GET":
            abort(405)  # a HEAD must not spend the code
        state, code, error = (_single(request.args, name) for name in ("state", "code", "error"))
        if state is None and error is None:
            return self._begin_again()
        handshake = self._checked(state) if state is not None else ""
        if error is not None:
            raise AbortWithPage(problems.DENIED if error == "access_denied" else problems.NOT_GRANTED)
        if code is None:
            raise AbortWithPage(problems.NO_CODE)
        if not _CODE.fullmatch(code):
            raise AbortWithPage(problems.MALFORMED)
        install_id = self._states.install_id(handshake, code)
        if self._cookies.is_done(request, install_id):
            return Response(status=303, headers={"Location": _path(install_id)})
        return self._finish(install_id, code)

    def _to_hubspot(self, hub_id: int | None = None) -> Response:
        response = Response(status=302)
        browser = self._cookies.recognise(request, response)
        state = self._states.issue(browser, self._services.clock())
        response.location = self._services.hubspot.authorize_url(state, hub_id)
        return response

    def _begin_again(self) -> Response:
        """HubSpot's marketplace sends people here without a state: they begin, where we can tell whose they are."""
        restarts = self._cookies.restarts(request)
        if restarts >= MOST_RESTARTS:
            raise AbortWithPage(problems.STATE_LOST)
        response = self._to_hubspot()
        self._cookies.mark_restart(response, restarts + 1, url_for("callback"))
        return response

    def _checked(self, state: str) -> str:
        try:
            return self._states.check(state, self._cookies.browser(request), self._services.clock())
        except StateExpired:
            raise AbortWithPage(problems.STATE_EXPIRED) from None
        except StateOfAnotherBrowser:
            raise AbortWithPage(problems.OTHER_BROWSER) from None
        except StateRejected:
            raise AbortWithPage(problems.STATE_FORGED) from None

    def _finish(self, install_id: str, code: str) -> Response:
        """Exchange the code, once, and put the grant where it will not be lost."""
        try:
            grant = self._services.hubspot.exchange(code, self._services.clock)
        except CodeRejected as error:
            return self._twin(install_id, error)
        except ProviderError as error:
            _tell(error)
            raise problems.of(error) from None
        return self._keep(_install(install_id, grant))

    def _twin(self, install_id: str, error: CodeRejected) -> Response:
        """A double click sends the code twice, and shows the second answer: the first may have succeeded."""
        deadline = time.monotonic() + self._services.patience
        while (found := seen(self._services, install_id)) is None:
            if time.monotonic() >= deadline:
                _tell(error)
                raise problems.of(error)
            time.sleep(0.1)
        return self._to_install(InstallCookie(install_id, found.hub_id, self._services.clock().timestamp()))

    def _keep(self, install: Install) -> Response:
        tracing.set_attributes(hub_id=install.hub_id, install_id=install.install_id)
        kept = keep(self._services, self._services.cipher.encrypt_install(install))
        now = self._services.clock()
        ticket = InstallCookie(install.install_id, install.hub_id, now.timestamp())
        response = self._to_install(ticket.handed_in(now, kept) if kept else ticket)
        spare = self._services.cipher.encrypt_install(install.without_access_token()).ciphertext
        rides = self._cookies.set_if_it_fits(response, "grant", spare, path=_path(install.install_id))
        if not rides and not kept:
            raise AbortWithPage(problems.UNKEEPABLE)
        self._cookies.mark_done(response, install.install_id, url_for("callback"))
        log.info(
            "HubSpot granted a connection",
            hub_id=install.hub_id,
            install_id=install.install_id,
            handed_in=kept,
            in_cookie=rides,
        )
        return response

    def _to_install(self, ticket: InstallCookie) -> Response:
        """To the install's page, with the ticket that opens it."""
        path = _path(ticket.install_id)
        response = Response(status=303, headers={"Location": path})
        self._cookies.set(response, "ticket", self._tickets.sign(ticket), path=path)
        return response


def _path(install_id: str) -> str:
    return url_for("install_page", install_id=install_id)


def _install(install_id: str, grant: Grant) -> Install:
    if grant.hub_id is None or grant.refresh_token is None:
        _tell(TemporarilyUnavailable("incomplete_grant"))
        raise AbortWithPage(problems.UNWELL)
    return Install(
        install_id=install_id,
        hub_id=grant.hub_id,
        granted_at=grant.granted_at,
        refresh_token=grant.refresh_token,
        access_token=grant.access_token,
        expires_in=grant.expires_in,
        scopes=grant.scopes,
    )


def _tell(error: ProviderError) -> None:
    """For whoever runs this: what HubSpot said, never what it was asked."""
    tell = log.error if isinstance(error, InvalidClient) else log.warning
    tell("HubSpot granted nothing for a code", **error.evidence())


def _single(args: MultiDict[str, str], name: str) -> str | None:
    """None where it is absent or empty. Twice the same parameter, and nobody can say which one counts."""
    values = args.getlist(name)
    if len(values) > 1:
        raise AbortWithPage(problems.MALFORMED)
    return values[0] if values and values[0] else None


def _hub_id(args: MultiDict[str, str]) -> int | None:
    """The account to preselect; None where the field was left empty."""
    values = [value.strip() for value in args.getlist("hub_id")]
    if not any(values):
        return None
    if len(values) > 1 or not _HUB_ID.fullmatch(values[0]) or int(values[0]) > LARGEST_HUB_ID:
        raise AbortWithPage(problems.BAD_HUB_ID)
    return int(values[0])
