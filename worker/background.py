"""Work that waits for other services, each kind in threads of its own, so that it holds up only its like."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import structlog

from shared.db.core.errors import StoreError

log = structlog.get_logger(__name__)


class BackgroundWork:
    """A few threads for one kind of work, and a short queue.

    What does not fit in is refused, and what is queued when the process ends is dropped: each kind of work is claimed
    in PostgreSQL, and a later sweep claims again what was not done.
    """

    def __init__(self, name: str, *, threads: int, max_queued: int) -> None:
        """The threads start with the first work."""
        self._name = name
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._max_futures = threads + max_queued
        self._futures: set[Future[None]] = set()  #: queued and running
        self._is_stopping = False
        # Reentrant, and no shutdown() of the executor: a signal handler may stop the work in the middle of submit().
        self._lock = threading.RLock()

    def submit(self, work: Callable[[], object]) -> bool:
        """False where there is no room, or the process ends."""
        with self._lock:
            if self._is_stopping:
                return False
            if len(self._futures) >= self._max_futures:
                log.debug("too much work of one kind is waiting; a later sweep does the rest", work=self._name)
                return False
            future = self._executor.submit(self._run, work)
            self._futures.add(future)
        future.add_done_callback(self._forget)
        return True

    def stop(self) -> None:
        """Take no more work, and drop what no thread has begun."""
        self._is_stopping = True

    def join(self, timeout_seconds: float) -> bool:
        """After `stop`: whether all that was begun has ended in that time."""
        with self._lock:
            futures = set(self._futures)
        return not wait(futures, timeout_seconds).not_done

    def _forget(self, future: Future[None]) -> None:
        with self._lock:
            self._futures.discard(future)

    def _run(self, work: Callable[[], object]) -> None:
        if self._is_stopping:
            return
        try:
            work()
        except StoreError as error:
            log.warning("PostgreSQL failed; a later sweep does this work", work=self._name, why=str(error))
        except Exception:
            # The executor keeps an exception in a future that no code reads.
            log.exception("work in the background raised an exception", work=self._name)
