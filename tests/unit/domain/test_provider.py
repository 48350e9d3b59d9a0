"""How HubSpot as a whole is doing, and how fast we may go on asking."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared.domain.errors import (
    AccountMigrating,
    InvalidClient,
    InvalidGrant,
    TemporarilyUnavailable,
    Throttled,
    UnknownRefusal,
)
from shared.domain.provider import (
    FAILURES_BEFORE_OUTAGE,
    PROBE_RATE,
    RAMP_START_RATE,
    CallOutcome,
    Condition,
    Provider,
    apply_outcomes,
    rate_limit,
    start_sweep,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
FINE = Provider()
GOOD = CallOutcome(is_first_attempt=True)


def missed(error=None, *, first=True):
    return CallOutcome(is_first_attempt=first, error=error or TemporarilyUnavailable("timeout"))


def down():
    return apply_outcomes(FINE, [missed()] * FAILURES_BEFORE_OUTAGE, NOON)


def test_enough_first_attempts_in_vain_mean_that_hubspot_is_down():
    assert apply_outcomes(FINE, [missed()] * (FAILURES_BEFORE_OUTAGE - 1), NOON).condition is Condition.OK
    assert down().condition is Condition.UNAVAILABLE
    assert (down().reason, down().since) == ("timeout", NOON)


def test_any_success_in_between_proves_the_contrary():
    answers = [*[missed()] * (FAILURES_BEFORE_OUTAGE - 1), GOOD] * 10
    assert apply_outcomes(FINE, answers, NOON).condition is Condition.OK


def test_a_few_that_keep_failing_never_count_again():
    assert apply_outcomes(FINE, [missed(first=False)] * 1000, NOON) == FINE


def test_a_portal_that_is_moving_is_nobody_elses_trouble():
    assert apply_outcomes(FINE, [missed(AccountMigrating("477"))] * 1000, NOON) == FINE


def test_while_hubspot_is_down_a_handful_of_probes_a_minute_go_out():
    assert rate_limit(down(), cap=0) == PROBE_RATE
    assert 60 * PROBE_RATE < 10


def test_after_an_outage_the_pace_doubles_at_each_sweep_until_it_is_no_limit():
    state, rates = apply_outcomes(down(), [GOOD], NOON), []
    while state.rate is not None:
        rates.append(state.rate)
        state = start_sweep(state, NOON)
    assert state == replace(FINE, since=NOON)
    assert rates[0] == RAMP_START_RATE
    assert all(later == 2 * earlier for earlier, later in zip(rates, rates[1:], strict=False))


def test_after_an_outage_five_thousand_are_through_within_half_a_minute():
    state, refreshed, sweeps = apply_outcomes(down(), [GOOD], NOON), 0.0, 0
    while refreshed < 5000:
        refreshed += 2 * (rate_limit(state, cap=0) or 1000)
        state, sweeps = start_sweep(state, NOON), sweeps + 1
    assert 2 * sweeps <= 30


def test_a_wrong_client_secret_stops_everybody_at_once():
    state = apply_outcomes(FINE, [missed(InvalidClient("BAD_CLIENT_SECRET", http_status=400))], NOON)
    assert (state.condition, state.reason) == (Condition.APP_REJECTED, "BAD_CLIENT_SECRET (HTTP 400)")
    assert rate_limit(state, cap=0) == PROBE_RATE


def test_the_right_secret_resumes_by_itself():
    rejected = apply_outcomes(FINE, [missed(InvalidClient("BAD_CLIENT_SECRET"))], NOON)
    assert apply_outcomes(rejected, [GOOD], NOON).condition is Condition.OK


def test_one_account_that_is_refused_again_and_again_does_not_stop_the_others():
    refused = CallOutcome(is_first_attempt=True, error=InvalidClient("BAD_CLIENT_SECRET"), is_repeat=True)
    assert apply_outcomes(FINE, [refused] * 10, NOON).condition is Condition.OK
    assert apply_outcomes(down(), [refused], NOON).condition is Condition.APP_REJECTED


def test_one_unknown_refusal_is_no_verdict_but_many_in_a_row_are():
    strange = missed(UnknownRefusal("NEW_WORD"))
    assert apply_outcomes(FINE, [strange, GOOD] * 100, NOON).condition is Condition.OK
    assert apply_outcomes(FINE, [strange] * FAILURES_BEFORE_OUTAGE, NOON).condition is Condition.APP_REJECTED


def test_a_429_pauses_everybody_for_as_long_as_hubspot_says():
    state = apply_outcomes(FINE, [missed(Throttled("429", retry_after=30))], NOON)
    assert (state.condition, state.paused_until) == (Condition.THROTTLED, NOON + timedelta(seconds=30))
    assert start_sweep(state, NOON + timedelta(seconds=29)) == state


def test_a_success_that_was_under_way_does_not_end_the_pause():
    state = apply_outcomes(FINE, [missed(Throttled("429", retry_after=30)), GOOD], NOON)
    assert state.condition is Condition.THROTTLED


def test_of_two_pauses_the_longer_one_holds():
    state = apply_outcomes(
        FINE, [missed(Throttled("429", retry_after=30)), missed(Throttled("429", retry_after=3))], NOON
    )
    assert state.paused_until == NOON + timedelta(seconds=30)


def test_a_429_that_does_not_say_how_long_still_pauses():
    assert apply_outcomes(FINE, [missed(Throttled("429"))], NOON).paused_until > NOON


def test_after_the_pause_comes_the_ramp():
    state = apply_outcomes(FINE, [missed(Throttled("429", retry_after=30))], NOON)
    after = start_sweep(state, NOON + timedelta(seconds=31))
    assert (after.condition, after.rate) == (Condition.OK, RAMP_START_RATE)


def test_a_dead_connection_says_that_hubspot_answers():
    nearly = apply_outcomes(FINE, [missed()] * (FAILURES_BEFORE_OUTAGE - 1), NOON)
    assert apply_outcomes(nearly, [missed(InvalidGrant("BAD_REFRESH_TOKEN")), missed()], NOON).condition is Condition.OK
    assert apply_outcomes(down(), [missed(InvalidGrant("BAD_REFRESH_TOKEN"))], NOON).condition is Condition.OK


def test_a_dead_connection_is_no_proof_that_our_app_is_right():
    rejected = apply_outcomes(FINE, [missed(InvalidClient("BAD_CLIENT_ID"))], NOON)
    assert (
        apply_outcomes(rejected, [missed(InvalidGrant("BAD_REFRESH_TOKEN"))], NOON).condition is Condition.APP_REJECTED
    )


@pytest.mark.parametrize(
    ("rate", "cap", "expected"), [(None, 0, None), (None, 50, 50), (10.0, 0, 10.0), (10.0, 50, 10.0), (80.0, 50, 50)]
)
def test_the_slower_of_pace_and_cap_holds(rate, cap, expected):
    assert rate_limit(replace(FINE, rate=rate), cap) == expected


def test_at_ease_means_that_successes_need_not_be_told():
    assert FINE.is_healthy
    assert replace(FINE, since=NOON).is_healthy
    assert not down().is_healthy
    assert not apply_outcomes(FINE, [missed()], NOON).is_healthy
    assert not apply_outcomes(down(), [GOOD], NOON).is_healthy


def test_a_pause_outlives_a_refusal_of_our_app_and_its_end():
    throttled, rejected = missed(Throttled("429", retry_after=30)), missed(InvalidClient("BAD_CLIENT_SECRET"))
    for answers in ([throttled, rejected, GOOD], [rejected, throttled, GOOD]):
        state = apply_outcomes(FINE, answers, NOON)
        assert (state.condition, state.paused_until) == (Condition.THROTTLED, NOON + timedelta(seconds=30))
        assert start_sweep(state, NOON + timedelta(seconds=31)).condition is Condition.OK
