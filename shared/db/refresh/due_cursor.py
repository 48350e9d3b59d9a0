"""Where the scan for due rows begins, so that its cost does not depend on the oldest snapshot (docs/adr/0023)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

#: The pause after a scan from the beginning of the index: this many seconds, or this many times its duration if longer.
FULL_SCAN_SECONDS, FULL_SCAN_PAUSE_FACTOR = 1.0, 20
BEGINNING = "-infinity"


@dataclass(frozen=True, slots=True)
class Scan:
    begins_at: str  #: a timestamp for SQL: rows that are due before it are not seen
    is_full: bool
    started_at: float  #: by time.monotonic()


class DueCursor:
    """The due time up to which the newest claim of this process has taken all due rows.

    While a transaction with an old snapshot is open, or a replication slot keeps one, PostgreSQL cannot remove index
    entries of rows that were refreshed since. They are at the front of the index, so a scan from its beginning would
    visit each of them. Rows behind the cursor (released ones, those of a worker that was killed, those that a
    transaction made due some time before its commit) are found by a scan from the beginning, which happens seldom.
    """

    def __init__(self, full_scan_seconds: float = FULL_SCAN_SECONDS) -> None:
        """`full_scan_seconds`: 0 lets each scan begin at the beginning, for tests that change due times."""
        self._full_scan_seconds = full_scan_seconds
        self._position: datetime | None = None  #: None: unknown
        self._next_full_scan_at = 0.0  #: by time.monotonic()

    def begin_scan(self) -> Scan:
        """For one statement, executed now."""
        now, position = time.monotonic(), self._position  # read once: another thread may forget it
        if position is not None and now < self._next_full_scan_at:
            return Scan(position.isoformat(), is_full=False, started_at=now)
        return Scan(BEGINNING, is_full=True, started_at=now)

    def end_scan(self, scan: Scan) -> None:
        """The statement is executed. Not to be called where it was not, or has left out the scan."""
        if scan.is_full and self._full_scan_seconds:
            now = time.monotonic()
            pause_seconds = max(self._full_scan_seconds, FULL_SCAN_PAUSE_FACTOR * (now - scan.started_at))
            self._next_full_scan_at = now + pause_seconds

    def move_to(self, due_at: datetime) -> None:
        """A claim took all rows that were due until then."""
        self._position = due_at

    def forget(self) -> None:
        """A full scan that took nothing has seen rows behind the cursor: the next scan is a full one again."""
        self._position = None

    def move_back_to(self, due_at: datetime) -> None:
        """A row that is due since then can be claimed again."""
        if (position := self._position) is not None:
            self._position = min(position, due_at)
