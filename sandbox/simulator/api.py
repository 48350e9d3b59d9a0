"""Routes of HubSpot's API that take an access token: contacts, account details, and the uninstall by the app."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, request

from sandbox.simulator.answers import Answer, make_ok, make_unauthorized
from sandbox.simulator.delivery import deliver
from sandbox.simulator.faults import Call
from sandbox.simulator.records import Installation
from sandbox.simulator.simulation import AccessTokenStatus, Simulation

_NOT_FOUND = (
    "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more "
    "details at https://developers.hubspot.com/docs/methods/auth/oauth-overview"
)


def make_api_routes(sim: Simulation) -> Blueprint:
    routes = Blueprint("api", __name__)

    @routes.get("/crm/v3/objects/contacts")
    @routes.get("/crm/objects/<any('2026-03', '2026-09'):version>/contacts")
    def contacts(version: str = "v3") -> Response:  # noqa: ARG001 all versions answer alike
        return _answer_with_token(sim, "api", lambda installation: make_ok(_make_contacts(sim, installation)))

    @routes.get("/account-info/<any('v3', '2025-09', '2026-03', '2026-09'):version>/details")
    def account_info(version: str) -> Response:  # noqa: ARG001 all versions answer alike
        return _answer_with_token(sim, "account_info", lambda installation: make_ok(_make_details(sim, installation)))

    @routes.delete("/appinstalls/<any('v3', '2026-03', '2026-09'):version>/external-install")
    def uninstall(version: str) -> Response:  # noqa: ARG001 all versions answer alike
        def work(installation: Installation) -> Answer:
            sim.uninstall([installation])
            return Answer(204)

        return _answer_with_token(sim, "uninstall", work)

    return routes


def _answer_with_token(sim: Simulation, endpoint: str, work: Callable[[Installation], Answer]) -> Response:
    """401 where the request has no bearer token that is live now."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    status = sim.check_access_token(text.strip() if scheme.lower() == "bearer" else "")
    owner = status.installation
    call = Call(endpoint, client_id=owner.client_id if owner else None, owner=owner)

    def work_or_refuse() -> Answer:
        if status.state == "live" and owner:
            return work(owner)
        return _refuse(status, sim.clock())

    return deliver(sim, call, work_or_refuse)


def _refuse(status: AccessTokenStatus, now: float) -> Answer:
    if status.state != "expired" or status.token is None:
        return make_unauthorized(_NOT_FOUND, "INVALID_AUTHENTICATION")
    expires_at = status.token.expires_at
    text = f"The OAuth token used to make this call expired {int(now - expires_at)} second(s) ago."
    instant = datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return make_unauthorized(text, "EXPIRED_AUTHENTICATION", context={"expire time": [instant]})


def _make_contacts(sim: Simulation, installation: Installation) -> dict[str, Any]:
    properties = {"email": sim.accounts.get_account(installation.hub_id).user, "hs_object_id": "1"}
    return {"results": [{"id": "1", "properties": properties, "archived": False}]}


def _make_details(sim: Simulation, installation: Installation) -> dict[str, Any]:
    """Fields and types of HubSpot's 2026-09 specification; `portalName` and `createdAt` are optional there."""
    account = sim.accounts.get_account(installation.hub_id)
    is_european = account.hublet.startswith("eu")
    fields = {
        "portalId": account.hub_id,
        "portalName": account.name,
        "accountType": account.account_type,
        "timeZone": "Europe/Dublin" if is_european else "US/Eastern",
        "companyCurrency": "EUR" if is_european else "USD",
        "additionalCurrencies": [],
        "utcOffset": "+00:00" if is_european else "-05:00",
        "utcOffsetMilliseconds": 0 if is_european else -18_000_000,
        "uiDomain": "app.hubspot.com" if account.hublet == "na1" else f"app-{account.hublet}.hubspot.com",
        "dataHostingLocation": account.hublet,
        "createdAt": 1_648_840_584_303,
    }
    omitted = sim.behaviour.find(installation.client_id, installation.hub_id).omit
    return {name: value for name, value in fields.items() if name not in omitted}
