"""The simulator's own interface, /_sim/: set it, break it, fill it, and ask what happened."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, request

from sandbox.simulator.behaviour import BadKnob
from sandbox.simulator.faults import KINDS, BadFault
from sandbox.simulator.simulation import Sight, Simulation
from shared.domain.hub_id import MAX_HUB_ID

#: Accounts that one call may create.
_MOST = 2_000_000

MANUAL = {
    "GET /_sim/health": "204 while it runs",
    "GET /_sim/settings": "as they stand, for all and by account",
    "POST /_sim/settings[?hub_id=N]": "change some, e.g. {'lifetime': 20, 'latency': [0.1, 0.3]}",
    "DELETE /_sim/settings?hub_id=N": "that account has no settings of its own any more",
    "GET /_sim/faults": "what is on order, how often each was hit, and the kinds there are",
    "POST /_sim/faults": "{'kind', 'where', 'grant', 'hub_id', 'times', 'probability', 'retry_after', 'seconds'}",
    "DELETE /_sim/faults[?id=N]": "one, or all",
    "POST /_sim/install?hub_id=N": "an account that has the app; answers its refresh token",
    "POST /_sim/installs": "{'count': 5000, 'first_hub_id': 1000000} or {'hub_ids': [...]}; answers pairs",
    "POST /_sim/accounts/N/uninstall": "by the customer; {'keep_access_tokens': true} spares those",
    "POST /_sim/check": "{'tokens': [...]}: of each whether it is live, expired (since when), revoked or unknown",
    "GET /_sim/stats[?by_hub=0]": "calls by endpoint and outcome, by account, by second, overlapping refreshes",
    "POST /_sim/reset": "counters and faults; with {'settings': true, 'accounts': true} also those",
}


class BadRequest(Exception):
    """What was asked cannot be done: the message says what it should look like."""


def control_routes(sim: Simulation) -> Blueprint:
    routes = Blueprint("control", __name__, url_prefix="/_sim")
    for method, path, view in (
        ("GET", "/", lambda: _json(MANUAL)),
        ("GET", "/health", lambda: Response(status=204)),
        ("GET", "/settings", lambda: _json(sim.knobs.shown())),
        ("POST", "/settings", lambda: _settings(sim)),
        ("DELETE", "/settings", lambda: _settings_of_one_dropped(sim)),
        ("GET", "/faults", lambda: _json({"faults": sim.faults.listed(), "kinds": KINDS})),
        ("POST", "/faults", lambda: _json({"id": sim.faults.order(_body()).id})),
        ("DELETE", "/faults", lambda: _faults_cleared(sim)),
        ("POST", "/install", lambda: _installed(sim)),
        ("POST", "/installs", lambda: _many_installed(sim)),
        ("POST", "/check", lambda: _checked(sim)),
        ("GET", "/stats", lambda: _json(sim.counters.shown(by_hub=request.args.get("by_hub") != "0"))),
        ("POST", "/reset", lambda: _reset(sim)),
    ):
        routes.add_url_rule(path, f"{method} {path}", view, methods=[method])
    routes.add_url_rule("/accounts/<hub_id>/uninstall", "uninstall", _uninstaller(sim), methods=["POST"])
    for error in (BadRequest, BadKnob, BadFault):
        routes.register_error_handler(error, _complaint)
    return routes


def _complaint(error: Exception) -> Response:
    return _json({"error": str(error)}, 400)


def _settings(sim: Simulation) -> Response:
    sim.knobs.turn(_body(), _hub_in_query())
    return _json(sim.knobs.shown())


def _settings_of_one_dropped(sim: Simulation) -> Response:
    if (hub_id := _hub_in_query()) is None:
        raise BadRequest("which account? DELETE /_sim/settings?hub_id=N")
    sim.knobs.give_back(hub_id)
    return _json(sim.knobs.shown())


def _faults_cleared(sim: Simulation) -> Response:
    fault_id = request.args.get("id")
    sim.faults.clear(None if fault_id is None else _number("id", fault_id))
    return Response(status=204)


def _installed(sim: Simulation) -> Response:
    if (hub_id := _hub_in_query()) is None:
        raise BadRequest("which account? POST /_sim/install?hub_id=N")
    token = sim.install(hub_id)
    return _json({"hub_id": hub_id, "refresh_token": token})


def _many_installed(sim: Simulation) -> Response:
    body = _body()
    hub_ids = body.get("hub_ids")
    if hub_ids is None:
        first = _number("first_hub_id", body.get("first_hub_id", 1_000_000))
        hub_ids = range(first, first + min(_number("count", body.get("count")), _MOST))
    elif not isinstance(hub_ids, list):
        raise BadRequest("hub_ids: a list of numbers")
    return _json({"installs": sim.install_many([_number("hub_ids", hub_id) for hub_id in hub_ids])})


def _uninstaller(sim: Simulation) -> Callable[[str], Response]:
    def uninstall(hub_id: str) -> Response:
        keep = _body().get("keep_access_tokens")
        sim.uninstall(_number("hub_id", hub_id), keep_access_tokens=None if keep is None else bool(keep))
        return Response(status=204)

    return uninstall


def _checked(sim: Simulation) -> Response:
    tokens = _body().get("tokens")
    if not isinstance(tokens, list):
        raise BadRequest("tokens: a list of access tokens")
    now = sim.clock()
    return _json({"tokens": [_told(sim.sight(token if isinstance(token, str) else ""), now) for token in tokens]})


def _told(sight: Sight, now: float) -> dict[str, Any]:
    token = sight.token
    if token is None:
        return {"state": sight.state, "hub_id": None, "seconds_left": None, "issued_at": None}
    left = round(token.expires_at - now, 3)
    return {
        "state": sight.state,
        "hub_id": token.hub_id,
        "seconds_left": left,
        "issued_at": token.issued_at,
    }


def _reset(sim: Simulation) -> Response:
    wish = _body()
    sim.faults.clear()
    if wish.get("settings"):
        sim.knobs.reset()
    if wish.get("accounts"):
        sim.forget()
    sim.counters.reset()
    return Response(status=204)


def _hub_in_query() -> int | None:
    hub_id = request.args.get("hub_id")
    return None if hub_id is None else _number("hub_id", hub_id)


def _number(name: str, value: object) -> int:
    try:
        number = int(value) if isinstance(value, str | int) and not isinstance(value, bool) else 0
    except ValueError:
        number = 0
    if not 0 < number <= MAX_HUB_ID:
        raise BadRequest(f"{name}: a whole number from 1")
    return number


def _body() -> Mapping[str, Any]:
    found = request.get_json(silent=True, force=True) if request.content_length else {}
    if not isinstance(found, dict):
        raise BadRequest("the body: a JSON object")
    return found


def _json(fields: Mapping[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(fields, separators=(",", ":")), status, content_type="application/json")
