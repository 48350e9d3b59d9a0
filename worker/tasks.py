"""Celery's view of the work: one task a verb, each a line or two."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from celery import Celery, Task

from shared import dispatch, tracing
from shared.db.core.errors import SchemaError, StoreError
from shared.domain.grant import EncryptedInstall
from shared.token_cipher import DecryptionError
from shared.tracing import SpanKind
from shared.workflows.disconnect import finish_disconnect
from shared.workflows.store_install import store_install
from worker.account_info import identify
from worker.alert_delivery import tell
from worker.services import Services
from worker.sweep import sweep

log = structlog.get_logger(__name__)

#: Seconds before an install that could not be stored is tried again: the longest stays far below the broker's
#: visibility timeout, past which a waiting message would be delivered twice.
WAITS = (1, 2, 4, 8, 15, 30)
#: Acknowledged when done: a worker that dies takes no install with it.
ACKS_LATE = {"acks_late": True, "reject_on_worker_lost": True}
#: How many sweeps a loop may go on claiming after the last one that called it.
LICENCE = 2.5


def register(app: Celery, services: Callable[[], Services]) -> None:
    """`services` builds them at the first task of a process."""

    @app.task(name=dispatch.STORE_INSTALL, bind=True, max_retries=None, **ACKS_LATE)
    def _store_install(task: Task, install_id: str, hub_id: int, ciphertext: str, **_later: Any) -> None:
        grant = EncryptedInstall(install_id, hub_id, ciphertext)
        try:
            with tracing.start_span("install.store", SpanKind.CONSUMER, task.request.headers, hub_id=hub_id) as span:
                span.set_attributes(install_id=install_id, tries=task.request.retries)
                ready = services()
                added = store_install(grant, ready.cipher, ready.installs, ready.schedule)
                span.set_attributes(outcome=added.outcome.value)
                log.info("install", hub_id=hub_id, install_id=install_id, became=added.outcome.value)
        except (StoreError, SchemaError) as error:
            wait = WAITS[min(task.request.retries, len(WAITS) - 1)]
            log.warning("an install waits for PostgreSQL", hub_id=hub_id, seconds=wait, why=str(error))
            raise task.retry(
                countdown=wait, argsrepr="()", kwargsrepr=f"(hub {hub_id}, encrypted)", exc=_quiet(error)
            ) from None
        except DecryptionError as error:
            log.error(
                "dropped an install message that does not open: forged, or sealed with a lost key",
                why=str(error),
            )
            return
        ready.loop.wake(LICENCE * ready.settings.sweep_seconds)
        ready.loop.aside(partial(identify, ready.account_info, ready.hubspot))

    @app.task(name=dispatch.SWEEP)
    def _sweep(**_later: Any) -> None:
        def work() -> None:
            ready = services()
            sweep(ready)

        _quietly(work)

    @app.task(name=dispatch.REFRESH)
    def _refresh(**_later: Any) -> None:
        _quietly(lambda: services().loop.wake(LICENCE * services().settings.sweep_seconds))

    @app.task(name=dispatch.IDENTIFY)
    def _identify(**_later: Any) -> None:
        _quietly(lambda: services().loop.aside(partial(identify, services().account_info, services().hubspot)))

    @app.task(name=dispatch.ALERTS)
    def _alerts(**_later: Any) -> None:
        _quietly(lambda: services().loop.aside(partial(tell, services().outbox, services().webhook)))

    @app.task(name=dispatch.DISCONNECT, **ACKS_LATE)
    def _disconnect(hub_id: int, **_later: Any) -> None:
        ready = services()
        _quietly(lambda: finish_disconnect(hub_id, ready.disconnects, ready.hubspot, ready.cipher))


def _quietly(work: Callable[[], object]) -> None:
    """The next sweep does what this one could not: one line says so, no traceback."""
    try:
        work()
    except (StoreError, SchemaError) as error:
        log.warning("PostgreSQL is not ready; the next sweep tries again", why=str(error))


def _quiet(error: Exception) -> Exception:
    return type(error)(str(error))
