"""Entry point: `gunicorn web.wsgi:app`."""

from __future__ import annotations

import atexit
import os
import threading

import structlog
from flask import Flask

from shared import tracing
from shared.db.core.errors import StoreUnavailable
from shared.db.schema.privileges import WEB
from shared.foreign_environment import remove_foreign_variables
from shared.startup_checks import check_database
from web.app import create_app
from web.server.startup import (
    check_database_when_it_answers,
    exit_on_configuration_error,
    load_settings,
    make_services,
    refuse_gunicorn_arguments,
    warn_of_scopes,
)

log = structlog.get_logger(__name__)


def main() -> Flask:
    """The application; for a wrong setting or schema, one line on stderr and the exit of gunicorn."""
    with exit_on_configuration_error():
        refuse_gunicorn_arguments(os.environ)  # noqa: TID251  an entry point
        remove_foreign_variables(os.environ)  # noqa: TID251  an entry point
        settings = load_settings(os.environ)  # noqa: TID251  an entry point
        warn_of_scopes(settings)
        try:
            check_database(settings, WEB)
        except StoreUnavailable as error:
            log.warning("PostgreSQL does not answer yet; installs wait in the queue", why=str(error))
            threading.Thread(target=check_database_when_it_answers, args=(settings,), daemon=True).start()
    tracing.configure("tokenkeeper-web", os.environ)  # noqa: TID251  an entry point
    atexit.register(tracing.shut_down)
    return create_app(make_services(settings))


app = main()
