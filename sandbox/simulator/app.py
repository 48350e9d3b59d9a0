"""The Flask application: HubSpot's consent page, token endpoints and API, and the simulator's own /_sim/."""

from __future__ import annotations

import uuid

from flask import Flask, Response

from sandbox.simulator.api import api_routes
from sandbox.simulator.consent import consent_routes
from sandbox.simulator.control_api import control_routes
from sandbox.simulator.oauth import oauth_routes
from sandbox.simulator.simulation import Simulation

#: Bytes of a request's body: a check of very many tokens, or a list of accounts.
_LARGEST_BODY = 64 * 1024 * 1024


def create_app(state: Simulation) -> Flask:
    """Served by `sandbox.simulator.server`, which hands over the connection that faults play with."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = _LARGEST_BODY
    # the server ends a connection at HungUp, and tells of anything else
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.after_request(_correlated)
    for routes in (consent_routes, oauth_routes, api_routes, control_routes):
        app.register_blueprint(routes(state))
    return app


def _correlated(response: Response) -> Response:
    response.headers["x-hubspot-correlation-id"] = str(uuid.uuid4())
    return response
