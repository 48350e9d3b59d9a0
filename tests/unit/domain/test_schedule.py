"""When a refresh is due, and when a failed one is tried again."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.schedule import FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS, Schedule, retry_at, spread_fraction

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HUB_IDS = st.integers(1, 2**63 - 1)


def wait_seconds(failures, *, hub_id=1, lifetime=1800.0, retry_after=None):
    return (retry_at(hub_id, failures, NOON, lifetime_seconds=lifetime, retry_after=retry_after) - NOON).total_seconds()


@given(HUB_IDS, st.integers(1, 31_536_000))
def test_a_refresh_falls_due_between_the_two_fractions_of_a_lifetime(hub_id, expires_in):
    lifetime = (Schedule(0.6, 0.75).due_at(hub_id, NOON, expires_in) - NOON).total_seconds()
    assert 0.6 * expires_in - 1e-3 <= lifetime <= 0.75 * expires_in + 1e-3


def test_a_thousand_connections_installed_at_one_instant_fall_due_over_the_whole_range():
    due = sorted(Schedule().due_at(hub_id, NOON, 1800) for hub_id in range(1000))
    window = timedelta(seconds=1800 * 0.15)
    gaps = [later - earlier for earlier, later in zip(due, due[1:], strict=False)]
    assert due[-1] - due[0] > 0.95 * window
    assert max(gaps) < window / 40


def test_the_due_time_of_a_hub_and_grant_is_always_the_same():
    assert Schedule().due_at(7, NOON, 1800) == Schedule().due_at(7, NOON, 1800)


@pytest.mark.parametrize(("failures", "seconds"), [(1, 5), (2, 10), (3, 20), (4, 40), (5, 80), (6, 160)])
def test_each_failure_doubles_the_wait_within_twenty_percent(failures, seconds):
    waits = [wait_seconds(failures, hub_id=hub_id) for hub_id in range(200)]
    assert all(0.8 * seconds <= each <= 1.2 * seconds for each in waits)
    assert max(waits) - min(waits) > 0.3 * seconds


@given(HUB_IDS, st.integers(1, 10**6))
def test_no_wait_is_longer_than_fifteen_minutes(hub_id, failures):
    assert 0.8 * FIRST_RETRY_SECONDS <= wait_seconds(failures, hub_id=hub_id) <= MAX_RETRY_SECONDS


@given(HUB_IDS, st.integers(1, 50), st.floats(0, 86_400))
def test_no_retry_is_earlier_than_retry_after(hub_id, failures, seconds):
    assert wait_seconds(failures, hub_id=hub_id, retry_after=seconds) >= seconds - 1e-6


@pytest.mark.parametrize("lifetime", [20.0, 60.0, 120.0])
def test_a_token_with_a_short_lifetime_is_tried_several_times_before_it_expires(lifetime):
    """From the latest due time, 0.75 of its lifetime, at least two more tries fit before it ends."""
    tries = [wait_seconds(failures, lifetime=lifetime) for failures in (1, 2)]
    assert sum(tries) < 0.25 * lifetime


def test_a_connection_without_a_token_waits_as_long_as_one_with_the_usual_lifetime():
    assert wait_seconds(1, lifetime=None) == wait_seconds(1, lifetime=1800.0)


@given(HUB_IDS, st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_the_spread_fraction_is_at_least_zero_and_below_one(hub_id, instant):
    assert 0 <= spread_fraction(hub_id, instant) < 1
