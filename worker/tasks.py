"""The Celery tasks. Only an install is stored in the task itself; the others hand over to threads, and return."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery, Task
from celery.exceptions import Reject

from shared import dispatch, tracing
from shared.db.core.errors import SchemaError, StoreError
from shared.domain.grant import EncryptedInstall
from shared.net.deadline import deadline
from shared.token_cipher import DecryptionError
from shared.tracing import SpanKind
from shared.workflows.store_install import UserUnknown, store_install
from worker.services import Services
from worker.sweep import start_disconnect
from worker.sweeper import Sweeper

log = structlog.get_logger(__name__)

#: For one attempt to store an install: one whose row is locked must not keep a pool process from the others for long.
STORE_TIMEOUT_SECONDS = 3.0
#: For an attempt after the first one: a slow PostgreSQL needs longer.
REDELIVERED_TIMEOUT_SECONDS = 6.0
#: After an attempt that failed. Both together stay far below VISIBILITY_TIMEOUT_SECONDS.
RETRY_PAUSE_SECONDS = 1.0
#: Acknowledged when done, so that a worker that dies takes no install with it.
ACKS_LATE = {"acks_late": True, "reject_on_worker_lost": True}


def register(app: Celery, get_services: Callable[[], Services], get_sweeper: Callable[[], Sweeper]) -> None:
    """Each task ignores arguments that it does not know: a newer version may have sent the message."""

    @app.task(name=dispatch.STORE_INSTALL, bind=True, **ACKS_LATE)
    def _store_install(task: Task, install_id: str, hub_id: int, ciphertext: str, **_unknown: Any) -> None:
        _store_or_requeue(EncryptedInstall(install_id, hub_id, ciphertext), get_services, task)

    @app.task(name=dispatch.SWEEP)
    def _sweep(**_unknown: Any) -> None:
        get_sweeper().request_sweep()

    @app.task(name=dispatch.DISCONNECT)
    def _disconnect(connection_id: int, **_unknown: Any) -> None:
        try:
            start_disconnect(get_services(), connection_id)
        except (StoreError, SchemaError) as error:
            log.warning(
                "PostgreSQL is not ready; a later sweep finishes the disconnect",
                connection_id=connection_id,
                why=str(error),
            )


def _store_or_requeue(grant: EncryptedInstall, get_services: Callable[[], Services], task: Task) -> None:
    """Raises Reject where it waits."""
    # 1. Store it.
    try:
        with deadline(_choose_timeout_seconds(task)):
            services = get_services()
            name = _store(grant, services, task)
    except (StoreError, SchemaError, UserUnknown) as error:
        # No Celery retry, which would wait until a date by this host's clock: the message goes to the end of the
        # queue, and the next one gets its turn.
        log.warning("an install waits", hub_id=grant.hub_id, why=str(error))
        time.sleep(RETRY_PAUSE_SECONDS)
        raise Reject("it waits", requeue=True) from None
    except DecryptionError as error:
        log.error(
            "dropped an install message that cannot be decrypted: forged, or encrypted with a lost key",
            why=str(error),
        )
        return
    # 2. Refresh it where it came without an access token, and ask HubSpot about the account.
    #    Not of an app that is in no setting any more: its connections are kept.
    if (services_of_app := services.apps.get(name)) is not None:
        services_of_app.activate_refresh_loop()
        services_of_app.start_account_info()


def _choose_timeout_seconds(task: Task) -> float:
    is_redelivered = (task.request.delivery_info or {}).get("redelivered")
    return REDELIVERED_TIMEOUT_SECONDS if is_redelivered else STORE_TIMEOUT_SECONDS


def _store(grant: EncryptedInstall, services: Services, task: Task) -> str:
    """Returns the name of its app."""
    hub_id, install_id = grant.hub_id, grant.install_id
    with tracing.start_span("install.store", SpanKind.CONSUMER, task.request.headers, hub_id=hub_id) as span:
        span.set_attributes(install_id=install_id)
        install, stored = store_install(grant, services.cipher, services.installs, services.schedule, services.clients)
        span.set_attributes(outcome=stored.outcome.value)
        log.info("install stored", **install.identity.log_fields(), install_id=install_id, outcome=stored.outcome.value)
        return install.app
