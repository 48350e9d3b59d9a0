"""The refresh loop of one pool process: keeps its calls in flight constant, from trickling claims to bulk saves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

import structlog

from shared import tracing
from shared.db.core.errors import StatementRejected, StoreError
from shared.db.refresh.claims import ClaimedConnection, ConnectionClaims, Lease, RefreshResult
from shared.db.refresh.counters import CounterStore
from shared.db.refresh.provider import ProviderStore
from shared.db.refresh.results import RefreshResults
from shared.domain.errors import InvalidClient, Throttled
from shared.domain.provider import CallOutcome
from worker.refresh import Attempt, Refresher
from worker.refresh_counters import CounterReporter
from worker.refresh_log import RefreshLog

log = structlog.get_logger(__name__)

#: Seconds for which results are gathered before they are saved together.
GATHER = 0.04
#: Seconds until the next look where a rate, not the work, is what is missing.
PACE = 0.1
#: Seconds until the next look where less was due than there was room for.
PAUSE = 0.2
#: Seconds to wait before PostgreSQL is asked again after it failed: doubled each time, up to the second.
SOONEST, LATEST = 0.2, 3.0


class RefreshLoop:
    """Runs in a thread of its own as long as it is licensed and there is work.

    A task only wakes it and returns, so that nobody who installs waits behind a backlog. Two threads of the loop never
    hold the same row: the store's leases see to that, here as between machines.
    """

    def __init__(
        self,
        claims: ConnectionClaims,
        results: RefreshResults,
        provider: ProviderStore,
        counters: CounterStore,
        refresher: Refresher,
        *,
        concurrency: int,
    ) -> None:
        self._claims = claims
        self._results = results
        self._provider = provider
        self._refresher = refresher
        self._concurrency = concurrency
        self._calls = ThreadPoolExecutor(concurrency, thread_name_prefix="refresh")
        self._done: SimpleQueue[Attempt] = SimpleQueue()
        self._in_flight = 0  #: claimed, and not yet gathered; those ahead of the threads among them
        self._ended = 0  #: of them, since the last claim
        self._halted = False
        self._unsaved = PendingResults()
        self._diary = RefreshLog()
        self._tally = CounterReporter(counters)
        self._watchful = False
        self._wait = SOONEST
        self._licence = self._next_claim = 0.0
        self._stopping = False
        self._awake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refresh-loop", daemon=True)
        self._thread.start()

    def wake(self, seconds: float) -> None:
        """License the loop to claim for `seconds` from now; it ends sooner where nothing is due."""
        self._licence = max(self._licence, time.monotonic() + seconds)
        self._awake.set()

    def aside(self, work: Callable[[], None]) -> None:
        """Run something that waits for others in the loop's threads, off the task that asked for it."""
        self._calls.submit(_told_of, work)

    def drain(self, timeout: float) -> bool:
        """Claim no more, let calls in flight end, save them. False where `timeout` seconds were not enough."""
        self._stopping = True
        self._awake.set()
        self._thread.join(timeout)
        self._calls.shutdown(wait=False, cancel_futures=True)
        if self._thread.is_alive():
            log.error(
                "left with calls in flight or unsaved", in_flight=self._in_flight, unsaved=self._unsaved.attempts()
            )
            return False
        return True

    def _run(self) -> None:
        while not (self._stopping and not self._busy()):
            try:
                self._turn()
            except StoreError as error:
                log.warning(
                    "PostgreSQL does not answer, trying again",
                    why=str(error),
                    unsaved=self._unsaved.attempts(),
                )
                time.sleep(self._wait)
                self._wait = min(self._wait * 2, LATEST)
            except Exception:
                # A bug must not end the loop in silence: the rest of the accounts depend on it.
                log.exception("the refresh loop stumbled")
                time.sleep(LATEST)
        self._tally.tell_now()

    def _turn(self) -> None:
        """Claim what is missing, gather what is done, save it."""
        if not self._stopping and self._next_claim <= time.monotonic() < self._licence:
            self._claim()
        if self._busy():
            gathered = self._gather(GATHER)
            self._ended += len(gathered)
            self._unsaved.add(gathered)
            self._save()
            self._diary.tell(at_once=not self._busy())
        elif not self._stopping:
            self._awake.wait(self._rest())
            self._awake.clear()
        self._tally.tell(at_rest=not self._busy())
        self._wait = SOONEST

    def _rest(self) -> float | None:
        """Seconds until there is something to do; None where only a wake brings it."""
        now = time.monotonic()
        claim = max(0.0, self._next_claim - now) if now < self._licence else None
        waits = (claim, self._tally.wait(at_rest=True))
        return min((wait for wait in waits if wait is not None), default=None)

    def _busy(self) -> bool:
        return bool(self._in_flight or self._unsaved.attempts())

    def _claim(self) -> None:
        """Put due rows in flight, as many as are missing there."""
        missing = self._concurrency + self._ahead() - self._in_flight
        if missing < max(1, self._concurrency // 8):
            return
        licence = self._licence
        with tracing.start_span("refresh.claim", wanted=missing) as span:
            claims = self._claims.claim(missing)
            span.set_attributes(claimed=len(claims.rows))
        self._watchful = not claims.provider.is_healthy
        self._halted, self._ended = False, 0
        for claimed in claims.rows:
            self._in_flight += 1
            self._calls.submit(self._attempt, claimed)
        if claims.is_rate_limited:
            self._next_claim = time.monotonic() + PACE
        elif claims.rows:
            # Fewer than wanted: what falls due meanwhile is worth another look, but not at every turn.
            self._next_claim = time.monotonic() + (PAUSE if len(claims.rows) < missing else 0.0)
        elif self._licence == licence:
            self._licence = 0.0  # nothing is due; whoever wakes us meanwhile renews it

    def _ahead(self) -> int:
        """Rows to claim before there is a thread for them: none may find nothing to do when its call has ended.

        Threads that wait for work wake each other one by one, each in its turn at the interpreter's lock: that cost a
        sixth of all calls. So what waits for the threads is what ends in two turns of the loop. While calls hang, that
        is nothing: it could be somebody else's.
        """
        return 0 if self._watchful else min(2 * self._ended, self._concurrency)

    def _attempt(self, claimed: ClaimedConnection) -> None:
        try:
            uncalled = self._halted or self._stopping
            attempt = Attempt(claimed.lease) if uncalled else self._refresher.attempt(claimed)
            self._halted = self._halted or _urgent(attempt)
        except Exception:
            log.exception("a refresh stumbled over a bug of ours", hub_id=claimed.connection.hub_id)
            attempt = Attempt(claimed.lease)
        self._done.put(attempt)

    def _gather(self, seconds: float) -> list[Attempt]:
        """What ends within `seconds`; at once where the news cannot wait for more company."""
        gathered: list[Attempt] = []
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and (self._in_flight or not gathered):
            try:
                attempt = self._done.get(timeout=left)
            except Empty:
                break
            self._in_flight -= 1
            gathered.append(attempt)
            if _urgent(attempt):
                break
        return gathered

    def _save(self) -> None:
        """Raises StoreUnavailable; then nothing is forgotten, and what is left is tried again."""
        unsaved = self._unsaved
        if self._watchful or any(outcome.error for outcome in unsaved.outcomes):
            self._provider.record_outcomes(unsaved.outcomes)
        unsaved.outcomes = []
        if unsaved.results:
            self._save_results(unsaved.results)
            self._tally.note(unsaved.called, self._claims.clock.now())
            unsaved.results, unsaved.called = [], []
        if unsaved.uncalled:
            self._claims.release(unsaved.uncalled)
            unsaved.uncalled = []

    def _save_results(self, results: list[RefreshResult]) -> None:
        try:
            with tracing.start_span("refresh.save", results=len(results)):
                landed = self._results.save(results)
        except StatementRejected as error:
            # The others were saved; trying these again would refuse them again. Their leases run out.
            log.error("PostgreSQL refused a result: a bug of ours", why=str(error))
            return
        self._diary.note(landed.select_saved(results), landed.held_by_brake)
        if landed.rescued:
            log.warning(
                "refresh tokens that HubSpot rotated came after the lease, and are kept", hubs=sorted(landed.rescued)
            )


@dataclass(slots=True)
class PendingResults:
    """What HubSpot answered and PostgreSQL has not been told yet."""

    outcomes: list[CallOutcome] = field(default_factory=list)
    results: list[RefreshResult] = field(default_factory=list)
    called: list[Attempt] = field(default_factory=list)  #: that the results are of
    uncalled: list[Lease] = field(default_factory=list)

    def add(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            self.outcomes += attempt.outcomes
            if attempt.result:
                self.results.append(attempt.result)
                self.called.append(attempt)
            else:
                self.uncalled.append(attempt.lease)

    def attempts(self) -> int:
        return len(self.results) + len(self.uncalled)


def _told_of(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception:
        # Nobody asks for its result: a bug would end it in silence.
        log.exception("something beside the refreshes stumbled over a bug of ours")


def _urgent(attempt: Attempt) -> bool:
    """Everybody must stop asking now, not with the next group of saves."""
    return any(isinstance(outcome.error, (Throttled, InvalidClient)) for outcome in attempt.outcomes)
