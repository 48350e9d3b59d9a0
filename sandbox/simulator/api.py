"""Routes of HubSpot's API that take an access token: contacts, account details, and the uninstall by the app."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, request

from sandbox.simulator.answers import Answer, make_ok, make_unauthorized
from sandbox.simulator.delivery import deliver
from sandbox.simulator.faults import Call
from sandbox.simulator.records import Account
from sandbox.simulator.simulation import AccessTokenStatus, Simulation

_NOT_FOUND = (
    "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more "
    "details at https://developers.hubspot.com/docs/methods/auth/oauth-overview"
)


def make_api_routes(sim: Simulation) -> Blueprint:
    routes = Blueprint("api", __name__)

    @routes.get("/crm/v3/objects/contacts")
    def contacts() -> Response:
        return _answer_with_token(sim, "api", lambda account: make_ok(_make_contacts(account)))

    @routes.get("/account-info/<version>/details")
    def account_info(version: str) -> Response:  # noqa: ARG001 all versions answer alike
        return _answer_with_token(sim, "api", lambda account: make_ok(_make_details(account)))

    @routes.delete("/appinstalls/<any('v3', '2026-03', '2026-09'):version>/external-install")
    def uninstall(version: str) -> Response:  # noqa: ARG001 all versions answer alike
        def work(account: Account) -> Answer:
            sim.uninstall(account.hub_id)
            return Answer(204)

        return _answer_with_token(sim, "uninstall", work)

    return routes


def _answer_with_token(sim: Simulation, endpoint: str, work: Callable[[Account], Answer]) -> Response:
    """401 where the request has no bearer token that is live now."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    status = sim.check_access_token(text.strip() if scheme.lower() == "bearer" else "")
    hub_id = status.token.hub_id if status.token else None

    def work_or_refuse() -> Answer:
        if status.state == "live" and status.token:
            return work(sim.accounts.get_account(status.token.hub_id))
        return _refuse(status, sim.clock())

    return deliver(sim, Call(endpoint, hub_id=hub_id), work_or_refuse)


def _refuse(status: AccessTokenStatus, now: float) -> Answer:
    if status.state != "expired" or status.token is None:
        return make_unauthorized(_NOT_FOUND, "INVALID_AUTHENTICATION")
    expires_at = status.token.expires_at
    text = f"The OAuth token used to make this call expired {int(now - expires_at)} second(s) ago."
    instant = datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return make_unauthorized(text, "EXPIRED_AUTHENTICATION", context={"expire time": [instant]})


def _make_contacts(account: Account) -> dict[str, Any]:
    properties = {"email": account.user, "hs_object_id": "1"}
    return {"results": [{"id": "1", "properties": properties, "archived": False}]}


def _make_details(account: Account) -> dict[str, Any]:
    return {
        "portalId": account.hub_id,
        "accountType": "STANDARD",
        "timeZone": "Europe/Dublin",
        "companyCurrency": "EUR",
        "uiDomain": "app.hubspot.com",
        "dataHostingLocation": "na1",
    }
