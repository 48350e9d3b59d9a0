"""HubSpot's token endpoints: token, introspect and revoke in every version that it serves, and v1's own routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, request

from sandbox.simulator.access_tokens import AccessToken
from sandbox.simulator.answers import Answer, Refused, make_http_error, make_ok
from sandbox.simulator.delivery import deliver
from sandbox.simulator.faults import Call
from sandbox.simulator.records import DEFAULT_USER_ID, NO_USER, Installation, RefreshToken
from sandbox.simulator.simulation import Simulation

FORM_TYPE = "application/x-www-form-urlencoded"
TOKEN_ROUTE = "/oauth/<any('v1', 'v3', '2026-03', '2026-09'):version>/token"  # noqa: S105 a route
NEW_TOKEN_ROUTE = "/oauth/<any('v3', '2026-03', '2026-09'):version>/token"  # noqa: S105 a route
_GRANTS = {"refresh_token": "refresh", "authorization_code": "code", "client_credentials": "client"}


def make_oauth_routes(sim: Simulation) -> Blueprint:
    routes = Blueprint("oauth", __name__)

    @routes.post(TOKEN_ROUTE)
    def token(version: str) -> Response:
        form = _read_form(with_query=version == "v1")
        grant = _GRANTS.get(form.get("grant_type", ""))
        if version == "v1" and grant == "client":
            grant = None
        return deliver(sim, _make_call(sim, "token", form, grant), lambda: _issue_token(sim, form, grant))

    @routes.post(f"{NEW_TOKEN_ROUTE}/introspect")
    def introspect(version: str) -> Response:  # noqa: ARG001 all versions answer alike
        form = _read_form()
        return deliver(sim, _make_call(sim, "introspect", form), lambda: _introspect(sim, form))

    @routes.post(f"{NEW_TOKEN_ROUTE}/revoke")
    def revoke(version: str) -> Response:  # noqa: ARG001 all versions answer alike
        form = _read_form()
        return deliver(sim, _make_call(sim, "revoke", form), lambda: _revoke(sim, form))

    @routes.delete("/oauth/v1/refresh-tokens/<token>")
    def delete(token: str) -> Response:
        call = _make_call(sim, "revoke", {"token": token})
        return deliver(sim, call, lambda: _delete_refresh_token(sim, token))

    return routes


def _make_call(sim: Simulation, endpoint: str, form: Mapping[str, str], grant: str | None = None) -> Call:
    """The app is the one that calls, also where code or token belong to another."""
    owner = sim.find_installation(form)
    client_id = form.get("client_id") or (owner.client_id if owner else None)
    return Call(endpoint, grant, client_id, owner)


def _read_form(*, with_query: bool = False) -> dict[str, str]:
    """The parameters: in the body; v1 takes them from the query string too."""
    query = request.args.to_dict() if with_query else {}
    return {**query, **request.form.to_dict()} if request.mimetype == FORM_TYPE else {}


def _issue_token(sim: Simulation, form: Mapping[str, str], grant: str | None) -> Answer:
    if request.mimetype != FORM_TYPE:
        return make_http_error(415)
    if grant is None and "client_id" not in form:
        # no parameter was understood: this is HubSpot's answer to JSON sent as a form
        raise Refused("BAD_GRANT_TYPE")
    _check_client_id(sim, form)
    if grant is None:
        raise Refused("BAD_GRANT_TYPE")
    _check_client_secret(sim, form)
    if grant == "refresh":
        return sim.refresh(form.get("refresh_token", ""), form["client_id"])
    if grant == "client":
        return sim.issue_app_token(form["client_id"], tuple(form.get("scope", "").split()))
    return sim.exchange(form.get("code", ""), form["client_id"], form.get("redirect_uri", ""))


def _introspect(sim: Simulation, form: Mapping[str, str]) -> Answer:
    """A token that is unknown, expired, revoked or another app's gets the same answer: not active."""
    if request.mimetype != FORM_TYPE:
        return make_http_error(415)
    _check_client_id(sim, form)
    _check_client_secret(sim, form)
    text = form.get("token", "")
    refresh_token = sim.find_valid_refresh_token(text, form["client_id"])
    if refresh_token:
        return _describe_token(sim, form, refresh_token, token_use="refresh_token")  # noqa: S106 no secret
    status = sim.check_access_token(text)
    token, installation = status.token, status.installation
    is_own = installation is not None and installation.client_id == form["client_id"]
    if status.state != "live" or token is None or installation is None or not is_own:
        return make_ok({"active": False})
    grant = sim.accounts.find_latest_refresh_token(installation) or RefreshToken(text, installation, (), None)
    return _describe_token(
        sim,
        form,
        grant,
        token_use="access_token",  # noqa: S106 no secret
        expires_in=int(token.expires_at - sim.clock()),
        signed_access_token=_make_signed_access_token(sim, installation, token, grant),
        is_private_distribution=False,
    )


def _make_signed_access_token(
    sim: Simulation, installation: Installation, token: AccessToken, grant: RefreshToken
) -> dict[str, Any]:
    """Only the introspection of an access token has this. The simulator signs nothing."""
    user_id = installation.user_id or DEFAULT_USER_ID
    return {
        "expiresAt": int(token.expires_at * 1000),
        "scopes": list(grant.scopes),
        "hubId": installation.hub_id,
        "userId": user_id,
        "installingUserId": user_id,
        "appId": token.app_id,
        "signature": "simulated",
        "hublet": sim.accounts.get_account(installation.hub_id).hublet,
        "isUserLevel": installation.user_id != NO_USER,
        "isServiceAccount": False,
        "isPrivateDistribution": False,
    }


def _describe_token(sim: Simulation, form: Mapping[str, str], grant: RefreshToken, **extra: Any) -> Answer:
    installation = grant.installation
    account = sim.accounts.get_account(installation.hub_id)
    return make_ok(
        {
            "active": True,
            "token": form["token"],
            "hub_id": account.hub_id,
            "user_id": installation.user_id or DEFAULT_USER_ID,
            "client_id": installation.client_id,
            "app_id": sim.accounts.get_app_id(installation.client_id),
            "user": account.find_email(installation.user_id),
            "hub_domain": account.domain,
            "scopes": list(grant.scopes),
            "token_type": "Bearer",
            **extra,
        }
    )


def _revoke(sim: Simulation, form: Mapping[str, str]) -> Answer:
    """200 also for an unknown token (RFC 7009). Access tokens stay valid, the app stays installed."""
    if request.mimetype != FORM_TYPE:
        return make_http_error(415)
    _check_client_id(sim, form)
    _check_client_secret(sim, form)
    if sim.find_valid_refresh_token(form.get("token", ""), form["client_id"]):
        sim.accounts.revoke(form["token"], sim.clock())
    return Answer(200)


def _delete_refresh_token(sim: Simulation, token: str) -> Answer:
    stored = sim.accounts.find_refresh_token(token)
    if stored is None or not stored.is_valid(sim.clock()):
        return make_http_error(404)
    sim.accounts.revoke(token, sim.clock())
    return Answer(204)


def _check_client_id(sim: Simulation, form: Mapping[str, str]) -> None:
    """Raises Refused."""
    if not sim.behaviour.is_app(form.get("client_id")):
        raise Refused("BAD_CLIENT_ID")


def _check_client_secret(sim: Simulation, form: Mapping[str, str]) -> None:
    """Raises Refused."""
    if form.get("client_secret") not in sim.behaviour.find(form.get("client_id")).client_secrets:
        raise Refused("BAD_CLIENT_SECRET")
