"""The consent page: which account, which scopes, allow or deny; and the front page, where accounts uninstall.

The page is a form, and scripts may send it too: POST to the address of the page, with `client_id`, `redirect_uri`,
`scope`, `optional_scope` and `state` as in the query, `hub_id`, and `answer`: allow, deny or close.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

from flask import Blueprint, Response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from sandbox.simulator.behaviour import Behaviour
from sandbox.simulator.simulation import Consent, Simulation
from shared.domain.hub_id import MAX_HUB_ID

_PARAMETERS = ("client_id", "redirect_uri", "scope", "optional_scope", "state")
_SCOPE = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_CONTACT = "Please contact the app developer."
#: How many accounts the pages list; any other number can be typed.
_LISTED_ACCOUNTS = 50


class ConsentError(Exception):
    """HubSpot shows an error page with this text, and the app gets no answer."""


@dataclass(frozen=True, slots=True)
class AuthorizeRequest:
    """The valid parameters of an authorize URL."""

    client_id: str
    redirect_uri: str
    scopes: tuple[str, ...]
    optional_scopes: tuple[str, ...]
    state: str | None

    def make_redirect_url(self, **answer: str) -> str:
        state = {} if self.state is None else {"state": self.state}
        separator = "&" if urlsplit(self.redirect_uri).query else "?"
        return f"{self.redirect_uri}{separator}{urlencode({**answer, **state}, quote_via=quote)}"


def make_consent_routes(sim: Simulation) -> Blueprint:
    routes = Blueprint("consent", __name__)

    @routes.get("/")
    def front() -> str:
        return render_template("front.html", accounts=sim.accounts.list_accounts(_LISTED_ACCOUNTS))

    @routes.post("/accounts/<int:hub_id>/uninstall")
    def uninstall(hub_id: int) -> BaseResponse:
        if hub_id <= MAX_HUB_ID:
            sim.uninstall(hub_id)
        return redirect("/", 303)

    @routes.get("/oauth/authorize")
    @routes.get("/oauth/<int:hub_id>/authorize")
    def show(hub_id: int | None = None) -> str:
        return _show_page(sim, hub_id)

    @routes.post("/oauth/authorize")
    @routes.post("/oauth/<int:hub_id>/authorize")
    def answer(hub_id: int | None = None) -> BaseResponse:
        return _handle_answer(sim, hub_id)

    @routes.errorhandler(ConsentError)
    def show_error(error: ConsentError) -> str:
        return render_template("problem.html", text=str(error))

    return routes


def _show_page(sim: Simulation, hub_id: int | None) -> str:
    authorize = _parse_authorize_request(request.args, sim.behaviour.common)
    if hub_id is None:
        accounts = [account for account, _ in sim.accounts.list_accounts(_LISTED_ACCOUNTS)]
    else:
        accounts = [sim.accounts.get_account(_parse_hub_id(str(hub_id)))]
    return render_template(
        "consent.html",
        authorize=authorize,
        accounts=accounts,
        parameters={name: request.args[name] for name in _PARAMETERS if name in request.args},
        any_account=hub_id is None,
    )


def _handle_answer(sim: Simulation, hub_id: int | None) -> BaseResponse:
    authorize = _parse_authorize_request(request.form, sim.behaviour.common)
    answer = request.form.get("answer")
    if answer == "close":
        return Response(render_template("closed.html"))
    if answer == "deny":
        text = "The user denied access to the app."
        return redirect(authorize.make_redirect_url(error="access_denied", error_description=text), 302)
    if answer != "allow":
        raise ConsentError("This install link is no longer valid.")
    chosen = _parse_hub_id(str(hub_id or request.form.get("other_hub_id") or request.form.get("hub_id", "")))
    code = sim.issue_code(chosen, _make_consent(authorize, sim.behaviour.for_hub(chosen)))
    return redirect(authorize.make_redirect_url(code=code), 302)


def _parse_authorize_request(parameters: Mapping[str, str], behaviour: Behaviour) -> AuthorizeRequest:
    """Raises ConsentError, with HubSpot's own texts where they are known."""
    if parameters.get("client_id") not in behaviour.client_ids:
        raise ConsentError(f"Authorization failed because an invalid application client_id was supplied. {_CONTACT}")
    redirect_uri = parameters.get("redirect_uri", "")
    parts = urlsplit(redirect_uri)
    is_registered = not behaviour.redirect_uris or redirect_uri in behaviour.redirect_uris
    if not is_registered or parts.scheme not in {"http", "https"} or not parts.hostname:
        text = f"the redirect URL '{redirect_uri}' doesn't match the app's registered redirect URL"
        raise ConsentError(f"Authorization failed as {text}")
    scopes, optional = (tuple(parameters.get(name, "").split()) for name in ("scope", "optional_scope"))
    if not scopes or not all(_SCOPE.fullmatch(scope) for scope in (*scopes, *optional)):
        raise ConsentError(f"An invalid scope name was provided. {_CONTACT}")
    if set(behaviour.required_scopes) - set(scopes):
        raise ConsentError(f"Authorization failed because the provided scopes are insufficient. {_CONTACT}")
    return AuthorizeRequest(parameters["client_id"], redirect_uri, scopes, optional, parameters.get("state"))


def _make_consent(authorize: AuthorizeRequest, behaviour: Behaviour) -> Consent:
    """Leaves out optional scopes that the account's plan lacks. Raises ConsentError where it lacks a required one."""
    if set(authorize.scopes) & set(behaviour.unavailable_scopes):
        raise ConsentError("This account doesn't have access to some HubSpot features that are required by this app.")
    optional = (scope for scope in authorize.optional_scopes if scope not in behaviour.unavailable_scopes)
    scopes = tuple(dict.fromkeys((*authorize.scopes, *optional)))
    return Consent(authorize.client_id, authorize.redirect_uri, scopes)


def _parse_hub_id(text: str) -> int:
    """Raises ConsentError."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20 and 0 < int(digits) <= MAX_HUB_ID):  # noqa: PLR2004 digits of 2**63
        raise ConsentError("Choose an account, or type the number of one (its hub id, digits only).")
    return int(digits)
