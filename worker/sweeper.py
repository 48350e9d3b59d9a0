"""The thread of a pool process that sweeps, so that no sweep waits for a free pool process, a queue or a broker."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import structlog

from shared.db.core.errors import SchemaError, StoreError
from shared.domain.sweep_liveness import is_beat_late
from worker.app_services import AppServices
from worker.liveness import HEARTBEAT_SECONDS
from worker.services import Services
from worker.sweep import sweep

log = structlog.get_logger(__name__)

#: A process checks whether a sweep has begun so long after it was expected, at random, so that not all check together.
#: As fractions of SWEEP_SECONDS.
MIN_CHECK_DELAY_FRACTION, MAX_CHECK_DELAY_FRACTION = 0.1, 0.4
#: Where more rows of an app are due, a process that has not swept claims rows too.
HELP_ABOVE_DUE_ROWS = 100


class Sweeper:
    """Sweeps when beat's message says so, and by itself where no sweep has begun for too long.

    PostgreSQL's clock decides, and begin_sweep() lets only one of many processes begin. So tokens stay fresh without
    beat, without Redis, and while every pool process is busy with something else.
    """

    def __init__(
        self, get_services: Callable[[], Services], sweep_seconds: float, write_heartbeat: Callable[[], None]
    ) -> None:
        """`write_heartbeat` is called every few seconds while the thread does not hang."""
        self._get_services = get_services
        self._sweep_seconds = sweep_seconds
        self._write_heartbeat = write_heartbeat
        self._is_requested = threading.Event()
        self._is_stopping = threading.Event()
        self._seen: dict[str, object] = {}  #: by app, the newest sweep whose backlog this process has looked at
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def request_sweep(self) -> None:
        """Beat asks for a sweep. Returns at once."""
        self._is_requested.set()

    def stop(self) -> None:
        """Begin no more sweeps. One that runs ends with the process: the next sweep does what it left undone."""
        self._is_stopping.set()
        self._is_requested.set()

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            seconds_since_sweep = self._sweep_seconds / 2  # after an error the next turn begins sooner
            try:
                seconds_since_sweep = self._take_turn()
            except (StoreError, SchemaError) as error:
                log.warning("PostgreSQL is not ready; the next sweep tries again", why=str(error))
            except Exception:
                # A bug must not end the thread: all accounts depend on it.
                log.exception("a sweep raised an exception")
            after_next_sweep = self._sweep_seconds * random.uniform(MIN_CHECK_DELAY_FRACTION, MAX_CHECK_DELAY_FRACTION)  # noqa: S311
            self._wait(max(0.0, self._sweep_seconds - seconds_since_sweep) + after_next_sweep)

    def _wait(self, seconds: float) -> None:
        """Until a sweep is requested, at most for so long."""
        self._write_heartbeat()
        while seconds > 0 and not self._is_requested.wait(min(seconds, HEARTBEAT_SECONDS)):
            seconds -= HEARTBEAT_SECONDS
            self._write_heartbeat()

    def _take_turn(self) -> float:
        """Returns how long ago the newest sweep began, in seconds; of several apps that of the longest ago."""
        # 1. Beat's sweep.
        services = self._get_services()
        if self._is_requested.is_set():
            self._is_requested.clear()
            sweep(services, services.apps.values(), is_from_beat=True)
            return 0.0

        # 2. Another process swept: help it where more of an app is due than it refreshes at once.
        ages = {app.name: self._help_newest_sweep(app) for app in services.apps.values()}

        # 3. Beat's message did not come to any process: sweep without it.
        if late_apps := [app for app in services.apps.values() if ages[app.name] is None]:
            sweep(services, late_apps, is_from_beat=False)
        return max((age for age in ages.values() if age is not None), default=0.0)

    def _help_newest_sweep(self, app: AppServices) -> float | None:
        """Its age in seconds; None where there was none for too long."""
        swept_at, now = app.provider.read_newest_sweep()
        if swept_at is None or is_beat_late(swept_at, now, self._sweep_seconds):
            return None
        if swept_at != self._seen.get(app.name):
            self._seen[app.name] = swept_at
            if app.claims.count_due(at_most=HELP_ABOVE_DUE_ROWS + 1) > HELP_ABOVE_DUE_ROWS:
                app.activate_refresh_loop()
        return (now - swept_at).total_seconds()
