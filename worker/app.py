"""Entry point of worker, beat and Flower: `celery -A worker.app worker | beat | flower`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Collection
from functools import cache, partial
from threading import RLock
from typing import Any, NoReturn

import billiard.pool
from celery import Celery, signals

from shared import logs, tracing
from shared.db.core.errors import SchemaError
from shared.foreign_environment import remove_foreign_variables
from shared.setting_fields import Process
from shared.settings import Settings, SettingsError, list_required
from worker import broker, heartbeat
from worker.liveness import POOL_SUFFIX
from worker.services import Services
from worker.startup_checks import check_broker, check_database
from worker.sweeper import Sweeper
from worker.tasks import register

#: EX_CONFIG of sysexits.h: a configuration error. A supervisor need not start the process again.
EXIT_CONFIG_ERROR = 78
#: Tenths of a second that a pool process waits at its end until the parent has read its last result. billiard's own
#: 30 s pass in full where the parent has stopped reading, and no result of our tasks says anything.
RESULT_WAIT_TENTHS = 20
#: Loggers that write a line for every message: a sweep every two seconds would hide all other lines. Celery's trace
#: also warns, with a traceback, of each install that is put back into the queue.
PER_MESSAGE_LOGGERS = {
    "celery.app.trace": logging.ERROR,
    "celery.worker.strategy": logging.WARNING,
    "celery.beat": logging.WARNING,
}
WORKER_SETTINGS = list_required(Process.WORKER)
#: Removed while Celery imports this module: before it reads them, and before Flower and libpq do.
IGNORED_VARIABLES = remove_foreign_variables(os.environ)  # noqa: TID251  an entry point
#: Tasks and the sweeper's thread both build what a pool process uses. Reentrant: so does the signal handler.
_building = RLock()


def make_app() -> Celery:
    read_settings(needs=("REDIS_URL",))  # exits with our message, before celeryconfig would fail with Celery's
    broker.install_validating_transport()
    celery_app = Celery("tokenkeeper")
    celery_app.config_from_object("celeryconfig")
    register(celery_app, get_services, get_sweeper)
    heartbeat.register(celery_app)
    return celery_app


def read_settings(needs: Collection[str]) -> Settings:
    try:
        return Settings.from_env(os.environ, needs)  # noqa: TID251  an entry point
    except SettingsError as error:
        exit_with_error(error)


def get_services() -> Services:
    """Raises SchemaError, StoreUnavailable: then the next call tries again."""
    with _building:
        return _build_services()


@cache
def _build_services() -> Services:
    return Services.build(read_settings(WORKER_SETTINGS))


@cache
def get_sweeper() -> Sweeper:
    """Of this pool process, whose main thread alone calls this."""
    pool_heartbeat = heartbeat.Heartbeat(app.conf.tokenkeeper_node + POOL_SUFFIX)
    sweeper = Sweeper(get_services, read_settings(WORKER_SETTINGS).sweep_seconds, pool_heartbeat.write)
    sweeper.start()
    return sweeper


def exit_with_error(error: Exception) -> NoReturn:
    """Print one line and exit. An exception would not do: Celery's signals swallow it."""
    print(f"tokenkeeper: {error}", file=sys.stderr, flush=True)  # noqa: T201
    sys.exit(EXIT_CONFIG_ERROR)


@signals.setup_logging.connect
def _configure_logging(**_: Any) -> None:
    settings = read_settings(needs=())
    logs.configure(settings.log_format, settings.log_level, settings.list_secrets())
    for name, level in PER_MESSAGE_LOGGERS.items():
        logs.quieten_logger(name, level)


@signals.celeryd_init.connect
def _prepare_worker(sender: str, **_: Any) -> None:
    """`sender`: the node's name, which pool processes do not know otherwise."""
    app.conf.tokenkeeper_node = sender
    settings = read_settings(WORKER_SETTINGS)
    broker.disable_remote_control()
    logs.log_ignored_variables(IGNORED_VARIABLES)
    _exit_on_failure(partial(check_broker, settings))
    _exit_on_failure(partial(check_database, settings))


@signals.beat_init.connect
def _prepare_beat(**_: Any) -> None:
    logs.log_ignored_variables(IGNORED_VARIABLES)
    _exit_on_failure(partial(check_broker, read_settings(needs=("REDIS_URL",))))


def _exit_on_failure(check: Callable[[], None]) -> None:
    try:
        check()
    except (SettingsError, SchemaError) as error:
        exit_with_error(error)


@signals.worker_process_init.connect
def _prepare_pool_process(**_: Any) -> None:
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = RESULT_WAIT_TENTHS
    tracing.configure("tokenkeeper-worker", os.environ)  # noqa: TID251  an entry point
    get_sweeper()


@signals.worker_process_shutdown.connect
@signals.worker_shutdown.connect
def _shut_down(**_: Any) -> None:
    """Also where a pool process alone gets SIGTERM, which billiard handles.

    Calls in flight are finished first: HubSpot may have rotated a refresh token that only it knows.
    """
    if get_sweeper.cache_info().currsize:
        get_sweeper().stop()
    if _build_services.cache_info().currsize:
        get_services().close()
    tracing.shut_down()


def _require_password_for_flower() -> None:
    """Flower shows which accounts have tasks: it asks for the operator's password, and does not start without one."""
    from flower.options import options  # noqa: PLC0415  worker and beat need not load it

    settings = read_settings(needs=("REDIS_URL", "OPERATOR_PASSWORD"))
    _exit_on_failure(partial(check_broker, settings))
    options.basic_auth = [f"operator:{settings.operator_password}"]


app = make_app()
if "flower" in sys.argv:
    _require_password_for_flower()
