"""Entry point of worker, beat and Flower: `celery -A worker.app worker | beat | flower`.

What the worker alone needs is in worker/worker_process.py, which only the worker imports: PostgreSQL's and HubSpot's
libraries would take half of beat's memory.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from celery import Celery, signals

from shared import lean_imports, logs  # noqa: F401
from shared.foreign_environment import remove_foreign_variables
from shared.settings import Settings, SettingsError
from worker import heartbeat
from worker.messages import transport
from worker.messages.startup_check import check_broker

#: EX_CONFIG of sysexits.h: a configuration error. A supervisor need not start the process again.
EXIT_CONFIG_ERROR = 78
#: Loggers that write a line for every message: a sweep every two seconds would hide all other lines. Celery's trace
#: also warns, with a traceback, of each install that is put back into the queue.
PER_MESSAGE_LOGGERS = {
    "celery.app.trace": logging.ERROR,
    "celery.worker.strategy": logging.WARNING,
    "celery.beat": logging.WARNING,
}
#: Removed while Celery imports this module: before it reads them, and before Flower and libpq do.
IGNORED_VARIABLES = remove_foreign_variables(os.environ)  # noqa: TID251  an entry point


def make_app() -> Celery:
    read_settings(needs=("REDIS_URL",))  # exits with our message, before celeryconfig would fail with Celery's
    transport.install_validating_transport()
    celery_app = Celery("tokenkeeper")
    celery_app.config_from_object("celeryconfig")
    heartbeat.register(celery_app)
    return celery_app


def read_settings(needs: Collection[str]) -> Settings:
    try:
        return Settings.from_env(os.environ, needs)  # noqa: TID251  an entry point
    except SettingsError as error:
        exit_with_error(error)


def exit_with_error(error: Exception) -> NoReturn:
    """Print one line and exit. An exception would not do: Celery's signals swallow it."""
    print(f"tokenkeeper: {error}", file=sys.stderr, flush=True)  # noqa: T201
    sys.exit(EXIT_CONFIG_ERROR)


@signals.setup_logging.connect
def _configure_logging(**_: Any) -> None:
    settings = read_settings(needs=())
    secrets, has_several_apps = settings.list_secrets(), len(settings.apps) > 1
    logs.configure(settings.log_format, settings.log_level, secrets, names_app=has_several_apps)
    for name, level in PER_MESSAGE_LOGGERS.items():
        logs.quieten_logger(name, level)


@signals.celeryd_init.connect
def _prepare_worker(sender: str, options: Mapping[str, Any], **_: Any) -> None:
    """`sender`: the node's name; `options`: of the command line.

    Celery sends this before it starts pool processes and looks for tasks.
    """
    from worker import worker_process  # noqa: PLC0415  see above

    logs.log_ignored_variables(IGNORED_VARIABLES)
    try:
        worker_process.prepare(app, sender, options, os.environ)  # noqa: TID251  an entry point
    except (SettingsError, worker_process.SchemaError) as error:
        exit_with_error(error)


@signals.beat_init.connect
def _prepare_beat(**_: Any) -> None:
    logs.log_ignored_variables(IGNORED_VARIABLES)
    _exit_if_broker_is_unusable(read_settings(needs=("REDIS_URL",)))


def _exit_if_broker_is_unusable(settings: Settings) -> None:
    try:
        check_broker(settings)
    except SettingsError as error:
        exit_with_error(error)


def _require_password_for_flower() -> None:
    """Flower shows which accounts have tasks: it asks for the operator's password, and does not start without one."""
    from flower.options import options  # noqa: PLC0415  of Flower alone

    settings = read_settings(needs=("REDIS_URL", "OPERATOR_PASSWORD"))
    _exit_if_broker_is_unusable(settings)
    options.basic_auth = [f"operator:{settings.operator_password}"]


app = make_app()
if "flower" in sys.argv:
    _require_password_for_flower()
