"""The outcomes of attempts, and their counters."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from shared.domain import errors
from shared.domain.refresh_counters import (
    LATENESS_BOUNDS_SECONDS,
    LIFETIME_BOUNDS_SECONDS,
    OUTCOMES,
    RefreshCounters,
    classify_outcome,
    find_lateness_bound,
)
from tests.support.builders import START


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "refreshed"),
        (errors.TemporarilyUnavailable("timeout"), "unavailable"),
        (errors.Throttled("429"), "throttled"),
        (errors.AccountMigrating("477"), "account_migrating"),
        (errors.InvalidClient("BAD_CLIENT_ID"), "app_rejected"),
        (errors.UnknownRefusal("418"), "unknown_refusal"),
        (errors.CodeRejected("BAD_AUTH_CODE"), "unknown_refusal"),
        (errors.InvalidGrant("BAD_REFRESH_TOKEN"), "invalid_grant"),
        (errors.WrongHub("another_hub"), "wrong_hub"),
    ],
)
def test_every_error_has_one_outcome(error: errors.ProviderError | None, outcome: str) -> None:
    assert classify_outcome(error) == outcome
    assert outcome in OUTCOMES


@pytest.mark.parametrize("bounds", [LATENESS_BOUNDS_SECONDS, LIFETIME_BOUNDS_SECONDS])
def test_histogram_bounds_rise_to_infinity(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))
    assert bounds[-1] == math.inf


def test_a_refresh_is_counted_in_the_bucket_with_the_lowest_bound_above_it() -> None:
    assert [find_lateness_bound(late) for late in (0.0, 0.25, 0.26, 5.0, 1e9)] == [0.25, 0.25, 0.5, 5.0, math.inf]


def test_attempts_are_summed_by_outcome_and_by_minute() -> None:
    counts = RefreshCounters()
    assert not counts
    counts.add([("refreshed", START - timedelta(seconds=4))], START)
    counts.add([("refreshed", START + timedelta(seconds=59.9))], START + timedelta(seconds=59))
    counts.add([("unavailable", START)], START + timedelta(seconds=59))
    counts.add([("refreshed", None)], START + timedelta(seconds=60))
    assert counts
    assert counts.attempts == {"refreshed": 3, "unavailable": 1}
    assert counts.minutes == {START: (2, 1), START + timedelta(minutes=1): (1, 0)}
    assert counts.lateness == {5.0: 1, 0.25: 1}
    assert counts.lateness_seconds == 4.0, "nothing is early: that is two clocks' reading"
