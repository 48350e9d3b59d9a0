"""HubSpot as a whole, under any sequence of answers and sweeps: never stuck, never faster than allowed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import AppRejected, GrantDead, PortalMoving, Throttled, UnknownRefusal, Unwell
from shared.domain.provider import PROBING, RAMP_TO, Condition, Outcome, Provider, judged, limit, swept

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
WAITS = st.one_of(st.none(), st.floats(0, 86_400))
ERRORS = st.one_of(
    st.none(),
    st.builds(lambda wait: Throttled("429", retry_after=wait), WAITS),
    st.builds(lambda wait: PortalMoving("477", retry_after=wait), WAITS),
    st.sampled_from(
        [Unwell("timeout"), AppRejected("BAD_CLIENT_ID"), UnknownRefusal("NEW_WORD"), GrantDead("BAD_REFRESH_TOKEN")]
    ),
)
OUTCOMES = st.builds(Outcome, first=st.booleans(), error=ERRORS, again=st.booleans())
#: Seconds until a sweep, or an answer.
STEPS = st.lists(st.tuples(st.floats(0, 600), st.one_of(st.none(), OUTCOMES)), max_size=60)


def after(steps: list[tuple[float, Outcome | None]]) -> list[tuple[datetime, Outcome | None, Provider]]:
    state, now, states = Provider(), NOON, []
    for seconds, outcome in steps:
        now += timedelta(seconds=seconds)
        state = swept(state, now) if outcome is None else judged(state, [outcome], now)
        states.append((now, outcome, state))
    return states


@given(STEPS)
def test_from_any_state_successes_and_sweeps_lead_back_to_full_speed(steps: list[tuple[float, Outcome | None]]) -> None:
    now, _, state = ([(NOON, None, Provider()), *after(steps)])[-1]
    now = max(now, state.paused_until or now)
    for _ in range(20):
        now += timedelta(seconds=2)
        state = swept(judged(state, [Outcome(first=True)], now), now)
    assert state.at_ease


@given(STEPS)
def test_no_answer_shortens_a_pause_that_hubspot_asked_for(steps: list[tuple[float, Outcome | None]]) -> None:
    promised = NOON
    for now, outcome, state in after(steps):
        if outcome and isinstance(outcome.error, Throttled) and outcome.error.retry_after is not None:
            promised = max(promised, now + timedelta(seconds=outcome.error.retry_after))
        if promised > now:
            assert state.paused_until is not None
            assert state.paused_until >= promised


@given(STEPS, st.floats(0, 2000))
def test_the_pace_is_never_nothing_and_never_above_what_the_state_allows(
    steps: list[tuple[float, Outcome | None]], cap: float
) -> None:
    for _, _, state in after(steps):
        rate = limit(state, cap)
        assert rate is None or rate > 0
        assert state.rate is None or PROBING <= state.rate <= RAMP_TO
        assert state.condition is Condition.OK or state.rate == PROBING
        assert not cap or (rate is not None and rate <= cap)
