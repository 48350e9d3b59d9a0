"""HubSpot's token endpoints: token, introspect and revoke in every version that it serves, and v1's own routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, request

from sandbox.simulator.answers import Answer, Refused, make_http_error, make_ok
from sandbox.simulator.delivery import deliver
from sandbox.simulator.faults import Call
from sandbox.simulator.records import RefreshToken
from sandbox.simulator.simulation import Simulation

FORM_TYPE = "application/x-www-form-urlencoded"
TOKEN_ROUTE = "/oauth/<any('v1', 'v3', '2026-03', '2026-09'):version>/token"  # noqa: S105 a route
NEW_TOKEN_ROUTE = "/oauth/<any('v3', '2026-03', '2026-09'):version>/token"  # noqa: S105 a route
_GRANTS = {"refresh_token": "refresh", "authorization_code": "code"}
#: The simulator has no apps and users of its own: any number will do.
_APP_ID, _USER_ID = 111111, 222222


def make_oauth_routes(sim: Simulation) -> Blueprint:
    routes = Blueprint("oauth", __name__)

    @routes.post(TOKEN_ROUTE)
    def token(version: str) -> Response:
        form = _read_form(with_query=version == "v1")
        call = Call("token", _GRANTS.get(form.get("grant_type", "")), sim.find_hub_id(form))
        return deliver(sim, call, lambda: _issue_token(sim, form))

    @routes.post(f"{NEW_TOKEN_ROUTE}/introspect")
    def introspect(version: str) -> Response:  # noqa: ARG001 all versions answer alike
        form = _read_form()
        call = Call("introspect", hub_id=sim.find_hub_id(form))
        return deliver(sim, call, lambda: _introspect(sim, form))

    @routes.post(f"{NEW_TOKEN_ROUTE}/revoke")
    def revoke(version: str) -> Response:  # noqa: ARG001 all versions answer alike
        form = _read_form()
        return deliver(sim, Call("revoke", hub_id=sim.find_hub_id(form)), lambda: _revoke(sim, form))

    @routes.delete("/oauth/v1/refresh-tokens/<token>")
    def delete(token: str) -> Response:
        call = Call("revoke", hub_id=sim.find_hub_id({"token": token}))
        return deliver(sim, call, lambda: _delete_refresh_token(sim, token))

    return routes


def _read_form(*, with_query: bool = False) -> dict[str, str]:
    """The parameters: in the body; v1 takes them from the query string too."""
    query = request.args.to_dict() if with_query else {}
    return {**query, **request.form.to_dict()} if request.mimetype == FORM_TYPE else {}


def _issue_token(sim: Simulation, form: Mapping[str, str]) -> Answer:
    if request.mimetype != FORM_TYPE:
        return make_http_error(415)
    grant = _GRANTS.get(form.get("grant_type", ""))
    if grant is None and "client_id" not in form:
        # no parameter was understood: this is HubSpot's answer to JSON sent as a form
        raise Refused("BAD_GRANT_TYPE")
    _check_client_id(sim, form)
    if grant is None:
        raise Refused("BAD_GRANT_TYPE")
    _check_client_secret(sim, form)
    if grant == "refresh":
        return sim.refresh(form.get("refresh_token", ""), form["client_id"])
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
    if status.state != "live" or status.token is None:
        return make_ok({"active": False})
    token = status.token
    grant = sim.accounts.find_latest_refresh_token(token.hub_id) or RefreshToken(
        text, token.hub_id, form["client_id"], (), None
    )
    # only access tokens have this; the simulator signs nothing
    signed_access_token = {
        "expiresAt": int(token.expires_at * 1000),
        "scopes": list(grant.scopes),
        "hubId": grant.hub_id,
        "userId": _USER_ID,
        "appId": _APP_ID,
        "signature": "simulated",
        "hublet": "na1",
        "isUserLevel": False,
        "isPrivateDistribution": False,
    }
    return _describe_token(
        sim,
        form,
        grant,
        token_use="access_token",  # noqa: S106 no secret
        expires_in=int(token.expires_at - sim.clock()),
        signed_access_token=signed_access_token,
        is_private_distribution=False,
    )


def _describe_token(sim: Simulation, form: Mapping[str, str], grant: RefreshToken, **extra: Any) -> Answer:
    account = sim.accounts.get_account(grant.hub_id)
    return make_ok(
        {
            "active": True,
            "token": form["token"],
            "hub_id": grant.hub_id,
            "user_id": _USER_ID,
            "client_id": form["client_id"],
            "app_id": _APP_ID,
            "user": account.user,
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
    if form.get("client_id") not in sim.behaviour.common.client_ids:
        raise Refused("BAD_CLIENT_ID")


def _check_client_secret(sim: Simulation, form: Mapping[str, str]) -> None:
    """Raises Refused."""
    if form.get("client_secret") not in sim.behaviour.common.client_secrets:
        raise Refused("BAD_CLIENT_SECRET")
