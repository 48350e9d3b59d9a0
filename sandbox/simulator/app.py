"""The Flask application: HubSpot's consent page, token endpoints and API, and the control interface below /_sim/."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from flask import Flask, Response
from werkzeug.routing import BuildError, Rule

from sandbox.simulator.api import make_api_routes
from sandbox.simulator.consent import make_consent_routes
from sandbox.simulator.control_api import make_control_routes
from sandbox.simulator.journal_api import make_journal_routes
from sandbox.simulator.marketplace import Marketplace
from sandbox.simulator.marketplace_pages import make_marketplace_routes
from sandbox.simulator.oauth import make_oauth_routes
from sandbox.simulator.simulation import Simulation

#: Enough for a check of very many tokens, or a list of accounts.
MAX_BODY_BYTES = 64 * 1024 * 1024


class _MatchedRule(Rule):
    """No URL is built from it. Werkzeug would compile two functions for that: two thirds of the application's start."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:  # noqa: ARG002
        def refuse(*_: object, **values: object) -> tuple[str, str]:
            raise BuildError(self.endpoint, values, None)

        return refuse


def create_app(state: Simulation) -> Flask:
    """Works only behind `sandbox.simulator.server`, which passes on the connection that faults act on."""
    app = Flask(__name__)
    app.url_rule_class = _MatchedRule
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    # the server closes the connection at ConnectionEnded, and logs any other exception
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.after_request(_add_correlation_id)
    marketplace = Marketplace(state)
    for make_routes in (make_consent_routes, make_oauth_routes, make_api_routes, make_journal_routes):
        app.register_blueprint(make_routes(state))
    app.register_blueprint(make_marketplace_routes(state, marketplace))
    app.register_blueprint(make_control_routes(state, marketplace))
    return app


def _add_correlation_id(response: Response) -> Response:
    response.headers["x-hubspot-correlation-id"] = str(uuid.uuid4())
    return response
