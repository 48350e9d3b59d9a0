"""The Celery tasks. Each calls one function of the worker or of shared/workflows, or activates the refresh loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from worker.account_info import fetch_account_info
from worker.alert_delivery import deliver_alerts
from worker.services import Services
from worker.sweep import sweep

log = structlog.get_logger(__name__)

#: Before the first, second, ... retry to store an install. The longest must stay far below VISIBILITY_TIMEOUT_SECONDS,
#: after which Redis would deliver a message that waits for its retry a second time.
RETRY_SECONDS = (1, 2, 4, 8, 15, 30)
#: Acknowledged when done, so that a worker that dies takes no install with it.
ACKS_LATE = {"acks_late": True, "reject_on_worker_lost": True}


def register(app: Celery, get_services: Callable[[], Services]) -> None:
    """`get_services` builds them at the first task of a process.

    Each task ignores arguments that it does not know: a newer version may have sent the message.
    """

    @app.task(name=dispatch.STORE_INSTALL, bind=True, max_retries=None, **ACKS_LATE)
    def _store_install(task: Task, install_id: str, hub_id: int, ciphertext: str, **_unknown: Any) -> None:
        # 1. Store it.
        grant = EncryptedInstall(install_id, hub_id, ciphertext)
        try:
            with tracing.start_span("install.store", SpanKind.CONSUMER, task.request.headers, hub_id=hub_id) as span:
                span.set_attributes(install_id=install_id, tries=task.request.retries)
                services = get_services()
                stored = store_install(grant, services.cipher, services.installs, services.schedule)
                span.set_attributes(outcome=stored.outcome.value)
                log.info("install stored", hub_id=hub_id, install_id=install_id, outcome=stored.outcome.value)
        except (StoreError, SchemaError) as error:
            seconds = RETRY_SECONDS[min(task.request.retries, len(RETRY_SECONDS) - 1)]
            log.warning("an install waits for PostgreSQL", hub_id=hub_id, seconds=seconds, why=str(error))
            shown = {"argsrepr": "()", "kwargsrepr": f"(hub {hub_id}, encrypted)"}
            plain_error = type(error)(str(error))  # without the cause, whose text can hold values
            raise task.retry(countdown=seconds, exc=plain_error, **shown) from None
        except DecryptionError as error:
            log.error(
                "dropped an install message that cannot be decrypted: forged, or encrypted with a lost key",
                why=str(error),
            )
            return
        # 2. Refresh it where it came without an access token, and ask HubSpot about the account.
        services.activate_refresh_loop()
        _fetch_account_info_in_background(services)

    @app.task(name=dispatch.SWEEP)
    def _sweep(**_unknown: Any) -> None:
        with _log_database_errors():
            sweep(get_services())

    @app.task(name=dispatch.REFRESH)
    def _refresh(**_unknown: Any) -> None:
        with _log_database_errors():
            get_services().activate_refresh_loop()

    @app.task(name=dispatch.FETCH_ACCOUNT_INFO)
    def _fetch_account_info(**_unknown: Any) -> None:
        with _log_database_errors():
            _fetch_account_info_in_background(get_services())

    @app.task(name=dispatch.DELIVER_ALERTS)
    def _deliver_alerts(**_unknown: Any) -> None:
        with _log_database_errors():
            services = get_services()
            services.refresh_loop.run_in_background(partial(deliver_alerts, services.outbox, services.webhook))

    @app.task(name=dispatch.DISCONNECT, **ACKS_LATE)
    def _disconnect(hub_id: int, **_unknown: Any) -> None:
        with _log_database_errors():
            services = get_services()
            finish_disconnect(hub_id, services.disconnects, services.hubspot, services.cipher)


def _fetch_account_info_in_background(services: Services) -> None:
    services.refresh_loop.run_in_background(partial(fetch_account_info, services.account_info, services.hubspot))


@contextmanager
def _log_database_errors() -> Iterator[None]:
    """One line instead of a traceback: the next sweep enqueues the work again."""
    try:
        yield
    except (StoreError, SchemaError) as error:
        log.warning("PostgreSQL is not ready; the next sweep tries again", why=str(error))
