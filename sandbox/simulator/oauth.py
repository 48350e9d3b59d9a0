"""HubSpot's token endpoints: token, introspect, revoke, in every version that it serves, and what v1 had instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, request

from sandbox.simulator.answers import Answer, Refused, http_error, ok
from sandbox.simulator.delivery import answered
from sandbox.simulator.faults import Call
from sandbox.simulator.records import Account, RefreshToken
from sandbox.simulator.simulation import Simulation

FORM = "application/x-www-form-urlencoded"
TOKEN_PATHS = "/oauth/<any('v1', 'v3', '2026-03', '2026-09'):version>/token"  # noqa: S105 a route
NEW = "/oauth/<any('v3', '2026-03', '2026-09'):version>/token"
_GRANTS = {"refresh_token": "refresh", "authorization_code": "code"}
#: Any number will do for things that the simulator has none of.
_APP_ID, _USER_ID = 111111, 222222


def oauth_routes(sim: Simulation) -> Blueprint:
    routes = Blueprint("oauth", __name__)

    @routes.post(TOKEN_PATHS)
    def token(version: str) -> Response:
        form = _form(with_query=version == "v1")
        call = Call("token", _GRANTS.get(form.get("grant_type", "")), sim.hub_of(form))
        return answered(sim, call, lambda: _token(sim, form))

    @routes.post(f"{NEW}/introspect")
    def introspect(version: str) -> Response:  # noqa: ARG001 all versions answer alike
        form = _form()
        call = Call("introspect", hub_id=sim.hub_of(form))
        return answered(sim, call, lambda: _introspected(sim, form))

    @routes.post(f"{NEW}/revoke")
    def revoke(version: str) -> Response:  # noqa: ARG001 all versions answer alike
        form = _form()
        return answered(sim, Call("revoke", hub_id=sim.hub_of(form)), lambda: _revoked(sim, form))

    @routes.delete("/oauth/v1/refresh-tokens/<token>")
    def delete(token: str) -> Response:
        return answered(sim, Call("revoke", hub_id=sim.hub_of({"token": token})), lambda: _deleted(sim, token))

    return routes


def _form(*, with_query: bool = False) -> dict[str, str]:
    """The parameters: in the body; v1 takes them from the query string too."""
    query = request.args.to_dict() if with_query else {}
    return {**query, **request.form.to_dict()} if request.mimetype == FORM else {}


def _token(sim: Simulation, form: Mapping[str, str]) -> Answer:
    if request.mimetype != FORM:
        return http_error(415)
    grant = _GRANTS.get(form.get("grant_type", ""))
    if grant is None and "client_id" not in form:
        # nothing of it was understood: JSON sent as a form is answered like this
        raise Refused("BAD_GRANT_TYPE")
    _known_client(sim, form)
    if grant is None:
        raise Refused("BAD_GRANT_TYPE")
    _right_secret(sim, form)
    if grant == "refresh":
        return sim.refresh(form.get("refresh_token", ""), form["client_id"])
    return sim.exchange(form.get("code", ""), form["client_id"], form.get("redirect_uri", ""))


def _known_client(sim: Simulation, form: Mapping[str, str]) -> None:
    if form.get("client_id") not in sim.knobs.base.client_ids:
        raise Refused("BAD_CLIENT_ID")


def _right_secret(sim: Simulation, form: Mapping[str, str]) -> None:
    if form.get("client_secret") not in sim.knobs.base.client_secrets:
        raise Refused("BAD_CLIENT_SECRET")


def _introspected(sim: Simulation, form: Mapping[str, str]) -> Answer:
    """Tokens that are unknown, dead or another app's are all the same: not active."""
    if request.mimetype != FORM:
        return http_error(415)
    _known_client(sim, form)
    _right_secret(sim, form)
    text = form.get("token", "")
    refresh_token = sim.living(text, form["client_id"])
    if refresh_token:
        return _described(sim, form, refresh_token, token_use="refresh_token")  # noqa: S106 no secret
    sight = sim.sight(text)
    if sight.state != "live" or sight.token is None:
        return ok({"active": False})
    left = int(sight.token.expires_at - sim.clock())
    installed = sim.accounts.latest_of(sight.token.hub_id)
    holder = installed or RefreshToken(text, sight.token.hub_id, form["client_id"], (), None)
    signed = _signed(holder, sight.token.expires_at)
    return _described(sim, form, holder, token_use="access_token", expires_in=left, **signed)  # noqa: S106 no secret


def _described(sim: Simulation, form: Mapping[str, str], held: RefreshToken, **more: Any) -> Answer:
    account: Account = sim.accounts.account(held.hub_id)
    return ok(
        {
            "active": True,
            "token": form["token"],
            "hub_id": held.hub_id,
            "user_id": _USER_ID,
            "client_id": form["client_id"],
            "app_id": _APP_ID,
            "user": account.user,
            "hub_domain": account.domain,
            "scopes": list(held.scopes),
            "token_type": "Bearer",
            **more,
        }
    )


def _signed(held: RefreshToken, expires_at: float) -> dict[str, Any]:
    """What only access tokens have; the signature of the simulator's is none."""
    inside = {
        "expiresAt": int(expires_at * 1000),
        "scopes": list(held.scopes),
        "hubId": held.hub_id,
        "userId": _USER_ID,
        "appId": _APP_ID,
        "signature": "simulated",
        "hublet": "na1",
        "isUserLevel": False,
        "isPrivateDistribution": False,
    }
    return {"signed_access_token": inside, "is_private_distribution": False}


def _revoked(sim: Simulation, form: Mapping[str, str]) -> Answer:
    """200 also for a token that is unknown (RFC 7009). Access tokens live on, the app stays installed."""
    if request.mimetype != FORM:
        return http_error(415)
    _known_client(sim, form)
    _right_secret(sim, form)
    if sim.living(form.get("token", ""), form["client_id"]):
        sim.accounts.revoke(form["token"], sim.clock())
    return Answer(200)


def _deleted(sim: Simulation, token: str) -> Answer:
    known = sim.accounts.refresh_token(token)
    if known is None or not known.lives(sim.clock()):
        return http_error(404)
    sim.accounts.revoke(token, sim.clock())
    return Answer(204)
