"""The control interface, /_sim/: change the behaviour, request faults, install accounts, read statistics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, request

from sandbox.simulator.behaviour import InvalidBehaviour
from sandbox.simulator.faults import KINDS, InvalidFault
from sandbox.simulator.marketplace import FLOWS, Marketplace, UnknownInstall
from sandbox.simulator.records import Account
from sandbox.simulator.simulation import AccessTokenStatus, Simulation
from shared.domain.hub_id import MAX_HUB_ID

#: Accounts that one call may create.
MAX_INSTALLS = 2_000_000
ACCOUNT_FIELDS = ("name", "domain", "user", "account_type", "hublet")

MANUAL = {
    "GET /_sim/health": "204 while it runs",
    "GET /_sim/settings": "the current ones, for all, by app and by account",
    "POST /_sim/settings[?hub_id=N|client_id=X]": "change some, e.g. {'lifetime': 20, 'latency': [0.1, 0.3]}; for one "
    "account, or for one app, which is created where it does not exist",
    "DELETE /_sim/settings?hub_id=N|client_id=X": "remove those of that account or app: the common ones hold again",
    "GET /_sim/apps[?client_id=X]": "the app ids of all apps by client id, or of one",
    "POST /_sim/accounts/N": "change an account: {'name', 'domain', 'user', 'account_type', 'hublet'}",
    "GET /_sim/faults": "the requested ones, how often each was hit, and the kinds there are",
    "POST /_sim/faults": "{'kind', 'where', 'grant', 'hub_id', 'client_id', 'times', "
    "'probability', 'retry_after', 'seconds'}",
    "DELETE /_sim/faults[?id=N]": "one, or all",
    "POST /_sim/install?hub_id=N[&client_id=X][&user_id=N]": "install an app; answers the refresh token",
    "POST /_sim/installs": "{'count': 5000, 'first_hub_id': 1000000, 'client_id'} or {'hub_ids': [...], 'client_id'}; "
    "answers pairs",
    "POST /_sim/uninstall": "by customers: {'hub_id', 'client_id', 'user_id'}, each may be left out, for any; "
    "{'keep_access_tokens': true} keeps those valid",
    "GET /_sim/journal[?client_id=X]": "the events in the files of an app's journal, and its subscriptions",
    "POST /_sim/journal": "publish a file with {'events': [...]}, whatever they contain, for {'client_id'}",
    "DELETE /_sim/journal[?client_id=X]": "as if the retention of all files were over: their offsets are lost",
    "GET /_sim/marketplace": "installs that began on the Marketplace, with every visit of their returnUrl",
    "POST /_sim/marketplace": "begin one: {'hub_id', 'install_url', 'flow': 'code', 'sign_in' or 'bare', 'client_id', "
    "'user_id', 'return_query'}; answers the URL that the browser opens",
    "POST /_sim/marketplace/ID": "{'is_allowed'}: the answer at the consent page; answers the URL of the last leg",
    "POST /_sim/check": "{'tokens': [...]}: of each whether it is live, expired (since when), revoked or unknown",
    "GET /_sim/stats[?by_hub=0]": "calls by endpoint and outcome, by account, by second, overlapping refreshes",
    "POST /_sim/reset": "counters and faults; with {'settings': true, 'accounts': true} also those",
}


class BadRequest(Exception):
    """The request is invalid: the message describes a valid one."""


def make_control_routes(sim: Simulation, marketplace: Marketplace) -> Blueprint:
    routes = Blueprint("control", __name__, url_prefix="/_sim")

    @routes.get("/")
    def show_manual() -> Response:
        return _make_json(MANUAL)

    @routes.post("/reset")
    def reset() -> Response:
        body = _read_body()
        sim.faults.clear()
        if body.get("settings"):
            sim.behaviour.reset()
        if body.get("accounts"):
            sim.reset_accounts()
        sim.counters.reset()
        marketplace.reset()
        return Response(status=204)

    for error in (BadRequest, InvalidBehaviour, InvalidFault):
        routes.register_error_handler(error, lambda error: _make_json({"error": str(error)}, 400))
    _add_reading_routes(routes, sim)
    _add_settings_routes(routes, sim)
    _add_fault_routes(routes, sim)
    _add_install_routes(routes, sim)
    _add_app_routes(routes, sim)
    _add_journal_routes(routes, sim)
    _add_marketplace_routes(routes, sim, marketplace)
    return routes


def _add_reading_routes(routes: Blueprint, sim: Simulation) -> None:
    @routes.get("/health")
    def health() -> Response:
        return Response(status=204)

    @routes.get("/stats")
    def stats() -> Response:
        return _make_json(sim.counters.to_json(by_hub=request.args.get("by_hub") != "0"))

    @routes.post("/check")
    def check_tokens() -> Response:
        tokens = _read_body().get("tokens")
        if not isinstance(tokens, list):
            raise BadRequest("tokens: a list of access tokens")
        now = sim.clock()
        statuses = [sim.check_access_token(token if isinstance(token, str) else "") for token in tokens]
        return _make_json({"tokens": [_status_to_json(status, now) for status in statuses]})


def _add_settings_routes(routes: Blueprint, sim: Simulation) -> None:
    @routes.get("/settings")
    def show_settings() -> Response:
        return _make_json(sim.behaviour.to_json())

    @routes.post("/settings")
    def change_settings() -> Response:
        sim.behaviour.change(_read_body(), _read_id("hub_id"), request.args.get("client_id"))
        return _make_json(sim.behaviour.to_json())

    @routes.delete("/settings")
    def remove_account_settings() -> Response:
        hub_id, client_id = _read_id("hub_id"), request.args.get("client_id")
        if hub_id is None and client_id is None:
            raise BadRequest("which account or app? DELETE /_sim/settings?hub_id=N or ?client_id=X")
        if hub_id is not None:
            sim.behaviour.remove_account(hub_id)
        if client_id is not None:
            sim.behaviour.remove_app(client_id)
        return _make_json(sim.behaviour.to_json())


def _add_fault_routes(routes: Blueprint, sim: Simulation) -> None:
    @routes.get("/faults")
    def show_faults() -> Response:
        return _make_json({"faults": sim.faults.to_json(), "kinds": KINDS})

    @routes.post("/faults")
    def add_fault() -> Response:
        return _make_json({"id": sim.faults.add(_read_body()).id})

    @routes.delete("/faults")
    def clear_faults() -> Response:
        fault_id = request.args.get("id")
        sim.faults.clear(None if fault_id is None else _parse_number("id", fault_id))
        return Response(status=204)


def _add_install_routes(routes: Blueprint, sim: Simulation) -> None:
    @routes.post("/install")
    def install() -> Response:
        if (hub_id := _read_id("hub_id")) is None:
            raise BadRequest("which account? POST /_sim/install?hub_id=N")
        token = sim.install(hub_id, _parse_app(sim, request.args.get("client_id")), _read_id("user_id"))
        return _make_json({"hub_id": hub_id, "refresh_token": token})

    @routes.post("/installs")
    def install_many() -> Response:
        body = _read_body()
        hub_ids = body.get("hub_ids")
        if hub_ids is None:
            first = _parse_number("first_hub_id", body.get("first_hub_id", 1_000_000))
            hub_ids = range(first, first + min(_parse_number("count", body.get("count")), MAX_INSTALLS))
        elif not isinstance(hub_ids, list):
            raise BadRequest("hub_ids: a list of numbers")
        numbers = [_parse_number("hub_ids", hub_id) for hub_id in hub_ids]
        return _make_json({"installs": sim.install_many(numbers, _parse_app(sim, body.get("client_id")))})

    @routes.post("/uninstall")
    def uninstall() -> Response:
        body = _read_body()
        numbers = {name: _parse_number(name, body[name]) for name in ("hub_id", "user_id") if name in body}
        installations = sim.accounts.list_installations(client_id=_parse_app(sim, body.get("client_id")), **numbers)
        keep = body.get("keep_access_tokens")
        sim.uninstall(installations, keep_access_tokens=None if keep is None else bool(keep))
        return _make_json({"uninstalled": len(installations)})


def _add_app_routes(routes: Blueprint, sim: Simulation) -> None:
    @routes.get("/apps")
    def apps() -> Response:
        if client_id := _parse_app(sim, request.args.get("client_id")):
            return _make_json({"client_id": client_id, "app_id": sim.accounts.get_app_id(client_id)})
        client_ids = sim.behaviour.list_client_ids()
        return _make_json({"apps": {client_id: sim.accounts.get_app_id(client_id) for client_id in client_ids}})

    @routes.post("/accounts/<hub_id>")
    def change_account(hub_id: str) -> Response:
        changes = _read_body()
        if changes.keys() - set(ACCOUNT_FIELDS) or not all(isinstance(value, str) for value in changes.values()):
            raise BadRequest(f"texts of {', '.join(ACCOUNT_FIELDS)}")
        account = sim.accounts.get_account(_parse_number("hub_id", hub_id))
        changed = Account(**{**asdict(account), **changes})
        sim.accounts.change_account(changed)
        return _make_json(asdict(changed))


def _add_journal_routes(routes: Blueprint, sim: Simulation) -> None:
    @routes.get("/journal")
    def show_journal() -> Response:
        client_id = _choose_app(sim, request.args.get("client_id"))
        events = sim.journal.list_events(client_id, sim.behaviour.find(client_id), sim.clock())
        subscriptions = [asdict(each) for each in sim.journal.list_subscriptions(client_id)]
        return _make_json({"events": events, "subscriptions": subscriptions})

    @routes.post("/journal")
    def publish() -> Response:
        body = _read_body()
        if not isinstance(events := body.get("events"), list):
            raise BadRequest("events: a list")
        client_id = _choose_app(sim, body.get("client_id"))
        return _make_json({"offset": sim.journal.publish(client_id, events, sim.clock())})

    @routes.delete("/journal")
    def forget() -> Response:
        sim.journal.forget_files(_choose_app(sim, request.args.get("client_id")))
        return Response(status=204)


def _add_marketplace_routes(routes: Blueprint, sim: Simulation, marketplace: Marketplace) -> None:
    @routes.get("/marketplace")
    def list_installs() -> Response:
        return _make_json({"installs": [install.to_json() for install in marketplace.list_installs()]})

    @routes.post("/marketplace")
    def start() -> Response:
        body = _read_body()
        if (flow := body.get("flow", "code")) not in FLOWS:
            raise BadRequest(f"flow: one of {', '.join(FLOWS)}")
        user_id = _parse_number("user_id", body["user_id"]) if "user_id" in body else None
        hub_id, client_id = _parse_number("hub_id", body.get("hub_id")), _choose_app(sim, body.get("client_id"))
        install, url = marketplace.start(
            sim.make_installation(hub_id, client_id, user_id),
            flow=flow,
            install_url=str(body.get("install_url", "")),
            origin=request.host_url.rstrip("/"),
            return_query=str(body.get("return_query", "")),
        )
        return _make_json({"id": install.id, "url": url, "return_url": install.return_url})

    @routes.post("/marketplace/<install_id>")
    def answer(install_id: str) -> Response:
        try:
            url = marketplace.answer(install_id, is_allowed=bool(_read_body().get("is_allowed", True)))
        except UnknownInstall:
            raise BadRequest("no such install, or the app has not returned with a state") from None
        return _make_json({"url": url})


def _choose_app(sim: Simulation, client_id: object) -> str:
    """None: the first app. Raises BadRequest."""
    return _parse_app(sim, client_id) or sim.behaviour.common.client_ids[0]


def _parse_app(sim: Simulation, client_id: object) -> str | None:
    """Raises BadRequest for an app that does not exist."""
    if client_id is not None and not (isinstance(client_id, str) and sim.behaviour.is_app(client_id)):
        raise BadRequest(f"client_id: one of {', '.join(sim.behaviour.list_client_ids())}")
    return client_id


def _status_to_json(status: AccessTokenStatus, now: float) -> dict[str, Any]:
    token = status.token
    return {
        "state": status.state,
        "hub_id": token and token.hub_id,
        "client_id": status.installation and status.installation.client_id,
        "user_id": token and (token.user_id or None),
        "seconds_left": token and round(token.expires_at - now, 3),
        "issued_at": token and token.issued_at,
    }


def _read_id(name: str) -> int | None:
    """Of the query. Raises BadRequest."""
    text = request.args.get(name)
    return None if text is None else _parse_number(name, text)


def _parse_number(name: str, value: object) -> int:
    """Raises BadRequest."""
    try:
        number = int(value) if isinstance(value, str | int) and not isinstance(value, bool) else 0
    except ValueError:
        number = 0
    if not 0 < number <= MAX_HUB_ID:
        raise BadRequest(f"{name}: a whole number from 1")
    return number


def _read_body() -> Mapping[str, Any]:
    """Raises BadRequest."""
    body = request.get_json(silent=True, force=True) if request.content_length else {}
    if not isinstance(body, dict):
        raise BadRequest("the body: a JSON object")
    return body


def _make_json(fields: Mapping[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(fields, separators=(",", ":")), status, content_type="application/json")
