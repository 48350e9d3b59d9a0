"""The state of HubSpot as a whole, and the rate of refreshes that it allows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared.domain.errors import (
    AccountMigrating,
    InvalidClient,
    InvalidGrant,
    ScopesRejected,
    TemporarilyUnavailable,
    Throttled,
    UnknownRefusal,
)
from shared.domain.provider import (
    FAILURES_BEFORE_OUTAGE,
    PROBES_PER_SECOND,
    RAMP_START_PER_SECOND,
    CallOutcome,
    Condition,
    Provider,
    apply_outcomes,
    rate_limit,
    resume,
    start_sweep,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HEALTHY = Provider()
SUCCESS = CallOutcome(is_first_attempt=True)


def failure(error=None, *, first=True):
    return CallOutcome(is_first_attempt=first, error=error or TemporarilyUnavailable("timeout"))


def unavailable():
    return apply_outcomes(HEALTHY, [failure()] * FAILURES_BEFORE_OUTAGE, NOON)


def test_five_failed_first_attempts_in_a_row_make_hubspot_unavailable():
    assert apply_outcomes(HEALTHY, [failure()] * (FAILURES_BEFORE_OUTAGE - 1), NOON).condition is Condition.OK
    assert unavailable().condition is Condition.UNAVAILABLE
    assert (unavailable().reason, unavailable().since) == ("timeout", NOON)


def test_a_success_resets_the_count_of_failures():
    answers = [*[failure()] * (FAILURES_BEFORE_OUTAGE - 1), SUCCESS] * 10
    assert apply_outcomes(HEALTHY, answers, NOON).condition is Condition.OK


def test_a_refused_grant_resets_the_count_of_missing_answers():
    almost = [failure()] * (FAILURES_BEFORE_OUTAGE - 1)
    answers = [*almost, failure(InvalidGrant("BAD_REFRESH_TOKEN")), *almost]
    assert apply_outcomes(HEALTHY, answers, NOON).condition is Condition.OK


def test_repeated_failures_of_the_same_connections_do_not_count():
    assert apply_outcomes(HEALTHY, [failure(first=False)] * 1000, NOON) == HEALTHY


def test_an_account_that_is_migrating_does_not_count_against_hubspot():
    assert apply_outcomes(HEALTHY, [failure(AccountMigrating("477"))] * 1000, NOON) == HEALTHY


def test_while_hubspot_is_unavailable_less_than_ten_probes_a_minute_are_sent():
    assert rate_limit(unavailable(), cap=0) == PROBES_PER_SECOND
    assert 60 * PROBES_PER_SECOND < 10


def test_after_an_outage_the_rate_doubles_at_each_sweep_until_there_is_no_limit():
    state, rates = apply_outcomes(unavailable(), [SUCCESS], NOON), []
    while state.rate is not None:
        rates.append(state.rate)
        state = start_sweep(state)
    assert state == replace(HEALTHY, since=NOON)
    assert rates[0] == RAMP_START_PER_SECOND
    assert all(later == 2 * earlier for earlier, later in zip(rates, rates[1:], strict=False))


def test_after_an_outage_five_thousand_refreshes_fit_into_half_a_minute():
    state, refreshed, sweeps = apply_outcomes(unavailable(), [SUCCESS], NOON), 0.0, 0
    while refreshed < 5000:
        refreshed += 2 * (rate_limit(state, cap=0) or 1000)
        state, sweeps = start_sweep(state), sweeps + 1
    assert 2 * sweeps <= 30


def test_one_refused_client_secret_reduces_all_refreshes_to_probes():
    state = apply_outcomes(HEALTHY, [failure(InvalidClient("BAD_CLIENT_SECRET", http_status=400))], NOON)
    assert (state.condition, state.reason) == (Condition.APP_REJECTED, "BAD_CLIENT_SECRET (HTTP 400)")
    assert rate_limit(state, cap=0) == PROBES_PER_SECOND


def test_a_success_ends_the_refusal_of_our_app():
    rejected = apply_outcomes(HEALTHY, [failure(InvalidClient("BAD_CLIENT_SECRET"))], NOON)
    assert apply_outcomes(rejected, [SUCCESS], NOON).condition is Condition.OK


def test_repeated_refusals_of_one_connection_do_not_stop_the_others():
    refused = CallOutcome(is_first_attempt=True, error=InvalidClient("BAD_CLIENT_SECRET"), is_repeat=True)
    assert apply_outcomes(HEALTHY, [refused] * 10, NOON).condition is Condition.OK
    assert apply_outcomes(unavailable(), [refused], NOON).condition is Condition.APP_REJECTED


def test_one_unknown_refusal_changes_nothing_but_five_in_a_row_do():
    unknown = failure(UnknownRefusal("NEW_WORD"))
    assert apply_outcomes(HEALTHY, [unknown, SUCCESS] * 100, NOON).condition is Condition.OK
    assert apply_outcomes(HEALTHY, [unknown] * FAILURES_BEFORE_OUTAGE, NOON).condition is Condition.APP_REJECTED


def test_rejected_scopes_of_one_account_change_nothing_but_those_of_five_in_a_row_do():
    rejected = failure(ScopesRejected("BAD_SCOPES", http_status=403))
    repeated = failure(ScopesRejected("BAD_SCOPES", http_status=403), first=False)
    assert apply_outcomes(HEALTHY, [rejected, *[repeated] * 100], NOON).condition is Condition.OK
    state = apply_outcomes(HEALTHY, [rejected] * FAILURES_BEFORE_OUTAGE, NOON)
    assert (state.condition, state.reason) == (Condition.APP_REJECTED, "BAD_SCOPES (HTTP 403)")


def make_429(retry_after=None):
    return failure(Throttled("throttled", http_status=429, retry_after=retry_after))


def pause(*retry_after):
    return apply_outcomes(HEALTHY, [make_429(each) for each in retry_after], NOON)


def test_a_429_pauses_all_refreshes_for_its_retry_after():
    state = pause(30)
    assert (state.condition, state.paused_until) == (Condition.THROTTLED, NOON + timedelta(seconds=30))
    assert state.is_paused(NOON + timedelta(seconds=29))
    assert not state.is_paused(NOON + timedelta(seconds=30))


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [(None, 10), (0, 1), (-5, 1), (299, 299), (3600, 300), (86_400, 300), (1e9, 300), (float("inf"), 300)],
)
def test_a_pause_of_all_refreshes_lasts_for_a_second_to_five_minutes(retry_after, seconds):
    assert pause(retry_after).paused_until == NOON + timedelta(seconds=seconds)


def test_a_retry_after_that_is_no_number_pauses_for_a_second():
    assert pause(float("nan")).paused_until == NOON + timedelta(seconds=1)


def test_a_429_for_a_day_is_tested_by_probes_after_five_minutes_and_the_first_success_starts_a_ramp():
    later = NOON + timedelta(minutes=5)
    probing = start_sweep(pause(86_400))
    assert (probing.condition, probing.is_paused(later), rate_limit(probing, cap=0)) == (
        Condition.THROTTLED,
        False,
        PROBES_PER_SECOND,
    )
    still = apply_outcomes(probing, [make_429(86_100)], later)
    assert still.paused_until == later + timedelta(minutes=5)
    after = apply_outcomes(probing, [SUCCESS], later)
    assert (after.condition, after.rate, after.paused_until) == (Condition.OK, RAMP_START_PER_SECOND, None)


def test_a_probe_that_hubspot_does_not_answer_leaves_the_state_and_an_invalid_grant_ends_it():
    probing, later = pause(30), NOON + timedelta(seconds=31)
    assert apply_outcomes(probing, [failure()] * 20, later).condition is Condition.THROTTLED
    assert apply_outcomes(probing, [failure(InvalidGrant("BAD_REFRESH_TOKEN"))], later).condition is Condition.OK


def test_no_answer_to_a_call_from_before_a_pause_ends_it():
    for answer in (SUCCESS, failure(InvalidGrant("BAD_REFRESH_TOKEN"))):
        state = apply_outcomes(pause(30), [answer], NOON)
        assert (state.condition, state.paused_until) == (Condition.THROTTLED, NOON + timedelta(seconds=30))


def test_of_two_pauses_the_one_that_ends_last_counts():
    assert pause(30, 3).paused_until == pause(3, 30).paused_until == NOON + timedelta(seconds=30)


def test_a_pause_that_ends_later_than_any_pause_can_is_none():
    """The database's clock ran ahead for a moment."""
    state = replace(pause(30), paused_until=NOON + timedelta(days=1))
    assert not state.is_paused(NOON)
    assert apply_outcomes(state, [make_429(30)], NOON).paused_until == NOON + timedelta(seconds=30)
    assert apply_outcomes(state, [SUCCESS], NOON).condition is Condition.OK


def test_an_operator_ends_a_pause_and_the_probes_after_it_by_a_ramp():
    for later in (NOON, NOON + timedelta(minutes=10)):
        resumed = resume(pause(86_400), later)
        assert (resumed.condition, resumed.rate, resumed.paused_until) == (Condition.OK, RAMP_START_PER_SECOND, None)
    assert apply_outcomes(resumed, [make_429(60)], NOON).condition is Condition.THROTTLED, "HubSpot has the last word"


def test_an_operator_cannot_end_another_fault_and_where_nothing_is_paused_nothing_changes():
    rejected = apply_outcomes(HEALTHY, [failure(InvalidClient("BAD_CLIENT_SECRET")), make_429(30)], NOON)
    assert resume(rejected, NOON) == replace(rejected, paused_until=None)
    for state in (HEALTHY, unavailable(), resume(rejected, NOON), apply_outcomes(unavailable(), [SUCCESS], NOON)):
        assert resume(state, NOON) == state


def test_an_invalid_grant_shows_that_hubspot_answers():
    nearly = apply_outcomes(HEALTHY, [failure()] * (FAILURES_BEFORE_OUTAGE - 1), NOON)
    assert (
        apply_outcomes(nearly, [failure(InvalidGrant("BAD_REFRESH_TOKEN")), failure()], NOON).condition is Condition.OK
    )
    assert apply_outcomes(unavailable(), [failure(InvalidGrant("BAD_REFRESH_TOKEN"))], NOON).condition is Condition.OK


def test_an_invalid_grant_does_not_end_the_refusal_of_our_app():
    rejected = apply_outcomes(HEALTHY, [failure(InvalidClient("BAD_CLIENT_ID"))], NOON)
    assert (
        apply_outcomes(rejected, [failure(InvalidGrant("BAD_REFRESH_TOKEN"))], NOON).condition is Condition.APP_REJECTED
    )


@pytest.mark.parametrize(
    ("rate", "cap", "expected"), [(None, 0, None), (None, 50, 50), (10.0, 0, 10.0), (10.0, 50, 10.0), (80.0, 50, 50)]
)
def test_the_lower_of_rate_and_cap_is_the_limit(rate, cap, expected):
    assert rate_limit(replace(HEALTHY, rate=rate), cap) == expected


def test_hubspot_is_healthy_only_where_a_success_would_change_nothing():
    assert HEALTHY.is_healthy
    assert replace(HEALTHY, since=NOON).is_healthy
    assert not unavailable().is_healthy
    assert not apply_outcomes(HEALTHY, [failure()], NOON).is_healthy
    assert not apply_outcomes(unavailable(), [SUCCESS], NOON).is_healthy


def test_a_pause_outlasts_a_refusal_of_our_app_in_either_order():
    rejected = failure(InvalidClient("BAD_CLIENT_SECRET"))
    for answers in ([make_429(30), rejected, SUCCESS], [rejected, make_429(30), SUCCESS]):
        state = apply_outcomes(HEALTHY, answers, NOON)
        assert (state.condition, state.paused_until) == (Condition.THROTTLED, NOON + timedelta(seconds=30))
        assert apply_outcomes(state, [SUCCESS], NOON + timedelta(seconds=31)).condition is Condition.OK
