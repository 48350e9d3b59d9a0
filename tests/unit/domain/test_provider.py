"""How HubSpot as a whole is doing, and how fast we may go on asking."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared.domain.errors import AppRejected, GrantDead, PortalMoving, Throttled, UnknownRefusal, Unwell
from shared.domain.provider import ENOUGH, PROBING, RAMP_FROM, Condition, Outcome, Provider, judged, limit, swept

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
FINE = Provider()
GOOD = Outcome(first=True)


def missed(error=None, *, first=True):
    return Outcome(first=first, error=error or Unwell("timeout"))


def down():
    return judged(FINE, [missed()] * ENOUGH, NOON)


def test_enough_first_attempts_in_vain_mean_that_hubspot_is_down():
    assert judged(FINE, [missed()] * (ENOUGH - 1), NOON).condition is Condition.OK
    assert down().condition is Condition.UNAVAILABLE
    assert (down().reason, down().since) == ("timeout", NOON)


def test_any_success_in_between_proves_the_contrary():
    answers = [*[missed()] * (ENOUGH - 1), GOOD] * 10
    assert judged(FINE, answers, NOON).condition is Condition.OK


def test_a_few_that_keep_failing_never_count_again():
    assert judged(FINE, [missed(first=False)] * 1000, NOON) == FINE


def test_a_portal_that_is_moving_is_nobody_elses_trouble():
    assert judged(FINE, [missed(PortalMoving("477"))] * 1000, NOON) == FINE


def test_while_hubspot_is_down_a_handful_of_probes_a_minute_go_out():
    assert limit(down(), cap=0) == PROBING
    assert 60 * PROBING < 10


def test_after_an_outage_the_pace_doubles_at_each_sweep_until_it_is_no_limit():
    state, rates = judged(down(), [GOOD], NOON), []
    while state.rate is not None:
        rates.append(state.rate)
        state = swept(state, NOON)
    assert state == replace(FINE, since=NOON)
    assert rates[0] == RAMP_FROM
    assert all(later == 2 * earlier for earlier, later in zip(rates, rates[1:], strict=False))


def test_after_an_outage_five_thousand_are_through_within_half_a_minute():
    state, refreshed, sweeps = judged(down(), [GOOD], NOON), 0.0, 0
    while refreshed < 5000:
        refreshed += 2 * (limit(state, cap=0) or 1000)
        state, sweeps = swept(state, NOON), sweeps + 1
    assert 2 * sweeps <= 30


def test_a_wrong_client_secret_stops_everybody_at_once():
    state = judged(FINE, [missed(AppRejected("BAD_CLIENT_SECRET", http_status=400))], NOON)
    assert (state.condition, state.reason) == (Condition.APP_REJECTED, "BAD_CLIENT_SECRET (HTTP 400)")
    assert limit(state, cap=0) == PROBING


def test_the_right_secret_resumes_by_itself():
    rejected = judged(FINE, [missed(AppRejected("BAD_CLIENT_SECRET"))], NOON)
    assert judged(rejected, [GOOD], NOON).condition is Condition.OK


def test_one_account_that_is_refused_again_and_again_does_not_stop_the_others():
    refused = Outcome(first=True, error=AppRejected("BAD_CLIENT_SECRET"), again=True)
    assert judged(FINE, [refused] * 10, NOON).condition is Condition.OK
    assert judged(down(), [refused], NOON).condition is Condition.APP_REJECTED


def test_one_unknown_refusal_is_no_verdict_but_many_in_a_row_are():
    strange = missed(UnknownRefusal("NEW_WORD"))
    assert judged(FINE, [strange, GOOD] * 100, NOON).condition is Condition.OK
    assert judged(FINE, [strange] * ENOUGH, NOON).condition is Condition.APP_REJECTED


def test_a_429_pauses_everybody_for_as_long_as_hubspot_says():
    state = judged(FINE, [missed(Throttled("429", retry_after=30))], NOON)
    assert (state.condition, state.paused_until) == (Condition.THROTTLED, NOON + timedelta(seconds=30))
    assert swept(state, NOON + timedelta(seconds=29)) == state


def test_a_success_that_was_under_way_does_not_end_the_pause():
    state = judged(FINE, [missed(Throttled("429", retry_after=30)), GOOD], NOON)
    assert state.condition is Condition.THROTTLED


def test_of_two_pauses_the_longer_one_holds():
    state = judged(FINE, [missed(Throttled("429", retry_after=30)), missed(Throttled("429", retry_after=3))], NOON)
    assert state.paused_until == NOON + timedelta(seconds=30)


def test_a_429_that_does_not_say_how_long_still_pauses():
    assert judged(FINE, [missed(Throttled("429"))], NOON).paused_until > NOON


def test_after_the_pause_comes_the_ramp():
    state = judged(FINE, [missed(Throttled("429", retry_after=30))], NOON)
    after = swept(state, NOON + timedelta(seconds=31))
    assert (after.condition, after.rate) == (Condition.OK, RAMP_FROM)


def test_a_dead_connection_says_that_hubspot_answers():
    nearly = judged(FINE, [missed()] * (ENOUGH - 1), NOON)
    assert judged(nearly, [missed(GrantDead("BAD_REFRESH_TOKEN")), missed()], NOON).condition is Condition.OK
    assert judged(down(), [missed(GrantDead("BAD_REFRESH_TOKEN"))], NOON).condition is Condition.OK


def test_a_dead_connection_is_no_proof_that_our_app_is_right():
    rejected = judged(FINE, [missed(AppRejected("BAD_CLIENT_ID"))], NOON)
    assert judged(rejected, [missed(GrantDead("BAD_REFRESH_TOKEN"))], NOON).condition is Condition.APP_REJECTED


@pytest.mark.parametrize(
    ("rate", "cap", "expected"), [(None, 0, None), (None, 50, 50), (10.0, 0, 10.0), (10.0, 50, 10.0), (80.0, 50, 50)]
)
def test_the_slower_of_pace_and_cap_holds(rate, cap, expected):
    assert limit(replace(FINE, rate=rate), cap) == expected


def test_at_ease_means_that_successes_need_not_be_told():
    assert FINE.at_ease
    assert replace(FINE, since=NOON).at_ease
    assert not down().at_ease
    assert not judged(FINE, [missed()], NOON).at_ease
    assert not judged(down(), [GOOD], NOON).at_ease


def test_a_pause_outlives_a_refusal_of_our_app_and_its_end():
    throttled, rejected = missed(Throttled("429", retry_after=30)), missed(AppRejected("BAD_CLIENT_SECRET"))
    for answers in ([throttled, rejected, GOOD], [rejected, throttled, GOOD]):
        state = judged(FINE, answers, NOON)
        assert (state.condition, state.paused_until) == (Condition.THROTTLED, NOON + timedelta(seconds=30))
        assert swept(state, NOON + timedelta(seconds=31)).condition is Condition.OK
