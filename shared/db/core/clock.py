"""The one clock, PostgreSQL's, read between two of its replies."""

from __future__ import annotations

import time
from datetime import datetime, timedelta


class DatabaseClock:
    """Never ahead of the server: its time was old by the way of the reply when it was anchored."""

    def __init__(self) -> None:
        self._anchor: tuple[datetime, float] | None = None

    def set(self, db_now: datetime) -> None:
        """Call it when a reply that brought the server's time has just arrived, in any thread."""
        self._anchor = (db_now, time.monotonic())  # one assignment: a reader sees both or neither

    def now(self) -> datetime:
        """Raises RuntimeError before the first reply."""
        if self._anchor is None:
            raise RuntimeError("the database's clock was never read: claim or sweep before asking for the time")
        db_now, since = self._anchor
        return db_now + timedelta(seconds=time.monotonic() - since)
