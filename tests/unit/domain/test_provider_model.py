"""Properties of HubSpot's state under any sequence of outcomes and sweeps: never stuck, never faster than allowed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import (
    AccountMigrating,
    InvalidClient,
    InvalidGrant,
    TemporarilyUnavailable,
    Throttled,
    UnknownRefusal,
)
from shared.domain.provider import (
    MAX_PAUSE_SECONDS,
    PROBES_PER_SECOND,
    RAMP_END_PER_SECOND,
    CallOutcome,
    Condition,
    Provider,
    apply_outcomes,
    rate_limit,
    start_sweep,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
WAITS = st.one_of(st.none(), st.floats(0, 86_400))
ERRORS = st.one_of(
    st.none(),
    st.builds(lambda wait: Throttled("429", retry_after=wait), WAITS),
    st.builds(lambda wait: AccountMigrating("477", retry_after=wait), WAITS),
    st.sampled_from(
        [
            TemporarilyUnavailable("timeout"),
            InvalidClient("BAD_CLIENT_ID"),
            UnknownRefusal("NEW_WORD"),
            InvalidGrant("BAD_REFRESH_TOKEN"),
        ]
    ),
)
OUTCOMES = st.builds(CallOutcome, is_first_attempt=st.booleans(), error=ERRORS, is_repeat=st.booleans())
#: Seconds, then a sweep (None) or the outcome of a call.
STEPS = st.lists(st.tuples(st.floats(0, 600), st.one_of(st.none(), OUTCOMES)), max_size=60)


def run(steps: list[tuple[float, CallOutcome | None]]) -> list[tuple[datetime, CallOutcome | None, Provider]]:
    state, now, states = Provider(), NOON, []
    for seconds, outcome in steps:
        now += timedelta(seconds=seconds)
        state = start_sweep(state) if outcome is None else apply_outcomes(state, [outcome], now)
        states.append((now, outcome, state))
    return states


@given(STEPS)
def test_successes_and_sweeps_lead_from_any_state_back_to_no_limit(
    steps: list[tuple[float, CallOutcome | None]],
) -> None:
    now, _, state = ([(NOON, None, Provider()), *run(steps)])[-1]
    now = max(now, state.paused_until or now)
    for _ in range(20):
        now += timedelta(seconds=2)
        state = start_sweep(apply_outcomes(state, [CallOutcome(is_first_attempt=True)], now))
    assert state.is_healthy


@given(STEPS)
def test_no_outcome_shortens_a_pause_and_none_is_longer_than_five_minutes(
    steps: list[tuple[float, CallOutcome | None]],
) -> None:
    pause_end = NOON
    for now, outcome, state in run(steps):
        if outcome and isinstance(outcome.error, Throttled) and outcome.error.retry_after is not None:
            pause_end = max(pause_end, now + timedelta(seconds=min(outcome.error.retry_after, MAX_PAUSE_SECONDS)))
        if pause_end > now:
            assert state.paused_until is not None
            assert state.paused_until >= pause_end
        assert state.paused_until is None or state.paused_until <= now + timedelta(seconds=MAX_PAUSE_SECONDS)


@given(STEPS, st.floats(0, 2000))
def test_the_rate_is_never_zero_and_never_above_what_the_condition_allows(
    steps: list[tuple[float, CallOutcome | None]], cap: float
) -> None:
    for _, _, state in run(steps):
        rate = rate_limit(state, cap)
        assert rate is None or rate > 0
        assert state.rate is None or PROBES_PER_SECOND <= state.rate <= RAMP_END_PER_SECOND
        assert state.condition is Condition.OK or state.rate == PROBES_PER_SECOND
        assert not cap or (rate is not None and rate <= cap)
