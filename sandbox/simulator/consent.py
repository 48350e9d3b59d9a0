"""The consent page: whose account, which scopes, allow or deny; and the front page, where accounts uninstall.

The page is a form, and scripts may send it too: POST to the address of the page, with `client_id`, `redirect_uri`,
`scope`, `optional_scope`, `state` as they stood in the query, `hub_id`, and `answer`: allow, deny or close.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

from flask import Blueprint, Response, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from sandbox.simulator.behaviour import Behaviour
from sandbox.simulator.simulation import Consent, Simulation
from shared.domain.hub_id import MAX_HUB_ID

_ASKED = ("client_id", "redirect_uri", "scope", "optional_scope", "state")
_SCOPE = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_PLEASE = "Please contact the app developer."
#: How many accounts the pages list; any other number can be typed.
_LISTED = 50


class NoConsent(Exception):
    """HubSpot shows an error page with this text, and nothing goes back to the app."""


@dataclass(frozen=True, slots=True)
class _Question:
    """What the authorize URL asks for, found to be in order."""

    client_id: str
    redirect_uri: str
    scopes: tuple[str, ...]
    optional_scopes: tuple[str, ...]
    state: str | None

    def back(self, **answer: str) -> str:
        """The app's address with the answer in it."""
        state = {} if self.state is None else {"state": self.state}
        joint = "&" if urlsplit(self.redirect_uri).query else "?"
        return f"{self.redirect_uri}{joint}{urlencode({**answer, **state}, quote_via=quote)}"


def consent_routes(sim: Simulation) -> Blueprint:
    routes = Blueprint("consent", __name__)

    @routes.get("/")
    def front() -> str:
        return render_template("front.html", accounts=sim.accounts.listed(_LISTED))

    @routes.post("/accounts/<int:hub_id>/uninstall")
    def uninstall(hub_id: int) -> AnyResponse:
        if hub_id <= MAX_HUB_ID:
            sim.uninstall(hub_id)
        return redirect("/", 303)

    @routes.get("/oauth/authorize")
    @routes.get("/oauth/<int:hub_id>/authorize")
    def ask(hub_id: int | None = None) -> str:
        return _asked(sim, hub_id)

    @routes.post("/oauth/authorize")
    @routes.post("/oauth/<int:hub_id>/authorize")
    def answer(hub_id: int | None = None) -> AnyResponse:
        return _answered(sim, hub_id)

    @routes.errorhandler(NoConsent)
    def refuse(error: NoConsent) -> str:
        return render_template("problem.html", text=str(error))

    return routes


def _asked(sim: Simulation, hub_id: int | None) -> str:
    question = _question(request.args, sim.knobs.base)
    if hub_id is None:
        accounts = [account for account, _ in sim.accounts.listed(_LISTED)]
    else:
        accounts = [sim.accounts.account(_hub(str(hub_id)))]
    kept = {name: request.args[name] for name in _ASKED if name in request.args}
    return render_template("consent.html", question=question, accounts=accounts, kept=kept, any_account=hub_id is None)


def _answered(sim: Simulation, hub_id: int | None) -> AnyResponse:
    question = _question(request.form, sim.knobs.base)
    answer = request.form.get("answer")
    if answer == "close":
        return Response(render_template("closed.html"))
    if answer == "deny":
        text = "The user denied access to the app."
        return redirect(question.back(error="access_denied", error_description=text), 302)
    if answer != "allow":
        raise NoConsent("This install link is no longer valid.")
    chosen = _hub(str(hub_id or request.form.get("other_hub_id") or request.form.get("hub_id", "")))
    code = sim.consented(chosen, _granted(question, sim.knobs.of(chosen)))
    return redirect(question.back(code=code), 302)


def _question(asked: Mapping[str, str], knobs: Behaviour) -> _Question:
    """Raises NoConsent, with HubSpot's own words where they are known."""
    if asked.get("client_id") not in knobs.client_ids:
        raise NoConsent(f"Authorization failed because an invalid application client_id was supplied. {_PLEASE}")
    address = asked.get("redirect_uri", "")
    parts = urlsplit(address)
    known = not knobs.redirect_uris or address in knobs.redirect_uris
    if not known or parts.scheme not in {"http", "https"} or not parts.hostname:
        text = f"the redirect URL '{address}' doesn't match the app's registered redirect URL"
        raise NoConsent(f"Authorization failed as {text}")
    scopes, optional = (tuple(asked.get(name, "").split()) for name in ("scope", "optional_scope"))
    if not scopes or not all(_SCOPE.fullmatch(scope) for scope in (*scopes, *optional)):
        raise NoConsent(f"An invalid scope name was provided. {_PLEASE}")
    if set(knobs.required_scopes) - set(scopes):
        raise NoConsent(f"Authorization failed because the provided scopes are insufficient. {_PLEASE}")
    return _Question(asked["client_id"], address, scopes, optional, asked.get("state"))


def _granted(question: _Question, knobs: Behaviour) -> Consent:
    """Optional scopes that the account's plan lacks are left out; a required one ends it."""
    if set(question.scopes) & set(knobs.unavailable_scopes):
        text = "This account doesn't have access to some HubSpot features that are required by this app."
        raise NoConsent(text)
    optional = (scope for scope in question.optional_scopes if scope not in knobs.unavailable_scopes)
    scopes = tuple(dict.fromkeys((*question.scopes, *optional)))
    return Consent(question.client_id, question.redirect_uri, scopes)


def _hub(text: str) -> int:
    """Raises NoConsent for what is no account's number."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20 and 0 < int(digits) <= MAX_HUB_ID):  # noqa: PLR2004 digits of 2**63
        raise NoConsent("Choose an account, or type the number of one (its hub id, digits only).")
    return int(digits)
