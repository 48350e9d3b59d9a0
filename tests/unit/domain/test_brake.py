"""How many may become revoked, and how a connection stands that the brake holds."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.brake import MIN_REVOCATIONS, hold_revocation, is_revocation, remaining_revocations
from shared.domain.connection import Connection, EventName, Status, apply_failure, apply_introspection
from shared.domain.errors import InvalidGrant
from shared.domain.grant import Introspection

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HEALTHY = Connection(hub_id=7, status=Status.ACTIVE, lifetime_seconds=1800.0, scopes=("oauth",), due_at=NOON)
DEAD = InvalidGrant("BAD_REFRESH_TOKEN", http_status=400, correlation_id="c-1")


def verdict(connection=HEALTHY):
    return apply_introspection(apply_failure(connection, DEAD, NOON), DEAD, Introspection(active=False))


@pytest.mark.parametrize(
    ("active_then", "revoked_lately", "allowed"),
    [
        (0, 0, 10),
        (200, 0, 10),
        (219, 0, 10),
        (220, 0, 11),
        (5000, 0, 250),
        (5000, 249, 1),
        (5000, 250, 0),
        (5000, 999, 0),
        (3, 9, 1),
    ],
)
def test_ten_or_a_twentieth_of_those_active_before_may_go(active_then, revoked_lately, allowed):
    assert remaining_revocations(active_then, revoked_lately) == allowed


@given(st.integers(0, 10**7), st.integers(0, 10**6))
def test_what_went_and_what_may_go_never_exceed_the_law(active_then, revoked_lately):
    allowed = remaining_revocations(active_then, revoked_lately)
    assert allowed >= 0
    if allowed:
        assert revoked_lately + allowed <= max(MIN_REVOCATIONS, active_then / 20)


def test_only_a_verdict_revokes():
    assert is_revocation(verdict())
    assert not is_revocation(apply_failure(HEALTHY, DEAD, NOON))


def test_a_revoked_one_that_was_tried_once_more_does_not_become_revoked():
    assert not is_revocation(apply_failure(replace(HEALTHY, status=Status.REVOKED, due_at=None), DEAD, NOON))


def test_a_held_one_is_suspect_and_due_again_at_the_pace_of_the_back_off():
    first = hold_revocation(verdict(), NOON).connection
    later = hold_revocation(verdict(replace(HEALTHY, status=Status.SUSPECT, failures=6)), NOON).connection
    assert (first.status, later.status) == (Status.SUSPECT, Status.SUSPECT)
    assert NOON + timedelta(seconds=4) <= first.due_at <= NOON + timedelta(seconds=6)
    assert NOON + timedelta(seconds=200) <= later.due_at <= NOON + timedelta(seconds=400)
    assert "brake" in first.status_reason


def test_of_a_held_one_the_history_tells_no_revocation_and_the_evidence_is_kept():
    step = hold_revocation(verdict(), NOON)
    assert [event.name for event in step.events] == [EventName.REFRESH_FAILED, EventName.SUSPECTED]
    assert step.pending_revocation == {
        "refresh": {"code": "BAD_REFRESH_TOKEN", "http_status": 400, "correlation_id": "c-1"},
        "introspection": {"active": False},
    }
    assert not is_revocation(step)


def test_one_that_is_held_again_tells_nothing_twice():
    again = hold_revocation(verdict(hold_revocation(verdict(), NOON).connection), NOON)
    assert again.events == ()
    assert again.connection.failures == 2
