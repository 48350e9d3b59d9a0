"""How many revocations the brake allows, and what becomes of one that it holds."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.brake import MIN_REVOCATIONS, hold_revocation, is_revocation, remaining_revocations
from shared.domain.connection import EventName, Status, apply_failure, apply_introspection
from shared.domain.errors import InvalidGrant
from shared.domain.grant import Introspection
from tests.support.builders import make_connection

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HEALTHY = make_connection(lifetime_seconds=1800.0, scopes=("oauth",), due_at=NOON)
DEAD = InvalidGrant("BAD_REFRESH_TOKEN", http_status=400, correlation_id="c-1")


def revocation(connection=HEALTHY):
    return apply_introspection(apply_failure(connection, DEAD, NOON), DEAD, Introspection(active=False))


@pytest.mark.parametrize(
    ("active_then", "revoked_since", "allowed"),
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
def test_ten_or_five_percent_of_the_active_connections_may_be_revoked(active_then, revoked_since, allowed):
    assert remaining_revocations(active_then, revoked_since) == allowed


@given(st.integers(0, 10**7), st.integers(0, 10**6))
def test_revocations_never_exceed_the_limit(active_then, revoked_since):
    allowed = remaining_revocations(active_then, revoked_since)
    assert allowed >= 0
    if allowed:
        assert revoked_since + allowed <= max(MIN_REVOCATIONS, active_then / 20)


def test_only_an_introspection_makes_a_revocation():
    assert is_revocation(revocation())
    assert not is_revocation(apply_failure(HEALTHY, DEAD, NOON))


def test_a_connection_that_is_revoked_already_is_not_revoked_again():
    assert not is_revocation(apply_failure(replace(HEALTHY, status=Status.REVOKED, due_at=None), DEAD, NOON))


def test_a_held_connection_is_suspect_and_due_again_after_the_backoff():
    first = hold_revocation(revocation(), NOON).connection
    later = hold_revocation(revocation(replace(HEALTHY, status=Status.SUSPECT, failures=6)), NOON).connection
    assert (first.status, later.status) == (Status.SUSPECT, Status.SUSPECT)
    assert NOON + timedelta(seconds=4) <= first.due_at <= NOON + timedelta(seconds=6)
    assert NOON + timedelta(seconds=200) <= later.due_at <= NOON + timedelta(seconds=400)
    assert "brake" in first.status_reason


def test_a_held_revocation_is_not_in_the_history_and_its_evidence_is_kept():
    transition = hold_revocation(revocation(), NOON)
    assert [event.name for event in transition.events] == [EventName.REFRESH_FAILED, EventName.SUSPECTED]
    assert transition.pending_revocation == {
        "refresh": {"code": "BAD_REFRESH_TOKEN", "http_status": 400, "correlation_id": "c-1"},
        "introspection": {"active": False},
    }
    assert not is_revocation(transition)


def test_a_revocation_that_is_held_again_adds_no_event():
    again = hold_revocation(revocation(hold_revocation(revocation(), NOON).connection), NOON)
    assert again.events == ()
    assert again.connection.failures == 2
