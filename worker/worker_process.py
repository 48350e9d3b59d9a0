"""The worker: what it checks at its start, and how its pool processes begin and end."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Mapping
from functools import cache
from threading import RLock
from typing import Any

import billiard.pool
import billiard.util
import structlog
from celery import Celery, current_app, signals

from shared import startup_checks, tracing
from shared.db.core.errors import SchemaError, StoreUnavailable
from shared.db.schema.privileges import WORKER
from shared.settings import Settings, list_required
from shared.settings.declaration import Process
from worker import heartbeat
from worker.host_check import check_host, check_options
from worker.journal.threads import JournalThreads
from worker.liveness import POOL_SUFFIX
from worker.messages import transport
from worker.messages.startup_check import check_broker
from worker.services import Services
from worker.sweeper import Sweeper
from worker.tasks import register

__all__ = ["SchemaError", "prepare"]

log = structlog.get_logger(__name__)

#: Tenths of a second that a pool process waits at its end until the parent has read its last result. billiard's own
#: 30 s pass in full where the parent has stopped reading, and no result of our tasks says anything.
RESULT_WAIT_TENTHS = 20
WORKER_SETTINGS = list_required(Process.WORKER)
#: Tasks and the sweeper's thread both begin to use the services. Reentrant: so does the signal handler.
_beginning = RLock()


def prepare(app: Celery, node: str, options: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Registers the tasks, and checks Celery's `options`, the host, broker and database.

    Raises SettingsError or SchemaError where waiting does not help. A server that does not answer yet does not stop
    the start.
    """
    register(app, get_services, get_sweeper)
    app.conf.tokenkeeper_node = node  # pool processes do not know it otherwise
    transport.disable_remote_control()
    check_options(options)
    settings = Settings.from_env(environ, WORKER_SETTINGS)
    check_host(settings)
    check_broker(settings)
    _build_services()  # pool processes share the memory of what exists before the fork
    _use_ctypes_in_billiard()
    try:
        startup_checks.check_database(settings, WORKER)
    except StoreUnavailable as error:
        log.warning("PostgreSQL does not answer yet: starting all the same", why=str(error))


def get_services() -> Services:
    """Raises SchemaError, StoreUnavailable: then the next call tries again."""
    with _beginning:
        return _begin_services()


@cache
def _begin_services() -> Services:
    services = _build_services()
    services.begin()
    return services


@cache
def _build_services() -> Services:
    return Services.build(_read_settings())


def _use_ctypes_in_billiard() -> None:
    """Each pool process asks to be killed with its parent. Where cffi was imported, billiard parses C for that: 4 MB.

    It looks for the name in sys.modules. `import cffi` goes on working.
    """
    billiard.util.ctypes = ctypes
    sys.modules.pop("cffi", None)


@cache
def get_sweeper() -> Sweeper:
    """Of this pool process, whose main thread alone calls this."""
    pool_heartbeat = heartbeat.Heartbeat(current_app.conf.tokenkeeper_node + POOL_SUFFIX)
    sweeper = Sweeper(get_services, _read_settings().sweep_seconds, pool_heartbeat.write)
    sweeper.start()
    return sweeper


@cache
def get_journal_threads() -> JournalThreads:
    """As get_sweeper(). There is no thread where the settings turn the journal off."""
    settings = _read_settings()
    return JournalThreads(get_services, settings.apps if settings.journal_seconds else (), settings.journal_seconds)


def _read_settings() -> Settings:
    return Settings.from_env(os.environ, WORKER_SETTINGS)  # noqa: TID251  as at the start, which has checked them


#: New objects beyond those freed, until Python looks for garbage in cycles. A refresh leaves none, and hundreds in
#: flight are several thousand objects: with Python's own 700 every look visits all of them.
GARBAGE_THRESHOLD_OBJECTS = 20_000


@signals.worker_before_create_process.connect
def _prepare_fork(**_: Any) -> None:
    """A collection of garbage writes to each object that it visits: without freeze() pool processes share no memory."""
    gc.collect()
    gc.freeze()


@signals.worker_process_init.connect
def _prepare_pool_process(**_: Any) -> None:
    gc.set_threshold(GARBAGE_THRESHOLD_OBJECTS)
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = RESULT_WAIT_TENTHS
    tracing.configure("tokenkeeper-worker", os.environ)  # noqa: TID251  of the process
    get_sweeper()
    get_journal_threads()


@signals.worker_process_shutdown.connect
@signals.worker_shutdown.connect
def _shut_down(**_: Any) -> None:
    """Also where a pool process alone gets SIGTERM, which billiard handles.

    Calls in flight are finished first: HubSpot may have rotated a refresh token that only it knows.
    """
    if get_sweeper.cache_info().currsize:
        get_sweeper().stop()
        get_journal_threads().stop()
    if _begin_services.cache_info().currsize:
        get_services().close()
    tracing.shut_down()
