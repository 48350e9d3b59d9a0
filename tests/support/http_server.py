"""The web application on real servers, over real HTTP, in a thread of the test: starts in a moment."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from werkzeug.serving import make_server

from shared.settings import Settings
from tests.support.environment import web_environment
from web.app import create_app
from web.server.startup import make_services


@contextmanager
def serving(environment: Mapping[str, str]) -> Iterator[str]:
    """Where it listens: as HUBSPOT_REDIRECT_URI says."""
    settings = Settings.from_env(web_environment(environment))
    port = urlsplit(settings.hubspot_redirect_uri).port or 0
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", port, create_app(make_services(settings)), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
