"""Entry point of worker, beat and Flower: `celery -A worker.app worker | beat | flower`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Collection
from functools import cache
from typing import Any, NoReturn

import billiard.pool
from celery import Celery, signals

from shared import logs, tracing
from shared.db.core.errors import SchemaError
from shared.setting_fields import Process
from shared.settings import Settings, SettingsError, list_required
from worker import broker, heartbeat
from worker.services import Services
from worker.startup_checks import check_broker, check_database
from worker.tasks import register

#: sysexits.h: a configuration error. Whoever supervises us need not try again.
EX_CONFIG = 78
#: Tenths of a second that a pool process waits at its end until the parent has read its last result. billiard's own
#: 30 s pass in full where the parent stopped reading first, and no result of ours says anything.
PARTING = 20
#: These tell of every message; with a sweep every two seconds nobody could read anything else.
CHATTY = ("celery.app.trace", "celery.worker.strategy", "celery.beat")
WORKER_NEEDS = list_required(Process.WORKER)


def refuse(error: Exception) -> NoReturn:
    """Print the one line and leave: not an exception, because Celery's signals swallow those."""
    print(f"tokenkeeper: {error}", file=sys.stderr, flush=True)  # noqa: T201
    sys.exit(EX_CONFIG)


def settings(needs: Collection[str]) -> Settings:
    try:
        return Settings.from_env(os.environ, needs)  # noqa: TID251  an entry point
    except SettingsError as error:
        refuse(error)


def make_app() -> Celery:
    settings(needs=("REDIS_URL",))  # refuse before Celery reads celeryconfig and fails in its own words
    broker.install_validating_transport()
    made = Celery("tokenkeeper")
    made.config_from_object("celeryconfig")
    register(made, services)
    heartbeat.register(made)
    return made


@cache
def services() -> Services:
    return Services.build(settings(WORKER_NEEDS), app)


def guarded(check: Callable[[], None]) -> None:
    try:
        check()
    except (SettingsError, SchemaError) as error:
        refuse(error)


@signals.setup_logging.connect
def _log(**_: Any) -> None:
    ours = settings(needs=())
    logs.configure(ours.log_format, ours.log_level, ours.list_secrets())
    for name in CHATTY:
        logs.quieten_logger(name)


@signals.celeryd_init.connect
def _before_worker(**_: Any) -> None:
    ours = settings(WORKER_NEEDS)
    broker.disable_remote_control()
    guarded(lambda: check_broker(app))
    guarded(lambda: check_database(ours))


@signals.beat_init.connect
def _before_beat(**_: Any) -> None:
    guarded(lambda: check_broker(app))


@signals.worker_process_init.connect
def _child_starts(**_: Any) -> None:
    """A pool process told to go finishes its calls first: HubSpot may have handed out what only it knows."""
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = PARTING
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _child_told_to_go)
    tracing.configure("tokenkeeper-worker", os.environ)  # noqa: TID251  an entry point


def _child_told_to_go(_signal: int, _frame: object) -> NoReturn:
    _let_go()
    os._exit(0)


@signals.worker_process_shutdown.connect
@signals.worker_shutdown.connect
def _let_go(**_: Any) -> None:
    if services.cache_info().currsize:
        services().close()
    tracing.shut_down()


def _lock_flower() -> None:
    """Flower shows who asks for what: it opens with the operator's password, or not at all."""
    from flower.options import options  # noqa: PLC0415  worker and beat need not load it

    password = settings(needs=("REDIS_URL", "OPERATOR_PASSWORD")).operator_password
    os.environ.pop("FLOWER_BASIC_AUTH", None)  # noqa: TID251  it would count for more
    # Not through that variable: what has commas in it would be several passwords, each of them good.
    options.basic_auth = [f"operator:{password}"]


app = make_app()
if "flower" in sys.argv:
    _lock_flower()
