"""What Celery's options and the host must allow before a worker starts.

What fails later would look like HubSpot's fault, or like nothing at all: a worker that is ready and refreshes no token.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from typing import Any

import billiard

from shared.dispatch import BACKGROUND_QUEUE, INTERACTIVE_QUEUE
from shared.settings import Settings, SettingsError

#: Pools whose tasks run in a process that Celery's signals announce.
POOLS = ("celery.concurrency.prefork", "celery.concurrency.solo")
QUEUES = (INTERACTIVE_QUEUE, BACKGROUND_QUEUE)
#: Of a pool process beside its calls of refreshes: connections to PostgreSQL and Redis, pipes, other calls to HubSpot.
OTHER_FILES = 100


def check_options(options: Mapping[str, Any]) -> None:
    """`options`: of `celery worker`. Raises SettingsError."""
    pool = getattr(options.get("pool"), "__module__", POOLS[0])
    if pool not in POOLS:
        raise SettingsError(
            f"the pool {pool.rpartition('.')[2]} would refresh no token, for it runs no sweeps: remove --pool"
        )
    if unknown := sorted(set(options.get("queues") or ()) - set(QUEUES)):
        raise SettingsError(
            f"nothing is put into the queue {', '.join(unknown)}, so installs would wait: remove --queues, or take "
            f"{' and '.join(QUEUES)}"
        )


def check_host(settings: Settings) -> None:
    """Raises the limit of open files where the host lets us. Raises SettingsError."""
    _check_open_files(settings.refresh_concurrency, len(settings.apps))
    try:
        billiard.Lock()
    except (OSError, ImportError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise SettingsError(
            f"pool processes cannot share a semaphore on this host ({why}): mount a writable tmpfs at /dev/shm"
        ) from None


def _check_open_files(concurrency: int, apps: int) -> None:
    needed = concurrency * apps + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _allows(soft, needed):
        return
    if not _allows(hard, needed) or not _set_open_files(needed, hard):
        allowed = soft if hard == resource.RLIM_INFINITY else hard
        raise SettingsError(
            f"a process may open {allowed} files on this host, and REFRESH_CONCURRENCY={concurrency} needs {needed}: "
            "raise the limit (ulimit -n, LimitNOFILE=, the ulimits of a container), or lower REFRESH_CONCURRENCY"
        )


def _allows(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed


def _set_open_files(soft: int, hard: int) -> bool:
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    except (OSError, ValueError):  # pragma: no cover  a hard limit that says "unlimited" and is not, as on macOS
        return False
    return True
