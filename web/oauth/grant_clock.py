"""Dates grants by PostgreSQL's clock: which of two installs is newer must not depend on the clocks of web's hosts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from shared.db.core.clock import DatabaseClock
from shared.net.deadline import deadline
from web.oauth.install_storage import DATABASE_ERRORS

#: The person waits for it, and a wrong date is corrected by the next install.
READ_TIMEOUT_SECONDS = 0.5


class GrantClock:
    """PostgreSQL's time now, while PostgreSQL is down counted from its last answer to this process.

    Only a process that PostgreSQL never answered uses its host's clock.
    """

    def __init__(self, read_time: Callable[[], datetime], host_clock: Callable[[], datetime]) -> None:
        """`read_time` reads PostgreSQL's clock, and raises StoreUnavailable."""
        self._read_time = read_time
        self._host_clock = host_clock
        self._database_clock = DatabaseClock()
        self._has_answered = False

    def now(self) -> tuple[datetime, bool]:
        """The time, and whether it is that of the host's clock."""
        try:
            with deadline(READ_TIMEOUT_SECONDS):
                self._database_clock.set(self._read_time())
        except DATABASE_ERRORS:
            if not self._has_answered:
                return self._host_clock(), True
        self._has_answered = True
        return self._database_clock.now(), False
