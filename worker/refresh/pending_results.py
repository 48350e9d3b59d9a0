"""What HubSpot answered and PostgreSQL does not have yet, in one pool process."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from shared.db.refresh.leases import Lease
from shared.domain.provider import CallOutcome
from worker.refresh.refresher import RefreshAttempt

#: Until a row that another transaction has locked is tried again: doubled after each try.
MIN_LOCKED_PAUSE_SECONDS, MAX_LOCKED_PAUSE_SECONDS = 0.1, 2.0


@dataclass(slots=True)
class PendingResults:
    monotonic_clock: Callable[[], float] = time.monotonic
    outcomes: list[CallOutcome] = field(default_factory=list)
    attempts: list[RefreshAttempt] = field(default_factory=list)  #: those with a result
    uncalled: list[Lease] = field(default_factory=list)
    #: Those of `attempts` and `uncalled` whose row another transaction has locked: tried again after a pause.
    locked: list[RefreshAttempt] = field(default_factory=list)
    uncalled_locked: list[Lease] = field(default_factory=list)
    _locked_ids: set[int] = field(default_factory=set)  #: connections: those of `locked` after the last save
    _retry_locked_at: float = 0.0  #: by the clock
    _locked_pause_seconds: float = MIN_LOCKED_PAUSE_SECONDS

    def add(self, attempts: Iterable[RefreshAttempt]) -> None:
        for attempt in attempts:
            self.outcomes += attempt.outcomes
            if attempt.result:
                self.attempts.append(attempt)
            else:
                self.uncalled.append(attempt.lease)

    def finish(self, locked_ids: Collection[int]) -> list[RefreshAttempt]:
        """All attempts are dealt with, but for those of connections whose rows are locked: they wait.

        Returns those that were not among these already.
        """
        self.locked += [attempt for attempt in self.attempts if attempt.lease.connection_id in locked_ids]
        self.attempts = []
        known, self._locked_ids = self._locked_ids, {attempt.lease.connection_id for attempt in self.locked}
        return [attempt for attempt in self.locked if attempt.lease.connection_id not in known]

    def retry_locked_if_due(self) -> None:
        if not self.has_locked():
            self._retry_locked_at, self._locked_pause_seconds = 0.0, MIN_LOCKED_PAUSE_SECONDS
        elif self.monotonic_clock() >= self._retry_locked_at:
            self.attempts += self.locked
            self.uncalled += self.uncalled_locked
            self.locked, self.uncalled_locked = [], []
            self._retry_locked_at = self.monotonic_clock() + self._locked_pause_seconds
            self._locked_pause_seconds = min(2 * self._locked_pause_seconds, MAX_LOCKED_PAUSE_SECONDS)

    def has_locked(self) -> bool:
        return bool(self.locked or self.uncalled_locked)

    def __len__(self) -> int:
        """Rows that PostgreSQL waits for."""
        return len(self.attempts) + len(self.uncalled) + len(self.locked) + len(self.uncalled_locked)
