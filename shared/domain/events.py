"""Events to our own product: what one post brought, and what follows for the connection and for all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from shared.domain.backoff import backoff_seconds
from shared.domain.identity import ConnectionIdentity

#: An event that was not accepted for so long is not sent any more. The history keeps it.
GIVE_UP_AFTER = timedelta(days=3)
#: Posts a second at most. An answer that asks for fewer halves it, and each batch that works doubles it again.
MAX_POSTS_PER_SECOND, MIN_POSTS_PER_SECOND = 50.0, 1.0
#: Before a connection's event is posted again; each wait is double the one before.
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 5.0, 3600.0
#: The same before anything is posted to a receiver that accepts nothing.
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 5.0, 300.0
#: So many connections whose events were refused since the last one that was accepted: the receiver fails, not an event.
FAILURES_BEFORE_PAUSE = 5
#: Answers that are about the receiver, not about one event. 0: there was no answer.
_RECEIVER_FAILS = frozenset(
    {
        0,
        HTTPStatus.GONE,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the history."""

    id: int
    at: datetime
    name: str
    identity: ConnectionIdentity
    customer: str | None
    status: str | None  #: the new status; None: the event did not change it
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chain:
    """Events of one connection, in order: a later one is sent once the receiver has accepted those before it."""

    events: tuple[Event, ...]
    attempts: int = 0  #: of the first one, that failed

    @property
    def identity(self) -> ConnectionIdentity:
        return self.events[0].identity


@dataclass(frozen=True, slots=True)
class PostFailure:
    http_status: int  #: 0: no answer came
    why: str
    retry_after_seconds: float = 0.0

    @property
    def is_of_receiver(self) -> bool:
        return self.http_status in _RECEIVER_FAILS


@dataclass(frozen=True, slots=True)
class ChainOutcome:
    chain: Chain
    accepted: int = 0
    dropped: int = 0  #: too old to be sent; these and those accepted are the first of the chain
    failure: PostFailure | None = None  #: of the next one; None: accepted, dropped or not tried

    @property
    def left(self) -> tuple[Event, ...]:
        return self.chain.events[self.accepted + self.dropped :]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a batch says about the receiver."""

    accepted: int
    dropped: int
    failure: PostFailure | None  #: one of those that were refused
    is_gone: bool  #: the receiver wants no more events
    failures: int  #: batches in a row of which nothing was accepted
    pause_seconds: float  #: before the next batch
    rate: float  #: posts a second from now on


def retry_seconds(attempts: int) -> float:
    """The wait after `attempts` (at least 1) that failed."""
    return backoff_seconds(attempts, FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS)


def pause_seconds(failures: int) -> float:
    """The wait for a receiver that has accepted nothing of `failures` (at least 1) batches in a row."""
    return backoff_seconds(failures, FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS)


def evaluate_batch(outcomes: Sequence[ChainOutcome], *, failures: int, rate: float, is_failing: bool) -> BatchResult:
    """`failures`, `rate`: so far. `is_failing`: the batch was a probe of a receiver that accepts nothing."""
    accepted = sum(outcome.accepted for outcome in outcomes)
    refusals = [outcome.failure for outcome in outcomes if outcome.failure]
    of_receiver = [failure for failure in refusals if failure.is_of_receiver]
    if accepted or refusals:
        failures = 0 if accepted else failures + 1
    pause = 0.0
    if of_receiver or (is_failing and refusals):
        pause = max(pause_seconds(max(1, failures)), *(failure.retry_after_seconds for failure in refusals))
    if of_receiver:
        rate = max(MIN_POSTS_PER_SECOND, rate / 2)
    elif accepted:
        rate = min(MAX_POSTS_PER_SECOND, rate * 2)
    return BatchResult(
        accepted=accepted,
        dropped=sum(outcome.dropped for outcome in outcomes),
        failure=next(iter([*of_receiver, *refusals]), None),
        is_gone=any(failure.http_status == HTTPStatus.GONE for failure in refusals),
        failures=failures,
        pause_seconds=pause,
        rate=rate,
    )
