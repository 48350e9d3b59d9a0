"""When a refresh is due, and when a failed one is tried again."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.schedule import FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS, Schedule, retry_at, spread_fraction

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
hubs = st.integers(1, 2**63 - 1)


def wait(failures, *, hub_id=1, life=1800.0, retry_after=None):
    return (retry_at(hub_id, failures, NOON, lifetime_seconds=life, retry_after=retry_after) - NOON).total_seconds()


@given(hubs, st.integers(1, 31_536_000))
def test_a_refresh_falls_due_between_the_two_fractions_of_a_life(hub_id, expires_in):
    life = (Schedule(0.6, 0.75).due_at(hub_id, NOON, expires_in) - NOON).total_seconds()
    assert 0.6 * expires_in - 1e-3 <= life <= 0.75 * expires_in + 1e-3


def test_a_thousand_installed_at_one_instant_come_due_over_the_whole_window():
    due = sorted(Schedule().due_at(hub_id, NOON, 1800) for hub_id in range(1000))
    window = timedelta(seconds=1800 * 0.15)
    gaps = [later - earlier for earlier, later in zip(due, due[1:], strict=False)]
    assert due[-1] - due[0] > 0.95 * window
    assert max(gaps) < window / 40


def test_the_same_grant_of_the_same_hub_is_always_due_at_the_same_instant():
    assert Schedule().due_at(7, NOON, 1800) == Schedule().due_at(7, NOON, 1800)


@pytest.mark.parametrize(("failures", "seconds"), [(1, 5), (2, 10), (3, 20), (4, 40), (5, 80), (6, 160)])
def test_each_failure_doubles_the_wait_give_or_take_a_fifth(failures, seconds):
    waits = [wait(failures, hub_id=hub_id) for hub_id in range(200)]
    assert all(0.8 * seconds <= each <= 1.2 * seconds for each in waits)
    assert max(waits) - min(waits) > 0.3 * seconds


@given(hubs, st.integers(1, 10**6))
def test_nobody_waits_longer_than_a_quarter_of_an_hour(hub_id, failures):
    assert 0.8 * FIRST_RETRY_SECONDS <= wait(failures, hub_id=hub_id) <= MAX_RETRY_SECONDS


@given(hubs, st.integers(1, 50), st.floats(0, 86_400))
def test_nobody_is_asked_before_hubspot_said(hub_id, failures, seconds):
    assert wait(failures, hub_id=hub_id, retry_after=seconds) >= seconds - 1e-6


@pytest.mark.parametrize("life", [20.0, 60.0, 120.0])
def test_a_token_that_lives_shortly_is_tried_several_times_in_what_it_has_left(life):
    """From the latest due time, 0.75 of its life, at least two more tries fit before it ends."""
    tries = [wait(failures, life=life) for failures in (1, 2)]
    assert sum(tries) < 0.25 * life


def test_a_connection_that_never_had_a_token_waits_as_long_as_any():
    assert wait(1, life=None) == wait(1, life=1800.0)


@given(hubs, st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_the_spread_stays_below_one(hub_id, instant):
    assert 0 <= spread_fraction(hub_id, instant) < 1
