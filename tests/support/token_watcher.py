"""A downstream job that never sleeps: it reads every token again and again and asks HubSpot about each."""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType
from typing import Any, Self

import psycopg2
import requests

from sandbox.simulator.control import SimulatorControl, TokenCheck

EVERY = 0.05
LOOK = "SELECT hub_id, access_token FROM hubspot.tokens"
ENDED = "SELECT hub_id FROM hubspot.connections WHERE status IN ('revoked', 'disconnected')"


class Watch:
    """What it saw while it was open. A database that does not answer is asked again: that is no news here."""

    def __init__(self, database_url: str, simulator_url: str, *, every: float = EVERY) -> None:
        self.reads = 0  #: tokens read
        self.refused: list[str] = []  #: served, and not live at HubSpot
        self.ended: set[int] = set()  #: seen revoked or disconnected
        self.blind = 0  #: looks that PostgreSQL did not answer
        self._url = database_url
        self._hubspot = SimulatorControl(simulator_url)
        self._every = every
        self._connection: Any = None
        self._over = threading.Event()
        self._broken: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._forget()
        self._hubspot.close()

    def faultless(self) -> bool:
        """Raises what broke the watch itself: then it saw nothing."""
        if self._broken:
            raise self._broken
        return not self.refused and self.reads > 0

    def _run(self) -> None:
        try:
            while not self._over.wait(self._every):
                self._glance()
        except Exception as error:  # noqa: BLE001  told by `faultless`, in the test's own thread
            self._broken = error

    def _glance(self) -> None:
        try:
            self._look()
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            self.blind += 1
            self._forget()

    def _look(self) -> None:
        if self._connection is None:
            self._connection = psycopg2.connect(self._url, connect_timeout=2)
            self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            asked = time.monotonic()
            cursor.execute(LOOK)
            tokens = dict(cursor.fetchall())
            checks = self._hubspot.check_tokens(list(tokens.values()))
            waited = time.monotonic() - asked
            cursor.execute(ENDED)
            self.ended.update(hub_id for (hub_id,) in cursor.fetchall())
        self.reads += len(tokens)
        self.refused += [
            f"{hub_id}: {check}" for hub_id, check in zip(tokens, checks, strict=True) if _bad(check, waited)
        ]

    def _forget(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg2.Error):
                self._connection.close()
        self._connection = None


def _bad(check: TokenCheck, waited: float) -> bool:
    """A token may end between our reading it and HubSpot's looking at it."""
    ended_since = check.state == "expired" and (check.seconds_left or 0.0) > -waited
    return not (check.is_live or ended_since)


def settled(simulator: SimulatorControl) -> bool:
    """No refresh is under way at HubSpot; one whose client is gone is not."""
    with contextlib.suppress(requests.RequestException):
        return bool(simulator.get_stats(by_hub=False)["in_flight"] == 0)
    return False
