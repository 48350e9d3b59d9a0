"""Counts what attempts came to, and tells PostgreSQL every few seconds, beside the saves."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime

import structlog

from shared.db.core.errors import StoreError
from shared.db.refresh.counters import CounterStore
from shared.domain.refresh_counters import DECRYPTION_FAILED, RefreshCounters, classify_outcome
from worker.refresh import Attempt

log = structlog.get_logger(__name__)

#: Seconds between two tellings while there is work, and after one in vain. A process that is killed takes the counts
#: of so long with it.
EVERY = 5.0
#: Seconds between two tellings where the work has ended.
AT_REST = 1.0


class CounterReporter:
    def __init__(self, store: CounterStore) -> None:
        self._store = store
        self._counts = RefreshCounters()
        self._told_at = -EVERY
        self._in_vain = False

    def note(self, attempts: Iterable[Attempt], saved_at: datetime) -> None:
        """Of attempts that are saved. What was handed back uncalled is none."""
        for attempt in attempts:
            if attempt.outcomes:
                self._counts.add(classify_outcome(attempt.outcomes[0].error), saved_at, attempt.due_at)
            elif attempt.result:
                self._counts.add(DECRYPTION_FAILED, saved_at, attempt.due_at)

    def wait(self, *, at_rest: bool) -> float | None:
        """Seconds until it is time to tell; None where there is nothing."""
        if not self._counts:
            return None
        every = AT_REST if at_rest and not self._in_vain else EVERY
        return max(0.0, self._told_at + every - time.monotonic())

    def tell(self, *, at_rest: bool) -> None:
        """If it is time. What PostgreSQL does not take now is told later; nobody waits for that."""
        if self.wait(at_rest=at_rest) == 0.0:
            self.tell_now()

    def tell_now(self) -> None:
        if not self._counts:
            return
        try:
            self._store.add(self._counts)
        except StoreError as error:
            self._in_vain = True
            log.info("counts wait for PostgreSQL", attempts=self._counts.attempts.total(), why=str(error))
        else:
            self._counts, self._in_vain = RefreshCounters(), False
        self._told_at = time.monotonic()
