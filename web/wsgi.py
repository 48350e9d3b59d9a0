"""Entry point: `gunicorn web.wsgi:app`. With our gunicorn.conf.py, the master has loaded the application already."""

from __future__ import annotations

import os

from web.loaded_application import LoadedApplication
from web.startup import exit_on_configuration_error

with exit_on_configuration_error():
    _loaded = LoadedApplication.load(os.environ)  # noqa: TID251  an entry point
_loaded.begin_process(os.environ)  # noqa: TID251
app = _loaded.app
