"""Writes the heartbeat file that worker/liveness.py reads: from the event loop of the worker and from beat's scheduler
(worker/beat.py).

A broker that does not answer is no reason to restart a process: it may hold answers of HubSpot that are not saved yet.
So a thread writes heartbeats while the process waits for a connection; once connected, only its own loop does.
"""

from __future__ import annotations

import atexit
import os
import threading
from typing import Any

import structlog
from celery import Celery, bootsteps

from worker.liveness import HEARTBEAT_SECONDS, HeartbeatFile

log = structlog.get_logger(__name__)


def register(app: Celery) -> None:
    app.steps["consumer"].add(HeartbeatStep)


class Heartbeat:
    """The heartbeats of this process. A failure to write one never stops it; the file goes when it ends."""

    def __init__(self, node: str) -> None:
        self._file = HeartbeatFile(node)
        self._is_failure_logged = False
        self._thread_stop = threading.Event()
        atexit.register(self._remove_file, os.getpid())

    def write(self) -> None:
        try:
            self._file.write()
        except OSError as error:
            if not self._is_failure_logged:
                log.warning("no heartbeat file can be written: worker.liveness will fail", why=str(error))
            self._is_failure_logged = True

    def start_thread(self) -> None:
        """Write from a thread until `stop_thread`."""
        self.stop_thread()
        self._thread_stop = threading.Event()
        threading.Thread(target=self._write_until, args=(self._thread_stop,), name="heartbeat", daemon=True).start()

    def stop_thread(self) -> None:
        self._thread_stop.set()

    def _write_until(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.write()
            stop.wait(HEARTBEAT_SECONDS)

    def _remove_file(self, pid: int) -> None:
        if os.getpid() == pid:  # not in a pool process that exits
            self._file.remove()


class HeartbeatStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Celery starts it when the worker has connected to the broker, and stops it when the connection is lost."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer: Any = None
        self._heartbeat = Heartbeat(consumer.hostname)
        self._heartbeat.start_thread()

    def start(self, consumer: Any) -> None:
        self._heartbeat.stop_thread()
        self._heartbeat.write()
        self._timer = consumer.timer.call_repeatedly(HEARTBEAT_SECONDS, self._heartbeat.write)

    def stop(self, _consumer: Any) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
            self._heartbeat.start_thread()
