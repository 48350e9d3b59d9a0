"""Entry point: `gunicorn web.wsgi:app`."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import NoReturn

import structlog
from flask import Flask

from shared import logs
from shared.db.errors import SchemaError, StoreUnavailable
from shared.preflight import check_database
from shared.settings import Settings, SettingsError
from web.app import create_app
from web.start import check_later, services

log = structlog.get_logger(__name__)

#: gunicorn's own: its master stops, where after any other status it would start us again for ever.
APP_LOAD_ERROR = 4


def main() -> Flask:
    """The application, or one line on stderr and the end of gunicorn."""
    try:
        settings = Settings.from_env(os.environ)  # noqa: TID251  an entry point
        logs.configure(settings.log_format, settings.log_level, settings.secrets())
        _catch_gunicorns_log()
        check_database(settings)
    except (SettingsError, SchemaError) as error:
        _refuse(error)
    except StoreUnavailable as error:
        log.warning("PostgreSQL does not answer yet; installs wait in the queue", why=str(error))
        threading.Thread(target=check_later, args=(settings,), daemon=True).start()
    return create_app(services(settings))


def _catch_gunicorns_log() -> None:
    """It quotes requests that it cannot read: let it pass where secrets are blotted out."""
    gunicorn = logging.getLogger("gunicorn.error")
    gunicorn.handlers, gunicorn.propagate = [], True


def _refuse(error: Exception) -> NoReturn:
    print(f"tokenkeeper: {error}", file=sys.stderr, flush=True)  # noqa: T201
    sys.exit(APP_LOAD_ERROR)


app = main()
