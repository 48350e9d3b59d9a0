"""What an access token is good for: a few of HubSpot's ordinary routes, and the uninstall by the app."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, request

from sandbox.simulator.answers import Answer, ok, unauthorized
from sandbox.simulator.delivery import answered
from sandbox.simulator.faults import Call
from sandbox.simulator.records import Account
from sandbox.simulator.simulation import Sight, Simulation

_NOT_FOUND = (
    "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more "
    "details at https://developers.hubspot.com/docs/methods/auth/oauth-overview"
)


def api_routes(sim: Simulation) -> Blueprint:
    routes = Blueprint("api", __name__)

    @routes.get("/crm/v3/objects/contacts")
    def contacts() -> Response:
        return _with_bearer(sim, "api", lambda account: ok(_contacts(account)))

    @routes.get("/account-info/<version>/details")
    def account_info(version: str) -> Response:  # noqa: ARG001 all versions answer alike
        return _with_bearer(sim, "api", lambda account: ok(_details(account)))

    @routes.delete("/appinstalls/<any('v3', '2026-03', '2026-09'):version>/external-install")
    def uninstall(version: str) -> Response:  # noqa: ARG001 all versions answer alike
        def work(account: Account) -> Answer:
            sim.uninstall(account.hub_id)
            return Answer(204)

        return _with_bearer(sim, "uninstall", work)

    return routes


def _with_bearer(sim: Simulation, where: str, work: Callable[[Account], Answer]) -> Response:
    sight = sim.sight(_bearer())
    hub_id = sight.token.hub_id if sight.token else None

    def guarded() -> Answer:
        if sight.state == "live" and sight.token:
            return work(sim.accounts.account(sight.token.hub_id))
        return _turned_away(sight, sim.clock())

    return answered(sim, Call(where, hub_id=hub_id), guarded)


def _bearer() -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _turned_away(sight: Sight, now: float) -> Answer:
    if sight.state != "expired" or sight.token is None:
        return unauthorized(_NOT_FOUND, "INVALID_AUTHENTICATION")
    ended = sight.token.expires_at
    text = f"The OAuth token used to make this call expired {int(now - ended)} second(s) ago."
    instant = datetime.fromtimestamp(ended, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return unauthorized(text, "EXPIRED_AUTHENTICATION", context={"expire time": [instant]})


def _contacts(account: Account) -> dict[str, Any]:
    properties = {"email": account.user, "hs_object_id": "1"}
    return {"results": [{"id": "1", "properties": properties, "archived": False}]}


def _details(account: Account) -> dict[str, Any]:
    return {
        "portalId": account.hub_id,
        "accountType": "STANDARD",
        "timeZone": "Europe/Dublin",
        "companyCurrency": "EUR",
        "uiDomain": "app.hubspot.com",
        "dataHostingLocation": "na1",
    }
