"""Counts the outcomes of refreshes, and adds them to PostgreSQL's counters every few seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime

import structlog

from shared.db.core.errors import StoreError
from shared.db.refresh.counters import CounterStore
from shared.domain.refresh_counters import DECRYPTION_FAILED, RefreshCounters, classify_outcome
from worker.refresh.refresher import RefreshAttempt

log = structlog.get_logger(__name__)

#: Between two reports while there is work, and after one that failed. A process that is killed loses the counts of
#: this time.
REPORT_SECONDS = 5.0
#: Between two reports where there is no work left.
IDLE_REPORT_SECONDS = 1.0


class CounterReporter:
    def __init__(self, store: CounterStore) -> None:
        self._store = store
        self._counters = RefreshCounters()
        self._reported_at = -REPORT_SECONDS  #: by time.monotonic()
        self._has_last_report_failed = False

    def add(self, attempts: Iterable[RefreshAttempt], saved_at: datetime) -> None:
        """Count attempts that were saved, or came too late to be. A row that was released uncalled is not one."""
        made = [attempt for attempt in attempts if attempt.outcomes or attempt.result]
        self._counters.add([(_classify(attempt), attempt.due_at) for attempt in made], saved_at)

    def seconds_until_report(self, *, is_idle: bool) -> float | None:
        """None where there is nothing to report."""
        if not self._counters:
            return None
        interval = IDLE_REPORT_SECONDS if is_idle and not self._has_last_report_failed else REPORT_SECONDS
        return max(0.0, self._reported_at + interval - time.monotonic())

    def report_if_due(self, *, is_idle: bool) -> None:
        if self.seconds_until_report(is_idle=is_idle) == 0.0:
            self.report()

    def report(self) -> None:
        """Where PostgreSQL does not answer the counts are kept, and reported later; no refresh waits for that."""
        if not self._counters:
            return
        try:
            self._store.add(self._counters)
        except StoreError as error:
            self._has_last_report_failed = True
            log.info("refresh counters wait for PostgreSQL", attempts=self._counters.attempts.total(), why=str(error))
        else:
            self._counters, self._has_last_report_failed = RefreshCounters(), False
        self._reported_at = time.monotonic()


def _classify(attempt: RefreshAttempt) -> str:
    return classify_outcome(attempt.outcomes[0].error) if attempt.outcomes else DECRYPTION_FAILED
