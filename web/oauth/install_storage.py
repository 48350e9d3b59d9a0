"""Hands a new grant to the queue or to PostgreSQL; until one has it, the only copy is in the browser's cookie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import structlog

from shared import tracing
from shared.db.core.errors import SchemaError, StatementRejected, StoreUnavailable
from shared.db.lifecycle.installs import StoredInstall
from shared.dispatch import QueueUnavailable
from shared.domain.grant import EncryptedInstall, Install
from shared.net.deadline import deadline
from shared.token_cipher import DecryptionError
from shared.workflows.store_install import UserUnknown, store_install
from web import exception_summary
from web.oauth.install_cookie import InstallCookie
from web.server.timeouts import TimedOut, run_within
from web.services import Services

log = structlog.get_logger(__name__)

#: For the queue, then for PostgreSQL, while the callback holds the only copy of a grant.
CALLBACK_TIMEOUT_SECONDS = 2.5
#: For each while the waiting page asks: it has to answer within 3 seconds, and asks again soon.
PAGE_TIMEOUT_SECONDS = 0.9
#: PostgreSQL does not answer, or is not migrated yet (StatementRejected): the install waits.
DATABASE_ERRORS = (StoreUnavailable, StatementRejected, SchemaError)


@dataclass(frozen=True, slots=True)
class InstallProgress:
    state: Literal["storing", "connected", "failed"]
    cookie: InstallCookie
    stored: StoredInstall | None = None  #: of a connected one


def submit_install(services: Services, install: EncryptedInstall) -> bool:
    """Right after the exchange. False where neither the queue, which is quicker, nor PostgreSQL accepted it."""
    return _enqueue(services, install, CALLBACK_TIMEOUT_SECONDS) or _store(services, install, CALLBACK_TIMEOUT_SECONDS)


def find_install(services: Services, install_id: str) -> StoredInstall | None:
    """None where it is not stored, and where PostgreSQL does not answer."""
    try:
        return _query_install(services, install_id)
    except DATABASE_ERRORS:
        return None


def check_and_resubmit(services: Services, cookie: InstallCookie, encrypted: str | None) -> InstallProgress:
    """Whether the install is stored; if it is not, submit it again from time to time.

    `encrypted` is the copy of the grant in the browser's cookie.
    """
    now = services.clock()
    try:
        stored, postgres_answers = _query_install(services, cookie.install_id), True
    except DATABASE_ERRORS:
        stored, postgres_answers = None, False
    if stored is not None:
        return InstallProgress("connected", cookie, stored)
    if encrypted is None:
        return InstallProgress("failed" if postgres_answers and cookie.is_lost(now) else "storing", cookie)
    if cookie.should_resubmit(now, postgres_answers=postgres_answers):
        install = EncryptedInstall(cookie.install_id, cookie.hub_id, encrypted)
        # PostgreSQL first, if it answers: the queue had the install first, and may be what delays it.
        is_accepted = postgres_answers and _store(services, install, PAGE_TIMEOUT_SECONDS)
        if not is_accepted:
            is_accepted = _enqueue(services, install, PAGE_TIMEOUT_SECONDS)
        cookie = cookie.mark_submitted(now, is_accepted=is_accepted)
    return InstallProgress("storing", cookie)


def decrypt_browser_copy(services: Services, encrypted: str, install_id: str) -> Install | None:
    """The grant in a browser's cookie; None where it does not decrypt or is another install's."""
    try:
        install = services.cipher.decrypt_install(encrypted)
    except DecryptionError as error:
        log.warning("cannot decrypt the grant in a browser's cookie", install_id=install_id, why=str(error))
        return None
    return install if install.install_id == install_id else None


def _query_install(services: Services, install_id: str) -> StoredInstall | None:
    with deadline(PAGE_TIMEOUT_SECONDS):
        return services.installs.find(install_id)


def _enqueue(services: Services, install: EncryptedInstall, seconds: float) -> bool:
    def enqueue() -> None:
        run_within(seconds, partial(services.queue.store_install, install))

    return _try("queue", install, enqueue)


def _store(services: Services, install: EncryptedInstall, seconds: float) -> bool:
    def store() -> None:
        span = tracing.start_span("install.store", hub_id=install.hub_id, install_id=install.install_id)
        with span, deadline(seconds):
            store_install(install, services.cipher, services.installs, services.schedule, services.hubspot_clients)

    return _try("postgres", install, store)


def _try(by: str, install: EncryptedInstall, submit: Callable[[], None]) -> bool:
    """Whether `submit` succeeded. Raises nothing, not even for a bug: the caller may hold the only copy."""
    try:
        submit()
    except (QueueUnavailable, TimedOut, StoreUnavailable, SchemaError, UserUnknown) as error:
        log.warning("an install was not accepted", by=by, install_id=install.install_id, why=str(error))
    except StatementRejected as error:
        log.error("an install was not accepted", by=by, install_id=install.install_id, why=str(error))
    except Exception as error:  # noqa: BLE001  see above
        summary = exception_summary.describe_exception(error)
        log.error("an install was not accepted", by=by, install_id=install.install_id, **summary)
    else:
        return True
    return False
