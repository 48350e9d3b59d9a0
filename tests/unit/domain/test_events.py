"""What a batch of events says about the receiver."""

from __future__ import annotations

from typing import Any

import pytest

from shared.domain.events import (
    MAX_PAUSE_SECONDS,
    MAX_POSTS_PER_SECOND,
    MAX_RETRY_SECONDS,
    MIN_POSTS_PER_SECOND,
    BatchResult,
    Chain,
    ChainOutcome,
    Event,
    PostFailure,
    evaluate_batch,
    pause_seconds,
    retry_seconds,
)
from shared.domain.identity import ConnectionIdentity
from tests.support.builders import START

EVENTS = tuple(
    Event(number, START, "recovered", ConnectionIdentity("default", 1), None, None, {}) for number in (1, 2, 3)
)
ACCEPTED = ChainOutcome(Chain(EVENTS), accepted=3)


def refuse(http_status: int, retry_after_seconds: float = 0.0) -> ChainOutcome:
    return ChainOutcome(Chain(EVENTS), failure=PostFailure(http_status, f"HTTP {http_status}", retry_after_seconds))


def evaluate(*outcomes: ChainOutcome, **but: Any) -> BatchResult:
    values = {"failures": 0, "rate": MAX_POSTS_PER_SECOND, "is_failing": False, **but}
    return evaluate_batch(outcomes, **values)


@pytest.mark.parametrize("http_status", [0, 410, 429, 502, 503, 504])
def test_an_answer_about_the_receiver_pauses_everything_and_halves_the_rate(http_status: int) -> None:
    result = evaluate(refuse(http_status), ACCEPTED)
    assert result.pause_seconds > 0
    assert result.rate == MAX_POSTS_PER_SECOND / 2
    assert result.is_gone == (http_status == 410)


@pytest.mark.parametrize("http_status", [302, 400, 401, 404, 413, 422, 500])
def test_any_other_refusal_concerns_its_event_alone(http_status: int) -> None:
    result = evaluate(refuse(http_status), ACCEPTED)
    assert (result.pause_seconds, result.rate, result.failures) == (0.0, MAX_POSTS_PER_SECOND, 0)
    assert result.failure == refuse(http_status).failure


def test_a_probe_that_is_refused_is_followed_by_a_pause_that_grows() -> None:
    pauses = [evaluate(refuse(500), failures=failures, is_failing=True).pause_seconds for failures in range(8)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 10
    assert pauses[-1] == MAX_PAUSE_SECONDS


def test_the_longest_retry_after_counts() -> None:
    assert evaluate(refuse(429, 30.0), refuse(429, 90.0)).pause_seconds == 90.0


def test_the_rate_is_halved_down_to_one_a_second_and_doubled_again() -> None:
    rate = MAX_POSTS_PER_SECOND
    for _ in range(10):
        rate = evaluate(refuse(429), rate=rate).rate
    assert rate == MIN_POSTS_PER_SECOND
    for _ in range(10):
        rate = evaluate(ACCEPTED, rate=rate).rate
    assert rate == MAX_POSTS_PER_SECOND


def test_a_batch_that_nobody_was_asked_about_changes_nothing() -> None:
    result = evaluate(ChainOutcome(Chain(EVENTS), dropped=1), failures=3, rate=7.0)
    assert (result.failures, result.rate, result.pause_seconds, result.dropped) == (3, 7.0, 0.0, 1)


def test_what_is_left_of_a_chain_begins_with_the_event_that_failed() -> None:
    outcome = ChainOutcome(Chain(EVENTS), accepted=1, dropped=1, failure=PostFailure(500, "HTTP 500"))
    assert outcome.left == EVENTS[2:]
    assert ACCEPTED.left == ()


def test_waits_double_up_to_their_limits() -> None:
    assert [retry_seconds(attempts) for attempts in (1, 2, 3)] == [5.0, 10.0, 20.0]
    assert retry_seconds(10_000) == MAX_RETRY_SECONDS
    assert pause_seconds(10_000) == MAX_PAUSE_SECONDS
