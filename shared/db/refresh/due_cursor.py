"""Where the scan for due rows begins, so that its cost does not depend on the oldest snapshot (docs/adr/0023)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

#: Between two scans from the beginning of the index.
FULL_SCAN_SECONDS = 1.0
#: They may take one of so many parts of the time.
FULL_SCAN_SHARE = 20
BEGINNING = "-infinity"


@dataclass(frozen=True, slots=True)
class Scan:
    begins_at: str  #: a timestamp for SQL: rows that are due before it are not seen
    is_full: bool


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

    @contextmanager
    def scan(self) -> Iterator[Scan]:
        """For one statement that scans. It measures the time of a scan from the beginning."""
        started_at, position = time.monotonic(), self._position  # read once: another thread may forget it
        if position is not None and started_at < self._next_full_scan_at:
            yield Scan(position.isoformat(), is_full=False)
            return
        yield Scan(BEGINNING, is_full=True)
        if self._full_scan_seconds:
            ended_at = time.monotonic()
            pause_seconds = max(self._full_scan_seconds, FULL_SCAN_SHARE * (ended_at - started_at))
            self._next_full_scan_at = ended_at + pause_seconds

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
