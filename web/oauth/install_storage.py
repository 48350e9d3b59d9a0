"""Keeps a grant that exists in one copy: in the queue, in PostgreSQL, and else in the browser that brought it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from shared import tracing
from shared.db.core.engine import query_deadline as asking_within
from shared.db.core.errors import SchemaError, StoreBroken, StoreUnavailable
from shared.db.lifecycle.installs import StoredInstall
from shared.dispatch import QueueUnavailable
from shared.domain.grant import EncryptedInstall, Install
from shared.token_cipher import DecryptionError
from shared.workflows.store_install import store_install
from web import exception_summary
from web.oauth.install_cookie import InstallCookie
from web.server.timeouts import TimedOut, run_within
from web.services import Services

log = structlog.get_logger(__name__)

#: Seconds that the callback gives the queue, and then PostgreSQL: the only copy is at stake.
PATIENT = 2.5
#: Seconds that the waiting page gives each: it asks again soon, and has to answer within 3 s.
BRISK = 0.9
#: PostgreSQL does not answer, or is not migrated yet (which shows as broken): the install waits.
NOT_NOW = (StoreUnavailable, StoreBroken, SchemaError)


@dataclass(frozen=True, slots=True)
class InstallState:
    """How an install stands: `storing`, `connected` or `failed`."""

    state: str
    ticket: InstallCookie
    seen: StoredInstall | None = None


def keep(services: Services, grant: EncryptedInstall) -> bool:
    """Right after the exchange: the queue is quickest. False where nobody took it: the cookie is all there is."""
    return _queued(services, grant, PATIENT) or _stored(services, grant, PATIENT)


def seen(services: Services, install_id: str) -> StoredInstall | None:
    """What PostgreSQL knows of it; None also where it cannot be asked."""
    try:
        return _ask(services, install_id)
    except NOT_NOW:
        return None


def standing(services: Services, ticket: InstallCookie, sealed: str | None) -> InstallState:
    """How the install stands now; where it is still not stored, it is handed in again, not too often.

    `sealed` is what the browser's cookie still carries of it.
    """
    now = services.clock()
    try:
        found, answers = _ask(services, ticket.install_id), True
    except NOT_NOW:
        found, answers = None, False
    if found is not None:
        return InstallState("connected", ticket, found)
    if sealed is None:
        return InstallState("failed" if answers and ticket.lost(now) else "storing", ticket)
    if ticket.hand_in_again(now, answers):
        grant = EncryptedInstall(ticket.install_id, ticket.hub_id, sealed)
        ticket = ticket.handed_in(now, _keep_again(services, grant, postgres_answers=answers))
    return InstallState("storing", ticket)


def carried(services: Services, sealed: str, install_id: str) -> Install | None:
    """What a browser's cookie carries, if it opens and is of that install: nothing else is ever handed in."""
    try:
        install = services.cipher.decrypt_install(sealed)
    except DecryptionError as error:
        log.warning("a browser's grant does not open", install_id=install_id, why=str(error))
        return None
    return install if install.install_id == install_id else None


def _ask(services: Services, install_id: str) -> StoredInstall | None:
    with asking_within(BRISK):
        return services.installs.find(install_id)


def _keep_again(services: Services, grant: EncryptedInstall, *, postgres_answers: bool) -> bool:
    """Seconds later: where PostgreSQL answers, whatever held up the queue need not hold up the person."""
    return (postgres_answers and _stored(services, grant, BRISK)) or _queued(services, grant, BRISK)


def _queued(services: Services, grant: EncryptedInstall, seconds: float) -> bool:
    return _taken("queue", grant, lambda: run_within(seconds, lambda: services.queue.store_install(grant)))


def _stored(services: Services, grant: EncryptedInstall, seconds: float) -> bool:
    def store() -> None:
        span = tracing.start_span("install.store", hub_id=grant.hub_id, install_id=grant.install_id)
        with span, asking_within(seconds):
            store_install(grant, services.cipher, services.installs, services.schedule)

    return _taken("postgres", grant, store)


def _taken(by: str, grant: EncryptedInstall, hand_in: Callable[[], None]) -> bool:
    """Whether it went well. Nothing is raised: not even a bug of ours may cost the copy that we hold."""
    try:
        hand_in()
    except (QueueUnavailable, TimedOut, StoreUnavailable, SchemaError) as error:
        log.warning("an install was not taken", by=by, install_id=grant.install_id, why=str(error))
    except StoreBroken as error:
        log.error("an install was not taken", by=by, install_id=grant.install_id, why=str(error))
    except Exception as error:  # noqa: BLE001  see above
        log.error(
            "an install was not taken",
            by=by,
            install_id=grant.install_id,
            **exception_summary.describe_exception(error),
        )
    else:
        return True
    return False
