"""Celery's consumer of messages, which no failure of the broker ends: it connects again, with growing waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from celery.exceptions import WorkerLostError, WorkerShutdown
from celery.platforms import EX_FAILURE
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

from shared.redis_transport import CONNECTION_ERRORS

log = structlog.get_logger(__name__)

#: Between the loss of a connection and the next attempt to connect: doubled after each loss. It is short, because the
#: results of pool processes are not read meanwhile.
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.5, 5.0
#: After a connection that lasted for so long the pauses are short again.
STABLE_SECONDS = 30.0
#: Between two looks whether the worker shall stop.
POLL_SECONDS = 0.1
#: Workers ask each other for revoked tasks (a second at each connection) and listen to all events of all others. Here
#: tasks cannot be revoked, and what one worker has to know of others is in PostgreSQL.
NO_NEIGHBOURS: Mapping[str, Any] = {"without_mingle": True, "without_gossip": True}
#: Between two events for Flower that this worker is alive, each with this number. Celery's own is 2.
HEARTBEAT_EVENT_SECONDS = 10.0


class ReconnectingConsumer(Consumer):  # type: ignore[misc]  # Celery has no types
    """The worker's main process only receives messages: all work is done in pool processes, which stay as they are.

    So for any exception, also of a kind that Celery does not expect (kombu raises AttributeError where a connection
    breaks while it is being closed), the right answer is a new connection, not the end of the worker.
    """

    def __init__(self, *arguments: Any, worker_options: Mapping[str, Any] | None = None, **options: Any) -> None:
        given = dict(worker_options or {})
        given["heartbeat_interval"] = given.get("heartbeat_interval") or HEARTBEAT_EVENT_SECONDS
        super().__init__(*arguments, worker_options={**given, **NO_NEIGHBOURS}, **options)
        self.connection_errors = (Exception,)
        self._pause_seconds = MIN_PAUSE_SECONDS
        self._failed_at = 0.0  #: by time.monotonic()
        self._run_loop: Callable[..., None] = self.loop  # type: ignore[has-type]  # set by Celery
        self.loop = self._run_loop_or_exit

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        self._log_and_pause(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        try:
            super().on_connection_error_after_connected(exc)
        except Exception:
            log.exception("a broken connection to the broker could not be closed")
            self.connection = None
        self._log_and_pause(exc)

    def _run_loop_or_exit(self, *arguments: Any) -> None:
        try:
            self._run_loop(*arguments)
        except WorkerLostError:
            log.exception("the pool processes do not start")
            raise WorkerShutdown(EX_FAILURE) from None

    def _log_and_pause(self, error: Exception) -> None:
        # 1. How long?
        now = time.monotonic()
        is_first = now - self._failed_at > STABLE_SECONDS
        self._pause_seconds = MIN_PAUSE_SECONDS if is_first else min(2 * self._pause_seconds, MAX_PAUSE_SECONDS)
        # 2. Say it, with a traceback where the error is none of Redis.
        log.warning(
            "the broker failed; the worker connects again",
            why=f"{type(error).__name__}: {error}",
            seconds=self._pause_seconds,
            exc_info=None if isinstance(error, CONNECTION_ERRORS) else error,
        )
        # 3. Wait, unless the worker is asked to stop.
        while time.monotonic() < now + self._pause_seconds:
            maybe_shutdown()
            time.sleep(POLL_SECONDS)
        self._failed_at = time.monotonic()
