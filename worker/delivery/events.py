"""Sends events to our own product: at least once, those of one connection in order, 50 a second at most.

One process sends at a time. Events of different connections are in flight together, so that a slow receiver gets them
at that rate, too. See docs/events.md.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Event as Flag
from threading import Lock
from time import monotonic

import structlog

from shared.db.events.delivery import Batch, EventDelivery
from shared.domain.events import BatchResult, Chain, ChainOutcome, Event, PostFailure
from shared.logs import redact_all
from worker.delivery.webhook import Webhook, WebhookRejected

log = structlog.get_logger(__name__)

#: Posts in flight, each of another connection.
MAX_POSTS_IN_FLIGHT = 10
#: After so long a batch begins no more posts, and a run no more batches: the next sweep begins the next run. With the
#: post that is in flight then, a batch ends before its lease.
BATCH_SECONDS, RUN_SECONDS = 10.0, 10.0


class EventSender:
    """Called in one thread of a pool process at a time."""

    def __init__(self, delivery: EventDelivery, webhook: Webhook) -> None:
        """`webhook` keeps MAX_POSTS_IN_FLIGHT connections open."""
        self._delivery = delivery
        self._webhook = webhook
        self._is_stopping = Flag()

    def stop(self) -> None:
        """Begin no more posts."""
        self._is_stopping.set()

    def run(self) -> None:
        """Send what there is to send, for RUN_SECONDS at most. Raises StoreUnavailable."""
        ends_at = monotonic() + RUN_SECONDS
        while monotonic() < ends_at and not self._is_stopping.is_set():
            batch = self._delivery.claim()
            if batch is None:
                return
            outcomes = _BatchPosts(batch, self._webhook, self._is_stopping).post_all()
            _log_result(self._delivery.finish(batch, outcomes))


class _BatchPosts:
    """The posts of one batch. A failure of the receiver as a whole ends it: the rest waits."""

    def __init__(self, batch: Batch, webhook: Webhook, is_stopping: Flag) -> None:
        self._batch = batch
        self._webhook = webhook
        self._is_stopping = is_stopping
        self._is_ended = Flag()
        self._began_at = monotonic()
        self._next_post_at = self._began_at
        self._pace_lock = Lock()

    def post_all(self) -> list[ChainOutcome]:
        chains = self._batch.chains
        with ThreadPoolExecutor(min(len(chains), MAX_POSTS_IN_FLIGHT), thread_name_prefix="events") as pool:
            return list(pool.map(self._post_chain, chains))

    def _post_chain(self, chain: Chain) -> ChainOutcome:
        accepted = dropped = 0
        for event in chain.events:
            if self._batch.is_too_old(event, self._now()):
                dropped += 1
                continue
            if not self._wait_for_turn():
                break
            try:
                self._webhook.post(make_message_id(event), make_body(event), self._now())
            except WebhookRejected as error:
                failure = PostFailure(error.http_status, str(error), error.retry_after_seconds)
                if failure.is_of_receiver:
                    self._is_ended.set()
                return ChainOutcome(chain, accepted, dropped, failure)
            accepted += 1
        return ChainOutcome(chain, accepted, dropped)

    def _wait_for_turn(self) -> bool:
        """False where no more posts begin. The lock is held meanwhile: of those that wait, one waits for the time."""
        with self._pace_lock:
            if not self._may_go_on():
                return False
            self._is_stopping.wait(self._next_post_at - monotonic())
            self._next_post_at = max(monotonic(), self._next_post_at) + 1 / self._batch.rate
            return self._may_go_on()

    def _may_go_on(self) -> bool:
        is_too_long = monotonic() - self._began_at > BATCH_SECONDS
        return not (is_too_long or self._is_stopping.is_set() or self._is_ended.is_set())

    def _now(self) -> datetime:
        return self._batch.now + timedelta(seconds=monotonic() - self._began_at)


def make_message_id(event: Event) -> str:
    """The same at each attempt, and at a replay. With the time: after a restored backup ids are given out again."""
    return f"evt_{event.id}_{int(event.at.timestamp() * 1_000_000)}"


def make_body(event: Event) -> bytes:
    """The same at each attempt. An event holds no secrets; a mistake in that must not publish one."""
    message = {
        "type": f"connection.{event.name}",
        "timestamp": event.at.isoformat(),
        "data": {
            "id": event.id,
            "hub_id": event.identity.hub_id,
            "app": event.identity.app,
            "user_id": event.identity.user_id,
            "customer": event.customer,
            "status": event.status,
            "detail": redact_all(event.detail),
        },
    }
    return json.dumps(message, separators=(",", ":")).encode()


def _log_result(result: BatchResult | None) -> None:
    if result is None:
        log.warning("another process has taken over the events; some may arrive twice")
    elif result.failure:
        log.warning(
            "the receiver did not accept all events; they are sent again",
            why=result.failure.why,
            accepted=result.accepted,
            pause_seconds=round(result.pause_seconds, 1),
        )
    elif result.accepted:
        log.info("events sent", accepted=result.accepted)
    if result is not None and result.dropped:
        log.warning("events were not accepted for three days and are not sent any more", count=result.dropped)
