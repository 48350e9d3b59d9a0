"""The refresh loop of one app in one pool process: claims due rows, keeps calls in flight, saves results in bulk."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import structlog

from shared import tracing
from shared.db.core.errors import StoreError
from shared.db.refresh.claims import ConnectionClaims
from shared.db.refresh.counters import CounterStore
from shared.db.refresh.provider import ProviderStore
from shared.db.refresh.results import RefreshResults
from worker.refresh.calls import RefreshCalls
from worker.refresh.counters import CounterReporter
from worker.refresh.log import RefreshLog
from worker.refresh.pending_results import PendingResults
from worker.refresh.refresher import RefreshAttempt, Refresher

log = structlog.get_logger(__name__)

#: Results are gathered for so long before they are saved together, unless one of them must not wait.
GATHER_SECONDS = 0.1
#: Until the next claim, where a rate limit and not a lack of due rows kept the last one small.
RATE_LIMITED_PAUSE_SECONDS = 0.1
#: Until the next claim, where fewer rows were due than there was room for.
CLAIM_PAUSE_SECONDS = 0.2
#: Until PostgreSQL is asked again after a failure: doubled after each one.
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.2, 3.0
#: How long a process that stops waits for rows that another transaction has locked. Rotated refresh tokens are stored.
DRAIN_LOCKED_SECONDS = 5.0
#: Of the concurrency: a claim of fewer rows waits, so that each statement claims many.
MIN_CLAIM_FRACTION = 1 / 8


class RefreshLoop:
    """Runs in its own thread, and works while it is active and rows are due.

    A sweep or a stored install only activates it, and waits for nothing.
    The leases in PostgreSQL keep two threads, as they keep two machines, from holding the same row.
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
        self._concurrency = concurrency
        self._calls = RefreshCalls(refresher, concurrency)
        self._finished_since_claim = 0
        self._pending = PendingResults()
        self._refresh_log = RefreshLog(claims.app)
        self._counter_reporter = CounterReporter(counters)
        self._is_provider_healthy = True
        self._is_draining = False
        self._drain_locked_until = 0.0  #: by time.monotonic(): when it stops waiting for locked rows
        self._activated = threading.Event()
        self._active_until = 0.0  #: this and the next one by time.monotonic()
        self._next_claim_at = 0.0
        self._retry_seconds = MIN_RETRY_SECONDS
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Does nothing where it has started. Raises RuntimeError where the host lets no thread begin.

        The thread's object is made here, in the process that starts it: Python takes one from before a fork for ended.
        """
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=f"refresh-loop-{self._claims.app}", daemon=True)
            thread.start()
            self._thread = thread

    def activate(self, seconds: float, *, delay_seconds: float = 0.0) -> None:
        """Let the loop claim rows for `seconds` from now; it becomes inactive earlier where nothing is due.

        `delay_seconds`: until its first claim, where it is not active yet.
        """
        now = time.monotonic()
        if self._active_until <= now:
            self._next_claim_at = max(self._next_claim_at, now + delay_seconds)
        self._active_until = max(self._active_until, now + seconds)
        self._activated.set()
        self._calls.end_gathering()

    def start_draining(self) -> None:
        """As drain(), without waiting for it: for several loops that end together."""
        if not self._is_draining:
            self._drain_locked_until = time.monotonic() + DRAIN_LOCKED_SECONDS
            self._is_draining = True
            self._calls.close()
            self._activated.set()

    def drain(self, timeout_seconds: float) -> bool:
        """Claim no more rows, let calls in flight end and save them. False where the time was too short for that."""
        self.start_draining()
        if self._thread is None:
            return True
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            counts = {"in_flight": len(self._calls.leases), "unsaved": len(self._pending)}
            log.error("stopped with calls in flight or results unsaved", **counts)
            return False
        return True

    def _run(self) -> None:
        while not self._is_draining or self._has_work_to_finish():
            try:
                self._run_once()
                self._retry_seconds = MIN_RETRY_SECONDS
            except StoreError as error:
                unsaved = len(self._pending)
                log.warning(
                    "PostgreSQL does not answer, trying again", app=self._claims.app, why=str(error), unsaved=unsaved
                )
                time.sleep(self._retry_seconds)
                self._retry_seconds = min(self._retry_seconds * 2, MAX_RETRY_SECONDS)
            except Exception:
                # A bug must not end the thread: all other accounts depend on it.
                log.exception("the refresh loop raised an exception")
                time.sleep(MAX_RETRY_SECONDS)
        self._counter_reporter.report()
        if self._pending.locked:
            log.warning(
                "stopped while another transaction keeps rows locked: they are refreshed again",
                app=self._claims.app,
                hubs=_list_hubs(self._pending.locked),
            )

    def _run_once(self) -> None:
        # 1. A failover may have lost the claims of calls in flight.
        self._claims.renew_lost_leases(self._calls.leases)
        # 2. Gather what has finished, and save it. Where PostgreSQL does not take it, nothing is claimed.
        if self._is_busy():
            self._calls.start_queued()
            attempts = self._calls.gather(GATHER_SECONDS)
            self._finished_since_claim += len(attempts)
            self._pending.add(attempts)
            self._save()
            self._refresh_log.log_totals_if_due(is_idle=not self._is_busy())
        # 3. Claim due rows, as many as there is room for.
        if self._may_claim():
            self._claim()
        # 4. Nothing to do: wait for the next claim or activation.
        if not self._is_busy() and not self._is_draining:
            self._activated.wait(self._idle_seconds())
            self._activated.clear()
        # 5. Report the counters.
        self._counter_reporter.report_if_due(is_idle=not self._is_busy())

    def _is_busy(self) -> bool:
        return bool(self._calls.leases or self._pending)

    def _has_work_to_finish(self) -> bool:
        """Where it drains. For rows that another transaction has locked it waits a short time only."""
        if self._calls.leases or self._pending.attempts or self._pending.uncalled:
            return True
        return bool(self._pending.locked) and time.monotonic() < self._drain_locked_until

    def _may_claim(self) -> bool:
        is_time = self._next_claim_at <= time.monotonic() < self._active_until
        return is_time and not self._is_draining and len(self._pending.locked) < self._concurrency

    def _claim(self) -> None:
        # 1. How many? A few rows are not worth a statement yet.
        wanted = count_rows_wanted(
            self._concurrency,
            unfinished=self._calls.count_unfinished(),
            finished=self._finished_since_claim,
            is_provider_healthy=self._is_provider_healthy,
        )
        if wanted < max(1, int(self._concurrency * MIN_CLAIM_FRACTION)):
            return

        # 2. Claim them.
        active_until = self._active_until
        with tracing.start_span("refresh.claim", app=self._claims.app, wanted=wanted) as span:
            batch = self._claims.claim(wanted)
            span.set_attributes(claimed=len(batch.rows))
        self._is_provider_healthy = batch.provider.is_healthy
        self._finished_since_claim = 0

        # 3. Begin calls, or queue them behind those in flight; also where an answer has stopped them. This is safe: the
        #    rows that were queued then have been skipped, and the claim obeys HubSpot's state as the last save recorded
        #    it. If the answer came during this claim, the next save records it; until then the first refusal of one of
        #    these rows stops them again.
        self._calls.add(batch.rows)

        # 4. When to claim again?
        if batch.is_rate_limited:
            self._next_claim_at = time.monotonic() + RATE_LIMITED_PAUSE_SECONDS
        elif batch.rows:
            self._next_claim_at = time.monotonic() + (CLAIM_PAUSE_SECONDS if len(batch.rows) < wanted else 0.0)
        elif self._active_until == active_until:
            self._active_until = 0.0  # nothing is due, and no activation came during the claim

    def _save(self) -> None:
        """Raises StoreUnavailable; what is not saved yet stays pending then."""
        pending = self._pending

        # 1. The connections: new results and, after a pause, those whose rows were locked.
        pending.retry_locked_if_due()
        if pending.attempts:
            locked_now = pending.finish(self._save_results(pending.attempts))
            if locked_now:
                log.warning(
                    "results are saved later: another transaction holds a lock, or PostgreSQL fails",
                    app=self._claims.app,
                    hubs=_list_hubs(locked_now),
                )

        # 2. Leases of rows that were not called.
        if pending.uncalled:
            pending.uncalled_locked += self._claims.release(pending.uncalled)
            pending.uncalled = []

        # 3. HubSpot's state. While it is healthy, a batch without errors changes nothing.
        if not self._is_provider_healthy or any(outcome.error for outcome in pending.outcomes):
            self._provider.record_outcomes(pending.outcomes)
        pending.outcomes = []

    def _save_results(self, attempts: list[RefreshAttempt]) -> frozenset[int]:
        """The connections whose results are to be saved again: locked rows, mostly. Raises StoreUnavailable."""
        results = [attempt.result for attempt in attempts if attempt.result]
        with tracing.start_span("refresh.save", app=self._claims.app, results=len(results)):
            outcome = self._results.save(results)
        self._refresh_log.log_results(outcome.select_saved(results), outcome.held_by_brake)
        if outcome.rescued:
            kept = [attempt for attempt in attempts if attempt.lease.connection_id in outcome.rescued]
            log.warning(
                "kept refresh tokens that HubSpot rotated, without their results",
                app=self._claims.app,
                hubs=_list_hubs(kept),
            )
        if outcome.rejected:
            # They would be rejected again: their leases run out, and the rows are claimed again.
            log.error("PostgreSQL refused a result: a bug in tokenkeeper", why=str(dict(outcome.rejected)))
        if outcome.failed:
            log.error("PostgreSQL fails at some results: they are saved later", why=str(dict(outcome.failed)))
        unsaved = outcome.locked | outcome.failed.keys()
        excluded = outcome.rejected.keys() | unsaved
        accepted = [attempt for attempt in attempts if attempt.lease.connection_id not in excluded]
        self._counter_reporter.add(accepted, self._claims.clock.now())
        return unsaved

    def _idle_seconds(self) -> float | None:
        """Seconds until there is something to do; None where only an activation brings it."""
        now = time.monotonic()
        until_claim = max(0.0, self._next_claim_at - now) if now < self._active_until else None
        until_report = self._counter_reporter.seconds_until_report(is_idle=True)
        return min((seconds for seconds in (until_claim, until_report) if seconds is not None), default=None)


def count_rows_wanted(concurrency: int, *, unfinished: int, finished: int, is_provider_healthy: bool) -> int:
    """How many rows to claim: one for each call that may begin, and some that are queued.

    `unfinished`: calls in flight and rows queued. Up to two rows are queued per call finished since the last claim, so
    that the next calls need not wait until these are saved. None are queued while HubSpot is unhealthy, so that other
    workers can claim them.
    """
    queued = min(2 * finished, concurrency) if is_provider_healthy else 0
    return concurrency + queued - unfinished


def _list_hubs(attempts: Iterable[RefreshAttempt]) -> list[int]:
    return sorted({each.result.transition.connection.identity.hub_id for each in attempts if each.result})
