"""PostgreSQL's clock, the only one that decisions use, between two of its replies."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from shared.boot_clock import boot_seconds


class DatabaseClock:
    """Behind the server's clock by at most the time that the newest reply took, and never ahead of it."""

    def __init__(self, elapsed_clock: Callable[[], float] = boot_seconds) -> None:
        self._elapsed_clock = elapsed_clock
        self._anchor: tuple[datetime, float] | None = None

    def set(self, database_now: datetime) -> None:
        """Call this, in any thread, when a reply with the server's time has just arrived."""
        self._anchor = (database_now, self._elapsed_clock())  # one assignment: no thread reads one half of it

    def now(self) -> datetime:
        """Raises RuntimeError before the first set()."""
        if self._anchor is None:
            raise RuntimeError("the database's time is not known yet: claim rows before asking for it")
        database_now, anchor_seconds = self._anchor
        return database_now + timedelta(seconds=self._elapsed_clock() - anchor_seconds)
