"""Beat's scheduler: every few seconds one message, by a clock that is never set, and none while an old one waits."""

from __future__ import annotations

from typing import Any

import structlog
from celery.beat import ScheduleEntry, Scheduler, beat_nodename

from shared.boot_clock import boot_seconds
from shared.dispatch import BACKGROUND_QUEUE
from worker.heartbeat import Heartbeat
from worker.liveness import HEARTBEAT_SECONDS

log = structlog.get_logger(__name__)

#: Between two warnings of the same failure.
WARN_INTERVAL_SECONDS = 30.0


class MonotonicScheduler(Scheduler):  # type: ignore[misc]  # Celery has no types
    """Celery's own scheduler reads the host's clock: one that is set back by minutes would stop it for minutes.

    It keeps no file: its entries run every few seconds anyway. It writes a heartbeat at every tick.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._heartbeat = Heartbeat(beat_nodename())
        self._is_closed = False
        self._due_at: dict[str, float] = {}  #: this and the next one by boot_seconds()
        self._warned_at = -WARN_INTERVAL_SECONDS
        super().__init__(*arguments, **options)

    def tick(self, *_arguments: Any, **_options: Any) -> float:
        """Send what is due. Returns the seconds until the next call."""
        if self._is_closed:
            # SIGTERM came during a call to the broker, whose library can swallow the SystemExit that Celery raised.
            raise SystemExit
        for name, entry in self.schedule.items():
            now = boot_seconds()
            due_at = self._due_at.get(name, now)
            if due_at <= now:
                self._send(entry)
                interval = entry.schedule.run_every.total_seconds()
                # Runs that were missed are not made up for.
                self._due_at[name] = due_at + interval if due_at + interval > now else now + interval
        self._heartbeat.write()
        return max(0.0, min(HEARTBEAT_SECONDS, *(at - boot_seconds() for at in self._due_at.values())))

    def close(self) -> None:
        self._is_closed = True
        super().close()

    def _send(self, entry: ScheduleEntry) -> None:
        try:
            if not self.connection.connected:
                self._ensure_connected()
            # Messages that no worker has taken: further ones would only pile up.
            if not self.connection.default_channel.client.llen(BACKGROUND_QUEUE):
                self.apply_async(entry, producer=self.producer, advance=False)
        except Exception as error:  # noqa: BLE001  Celery raises anything, and the next tick tries again
            if boot_seconds() - self._warned_at >= WARN_INTERVAL_SECONDS:
                self._warned_at = boot_seconds()
                why = f"{type(error).__name__}: {error}"
                log.warning("beat cannot send its message; it tries again, and the workers sweep without it", why=why)

    def _ensure_connected(self) -> Any:
        self._heartbeat.start_thread()
        try:
            return super()._ensure_connected()
        finally:
            self._heartbeat.stop_thread()
