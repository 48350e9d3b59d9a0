"""web's application as gunicorn's master loads it, once for all workers, and how a worker begins to serve it."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping, MutableMapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Self
from wsgiref.util import setup_testing_defaults

import structlog
from flask import Flask

from shared import tracing
from shared.db.core.errors import StoreUnavailable
from shared.db.schema.privileges import WEB
from shared.foreign_environment import remove_foreign_variables
from shared.logs import log_ignored_variables
from shared.settings import Settings
from shared.startup_checks import check_database
from web.app import create_app
from web.startup import (
    check_database_when_it_answers,
    load_settings,
    make_services,
    refuse_gunicorn_arguments,
    refuse_unusable_broker,
    warn_of_scopes,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedApplication:
    """Forks may share it: it has neither connections nor threads until a process begins to serve."""

    app: Flask
    settings: Settings
    is_database_checked: bool

    @classmethod
    def load(cls, environ: MutableMapping[str, str], ignored: tuple[str, ...] = ()) -> Self:
        """Raises SettingsError or SchemaError where waiting does not help.

        `ignored`: variables of other programs that have been removed before.
        """
        refuse_gunicorn_arguments(environ)
        ignored = (*ignored, *remove_foreign_variables(environ))
        settings = load_settings(environ)
        log_ignored_variables(ignored)
        warn_of_scopes(settings)
        refuse_unusable_broker(settings)
        is_database_checked = True
        try:
            check_database(settings, WEB)
        except StoreUnavailable as error:
            log.warning("PostgreSQL does not answer yet; installs wait in the queue", why=str(error))
            is_database_checked = False
        return cls(create_app(make_services(settings)), settings, is_database_checked)

    def begin_process(self, environ: Mapping[str, str]) -> None:
        """In each process that serves, after its fork: starts threads."""
        if not self.is_database_checked:
            threading.Thread(target=check_database_when_it_answers, args=(self.settings,), daemon=True).start()
        tracing.configure("tokenkeeper-web", environ)
        atexit.register(tracing.shut_down)

    def run_once(self) -> None:
        """Answers one request for the front page, which waits for no other server.

        What code does only when it first runs is then done before the fork, and its memory shared: templates are
        compiled, and the interpreter rewrites the bytecode of functions that run often.
        """
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        response: Any = self.app(environ, lambda *_: lambda _body: None)
        with closing(response):
            for _ in response:
                pass


def log_failed_reload(error: Exception) -> None:
    log.error("nothing is reloaded: web goes on with the settings of before", why=str(error))
