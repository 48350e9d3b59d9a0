"""The threads that read HubSpot's journals, one for each app, so that neither a sweep nor another app waits for one.

Any number of processes may run them: a lease in PostgreSQL lets one at a time read the journal of an app.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable

import structlog

from shared.db.core.errors import SchemaError, StoreError
from worker.journal.reader import DUE_SHARE
from worker.services import Services

log = structlog.get_logger(__name__)

#: Until the next turn, where files are left, or reports wait for connections that are being refreshed.
SOON_SECONDS = 1.0
#: Until the next turn, at most, where PostgreSQL did not answer.
STORE_RETRY_SECONDS = 3.0


class JournalThreads:
    """Take the turns of every app's journal, without beat and without a message: a thread for each app."""

    def __init__(self, get_services: Callable[[], Services], apps: Iterable[str], journal_seconds: float) -> None:
        self._get_services = get_services
        self._journal_seconds = journal_seconds
        self._is_stopping = threading.Event()
        for app in apps:
            threading.Thread(target=self._run, args=(app,), name=f"journal-{app}", daemon=True).start()

    def stop(self) -> None:
        """Begin no more turns. One that runs ends with the process: its lease ends soon."""
        self._is_stopping.set()

    def _run(self, app: str) -> None:
        while not self._is_stopping.is_set():
            seconds = self._journal_seconds * random.uniform(DUE_SHARE, 1.0)  # noqa: S311
            try:
                if self._take_turn(app):
                    seconds = min(seconds, SOON_SECONDS)
            except (StoreError, SchemaError) as error:
                log.warning("PostgreSQL is not ready; HubSpot's journal is read later", app=app, why=str(error))
                seconds = min(seconds, STORE_RETRY_SECONDS)
            except Exception:
                # A bug must not end the thread: uninstalls would be noticed late from then on.
                log.exception("reading HubSpot's journal raised an exception", app=app)
            self._is_stopping.wait(seconds)

    def _take_turn(self, name: str) -> bool:
        """Whether the next one is to begin soon."""
        app = self._get_services().apps[name]
        turn = app.journal_reader.take_turn()
        if turn.due:
            app.activate_refresh_loop()
        return turn.is_more
