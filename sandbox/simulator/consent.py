"""The consent page: which account, which scopes, allow or deny; and the front page, where accounts uninstall.

The page is a form, and scripts may send it too: POST to the address of the page, with `client_id`, `redirect_uri`,
`scope`, `optional_scope` and `state` as in the query, `hub_id`, `user_id` for a user-level app, and `answer`: allow,
deny or close.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

from flask import Blueprint, Response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from sandbox.simulator.behaviour import Behaviour, BehaviourSettings
from sandbox.simulator.records import DEFAULT_USER_ID, NO_USER
from sandbox.simulator.simulation import Consent, Simulation
from shared.domain.hub_id import MAX_HUB_ID

_PARAMETERS = ("client_id", "redirect_uri", "scope", "optional_scope", "state")
_SCOPE = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_CONTACT = "Please contact the app developer."
#: How many accounts the pages list; any other number can be typed.
_LISTED_ACCOUNTS = 50
#: Users of an account that the page of a user-level app lists; any other number can be typed.
_LISTED_USERS = range(DEFAULT_USER_ID, DEFAULT_USER_ID + 3)


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
    is_user_level: bool

    def make_redirect_url(self, **answer: str) -> str:
        state = {} if self.state is None else {"state": self.state}
        separator = "&" if urlsplit(self.redirect_uri).query else "?"
        return f"{self.redirect_uri}{separator}{urlencode({**answer, **state}, quote_via=quote)}"


def make_consent_routes(sim: Simulation) -> Blueprint:
    routes = Blueprint("consent", __name__)

    @routes.get("/")
    def front() -> str:
        accounts = sim.accounts.list_accounts(_LISTED_ACCOUNTS)
        return render_template("front.html", accounts=accounts, has_one_app=len(sim.behaviour.list_client_ids()) == 1)

    @routes.post("/accounts/<int:hub_id>/uninstall")
    def uninstall(hub_id: int) -> BaseResponse:
        """`client_id` and `user_id` of the form: of one installation; without them all are ended."""
        if hub_id <= MAX_HUB_ID:
            user_id = request.form.get("user_id", type=int)
            installations = sim.accounts.list_installations(
                hub_id=hub_id, client_id=request.form.get("client_id"), user_id=user_id
            )
            sim.uninstall(installations)
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
    authorize = _parse_authorize_request(request.args, sim.behaviour)
    if hub_id is None:
        accounts = [account for account, _ in sim.accounts.list_accounts(_LISTED_ACCOUNTS)]
    else:
        accounts = [sim.accounts.get_account(parse_hub_id(str(hub_id)))]
    return render_template(
        "consent.html",
        authorize=authorize,
        accounts=accounts,
        parameters={name: request.args[name] for name in _PARAMETERS if name in request.args},
        any_account=hub_id is None,
        users=_LISTED_USERS if authorize.is_user_level else (),
    )


def _handle_answer(sim: Simulation, hub_id: int | None) -> BaseResponse:
    authorize = _parse_authorize_request(request.form, sim.behaviour)
    answer = request.form.get("answer")
    if answer == "close":
        return Response(render_template("closed.html"))
    if answer == "deny":
        text = "The user denied access to the app."
        return redirect(authorize.make_redirect_url(error="access_denied", error_description=text), 302)
    if answer != "allow":
        raise ConsentError("This install link is no longer valid.")
    chosen = parse_hub_id(str(hub_id or request.form.get("other_hub_id") or request.form.get("hub_id", "")))
    user_id = NO_USER
    if authorize.is_user_level:
        user_id = _parse_user_id(request.form.get("other_user_id") or request.form.get("user_id") or "")
    code = sim.issue_code(chosen, _make_consent(authorize, user_id, sim.behaviour.find(authorize.client_id, chosen)))
    return redirect(authorize.make_redirect_url(code=code), 302)


def _parse_authorize_request(parameters: Mapping[str, str], settings: BehaviourSettings) -> AuthorizeRequest:
    """Raises ConsentError, with HubSpot's own texts where they are known."""
    client_id = parameters.get("client_id", "")
    behaviour = settings.find(client_id)
    if not settings.is_app(client_id):
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
    state = parameters.get("state")
    return AuthorizeRequest(client_id, redirect_uri, scopes, optional, state, behaviour.user_level)


def _make_consent(authorize: AuthorizeRequest, user_id: int, behaviour: Behaviour) -> Consent:
    """Leaves out optional scopes that the account's plan lacks. Raises ConsentError where it lacks a required one."""
    if set(authorize.scopes) & set(behaviour.unavailable_scopes):
        raise ConsentError("This account doesn't have access to some HubSpot features that are required by this app.")
    optional = (scope for scope in authorize.optional_scopes if scope not in behaviour.unavailable_scopes)
    scopes = tuple(dict.fromkeys((*authorize.scopes, *optional)))
    return Consent(authorize.client_id, authorize.redirect_uri, scopes, user_id)


def parse_hub_id(text: str) -> int:
    """Raises ConsentError."""
    return _parse_id(text, "Choose an account, or type the number of one (its hub id, digits only).")


def _parse_user_id(text: str) -> int:
    """Raises ConsentError."""
    return _parse_id(text, "Choose a user, or type the number of one (digits only).")


def _parse_id(text: str, advice: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20 and 0 < int(digits) <= MAX_HUB_ID):  # noqa: PLR2004 digits of 2**63
        raise ConsentError(advice)
    return int(digits)
