"""Writes what worker/liveness.py reads: from the loop of the worker, and from the clockwork of beat.

A broker that does not answer is no reason to restart anybody: what HubSpot answered may wait in there to be saved. So
a thread keeps the pulse up while they wait for a connection; once there is one, only the loop itself does.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from celery import Celery, bootsteps
from celery.beat import Scheduler, beat_nodename

from worker.liveness import BEAT, HeartbeatFile

log = structlog.get_logger(__name__)


def register(app: Celery) -> None:
    app.steps["consumer"].add(WorkerPulse)
    app.conf.beat_scheduler = "worker.heartbeat:Clockwork"


class Sign:
    """A pulse of this process, which no trouble with its file stops, and which is gone when the process ends."""

    def __init__(self, node: str) -> None:
        self._pulse = HeartbeatFile(node)
        self._told = False
        self._connected = threading.Event()
        atexit.register(self._end, os.getpid())

    def beat(self) -> None:
        try:
            self._pulse.beat()
        except OSError as error:
            if not self._told:
                log.warning("worker.liveness will call this process dead: no file can be written", why=str(error))
            self._told = True

    def waiting(self) -> None:
        """Beat from a thread until `connected`."""
        self.connected()
        self._connected = threading.Event()
        threading.Thread(target=self._beat_until, args=(self._connected,), name="pulse", daemon=True).start()

    def connected(self) -> None:
        self._connected.set()

    def _beat_until(self, connected: threading.Event) -> None:
        while not connected.is_set():
            self.beat()
            connected.wait(BEAT)

    def _end(self, pid: int) -> None:
        if os.getpid() == pid:  # not a pool process on its way out
            self._pulse.end()


class WorkerPulse(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Celery starts it whenever the worker has connected, and stops it whenever the connection is lost."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer: Any = None
        self._sign = Sign(consumer.hostname)
        self._sign.waiting()

    def start(self, consumer: Any) -> None:
        self._sign.connected()
        self._sign.beat()
        self._timer = consumer.timer.call_repeatedly(BEAT, self._sign.beat)

    def stop(self, _consumer: Any) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
            self._sign.waiting()


class Clockwork(Scheduler):  # type: ignore[misc]  # Celery has no types
    """Celery's own, which shows at every tick that it turns.

    Without Celery's file of when it last ran: our one entry runs every few seconds anyway.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._sign = Sign(beat_nodename())
        self._closed = False
        super().__init__(*arguments, **options)

    def tick(self, *arguments: Any, **options: Any) -> Any:
        if self._closed:
            # Told to go in the middle of a word with the broker, whose library can swallow the SystemExit.
            raise SystemExit
        wait = super().tick(*arguments, **options)
        self._sign.beat()
        return min(wait, BEAT)  # with sweeps that are far apart, too

    def close(self) -> None:
        self._closed = True
        super().close()

    def _ensure_connected(self) -> Any:
        with self._waiting():
            return super()._ensure_connected()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self._sign.waiting()
        try:
            yield
        finally:
            self._sign.connected()
