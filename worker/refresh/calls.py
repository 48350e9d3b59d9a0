"""The refreshes of one loop that are in flight, and the claimed rows that wait until one of them ends."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable
from functools import partial
from time import sleep

import structlog

from shared.db.refresh.leases import ClaimedConnection, Lease
from shared.domain.errors import InvalidClient, Throttled
from worker.refresh.refresher import DecryptedConnection, RefreshAttempt, Refresher

log = structlog.get_logger(__name__)

#: Once an answer has brought a new refresh token, which only this process knows, results are gathered no longer.
ROTATED_GATHER_SECONDS = 0.02


class RefreshCalls:
    """The loop's thread adds rows and gathers attempts; both it and the thread of calls begin calls."""

    def __init__(self, refresher: Refresher, concurrency: int) -> None:
        self._refresher = refresher
        self._concurrency = concurrency
        self._queued: deque[DecryptedConnection] = deque()
        self._free_calls = deque([None] * concurrency)  #: one item for each call that may begin
        self._start_lock = threading.Lock()  #: held by the thread that begins calls
        self._ended: deque[RefreshAttempt] = deque()
        self._gather_now = threading.Event()
        self._leases: set[Lease] = set()
        self._is_stopped = False
        self._is_closed = False
        self._has_rotated = False  #: an attempt with a new refresh token waits to be gathered

    @property
    def leases(self) -> Collection[Lease]:
        """Of rows that were added and not yet gathered, also those that are queued."""
        return self._leases

    def count_unfinished(self) -> int:
        """Calls in flight and rows that are queued."""
        return len(self._leases) - len(self._ended)

    def add(self, rows: Iterable[ClaimedConnection]) -> None:
        """Begin their calls, or queue them behind those in flight; also after an answer has stopped the queue."""
        self._is_stopped = False
        decrypted = [self._refresher.decrypt(claimed) for claimed in rows]
        self._leases.update(each.claimed.lease for each in decrypted)
        self._queued.extend(decrypted)
        self.start_queued()

    def close(self) -> None:
        """Begin no more calls. Rows that are queued become attempts without a result."""
        self._is_closed = True

    def end_gathering(self) -> None:
        """Let gather() return now, in whichever thread it is."""
        self._gather_now.set()

    def gather(self, seconds: float) -> list[RefreshAttempt]:
        """What ends within `seconds`, and has ended before.

        Returns earlier where nothing is left, where an answer asks all workers to stop, which is saved at once, or
        soon after one has brought a new refresh token. The loop's thread sleeps meanwhile: each time that it wakes up,
        it takes the interpreter from the thread of calls.
        """
        if self._gather_now.wait(seconds) and self._has_rotated and not (self._is_stopped or self._is_done()):
            sleep(min(seconds, ROTATED_GATHER_SECONDS))
        self._gather_now.clear()
        self._has_rotated = False
        attempts = [self._ended.popleft() for _ in range(len(self._ended))]
        self._leases.difference_update([attempt.lease for attempt in attempts])
        return attempts

    def start_queued(self) -> None:
        """Begin as many calls as may be in flight.

        The loop's thread does so at each of its rounds, and the thread of calls whenever a call has ended. Returns at
        once where the other thread is starting calls: that one takes further rows too, or the loop's next round does.
        """
        if not self._start_lock.acquire(blocking=False):
            return
        try:
            while self._free_calls and self._queued:
                self._free_calls.popleft()
                decrypted = self._queued.popleft()
                claimed = decrypted.claimed
                if self._is_stopped or self._is_closed:
                    self._end(RefreshAttempt(claimed.lease))
                else:
                    self._refresher.start(decrypted, self._on_attempt, partial(self._on_error, claimed))
        finally:
            self._start_lock.release()

    def _on_attempt(self, attempt: RefreshAttempt) -> None:
        must_stop = any(isinstance(outcome.error, (Throttled, InvalidClient)) for outcome in attempt.outcomes)
        if must_stop:
            self._is_stopped = True
        self._end(attempt)
        self.start_queued()
        if attempt.result and attempt.result.encrypted_refresh_token is not None:
            self._has_rotated = True
        if must_stop or self._has_rotated:
            self._gather_now.set()

    def _on_error(self, claimed: ClaimedConnection, error: Exception) -> None:
        log.error("a refresh raised an exception", **claimed.connection.identity.log_fields(), exc_info=error)
        self._end(RefreshAttempt(claimed.lease))
        self.start_queued()

    def _end(self, attempt: RefreshAttempt) -> None:
        self._ended.append(attempt)
        self._free_calls.append(None)
        if self._is_done():
            self._gather_now.set()

    def _is_done(self) -> bool:
        return len(self._free_calls) == self._concurrency and not self._queued
