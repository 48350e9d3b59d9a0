"""The web application on real servers, over real HTTP, in a thread of the test: starts in a moment."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.serving import make_server

from shared.settings import Settings
from tests.support.environment import web_environment
from tests.support.web_application import make_application
from web.startup import make_services


@contextmanager
def serving(environment: Mapping[str, str], *, clock_ahead_seconds: float = 0.0) -> Iterator[str]:
    """Where it listens: as HUBSPOT_REDIRECT_URI says. The clock of its host may be wrong."""
    settings = Settings.from_env(web_environment(environment))
    port = urlsplit(next(iter(settings.apps.values())).redirect_uri).port or 0
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    ahead = timedelta(seconds=clock_ahead_seconds)
    services = replace(make_services(settings), clock=lambda: datetime.now(UTC) + ahead)
    server = make_server("127.0.0.1", port, close_each_response(make_application(services)), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        services.installs._database._engine.dispose()  # ends the thread that remembers recent installs


def close_each_response(app: WSGIApplication) -> WSGIApplication:
    """Reads and closes each response before it is sent.

    Werkzeug's server does not close the response to a client that resets its connection, as Chromium does for a page
    that is left: the file of a static page then stays open until some later test fails with a ResourceWarning.
    """

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        response: Any = app(environ, start_response)
        with closing(response):
            return [b"".join(response)]

    return call
