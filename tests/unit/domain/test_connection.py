"""The states of a connection, and every way from one to another."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared.domain.connection import (
    Connection,
    EventName,
    Status,
    apply_decryption_failure,
    apply_failure,
    apply_introspection,
    apply_refresh,
)
from shared.domain.errors import (
    AccountMigrating,
    InvalidClient,
    InvalidGrant,
    TemporarilyUnavailable,
    Throttled,
    UnknownRefusal,
    WrongHub,
)
from shared.domain.grant import Grant, Introspection
from shared.domain.schedule import Schedule

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HEALTHY = Connection(hub_id=7, status=Status.ACTIVE, lifetime_seconds=1800.0, scopes=("oauth",), due_at=NOON)
SUSPECT = replace(HEALTHY, status=Status.SUSPECT, failures=1, status_reason="HubSpot answered so")
DEAD = InvalidGrant("BAD_REFRESH_TOKEN", http_status=400)
GRANT = Grant(access_token="clear", expires_in=1800, granted_at=NOON, hub_id=7, scopes=("oauth",))


def names(step):
    return [event.name for event in step.events]


def test_a_refresh_is_due_again_within_the_new_life_and_tells_nobody():
    step = apply_refresh(HEALTHY, GRANT, Schedule())
    assert step.events == ()
    assert NOON + timedelta(seconds=1080) <= step.connection.due_at <= NOON + timedelta(seconds=1350)


def test_a_success_after_failures_is_told_as_recovered_and_clears_everything():
    failing = replace(HEALTHY, failures=3, last_error="timeout", retry_not_before=NOON)
    step = apply_refresh(failing, GRANT, Schedule())
    assert names(step) == [EventName.RECOVERED]
    assert step.events[0].status is None  # it was active all the time
    assert (step.connection.failures, step.connection.last_error, step.connection.retry_not_before) == (0, None, None)


@pytest.mark.parametrize("status", [Status.SUSPECT, Status.REVOKED])
def test_a_success_makes_whatever_it_was_active_and_listeners_hear_of_it(status):
    step = apply_refresh(replace(SUSPECT, status=status), GRANT, Schedule())
    assert step.connection.status is Status.ACTIVE
    assert [(event.name, event.status) for event in step.events] == [(EventName.RECOVERED, Status.ACTIVE)]


def test_other_scopes_are_told_with_what_was_before():
    step = apply_refresh(HEALTHY, replace(GRANT, scopes=("oauth", "tickets")), Schedule())
    assert names(step) == [EventName.SCOPES_CHANGED]
    assert step.events[0].detail == {"before": ["oauth"], "after": ["oauth", "tickets"]}


def test_a_reply_without_scopes_keeps_what_is_known():
    step = apply_refresh(HEALTHY, replace(GRANT, scopes=None), Schedule())
    assert (step.connection.scopes, step.events) == (("oauth",), ())


def test_the_first_scopes_of_an_import_are_no_change():
    assert apply_refresh(replace(HEALTHY, scopes=()), GRANT, Schedule()).events == ()


@pytest.mark.parametrize(
    "error", [TemporarilyUnavailable("timeout"), UnknownRefusal("NEW_WORD"), Throttled("429"), AccountMigrating("477")]
)
def test_a_fault_costs_nothing_but_time_and_only_the_first_of_a_streak_is_told(error):
    first = apply_failure(HEALTHY, error, NOON)
    second = apply_failure(first.connection, error, NOON)
    assert names(first) == [EventName.REFRESH_FAILED]
    assert names(second) == []
    assert second.connection.status is Status.ACTIVE
    assert second.connection.failures == 2
    assert second.connection.due_at > NOON


def test_our_own_misconfiguration_costs_the_connection_nothing():
    step = apply_failure(HEALTHY, InvalidClient("BAD_CLIENT_SECRET"), NOON)
    assert (step.connection.status, step.connection.failures, step.events) == (Status.ACTIVE, 0, ())
    assert step.connection.due_at > NOON


def test_hubspots_own_wait_is_kept_apart_so_that_nothing_hurries_past_it():
    step = apply_failure(HEALTHY, AccountMigrating("477", retry_after=3600), NOON)
    assert step.connection.retry_not_before == NOON + timedelta(hours=1)
    assert step.connection.due_at >= step.connection.retry_not_before


def test_one_dead_answer_makes_suspect_and_no_more():
    step = apply_failure(HEALTHY, DEAD, NOON)
    assert step.connection.status is Status.SUSPECT
    assert names(step) == [EventName.REFRESH_FAILED, EventName.SUSPECTED]
    assert step.connection.status_reason == "HubSpot answered BAD_REFRESH_TOKEN (HTTP 400) to a refresh"
    assert step.connection.due_at > NOON


def test_two_witnesses_revoke_and_both_are_on_record():
    step = apply_introspection(apply_failure(HEALTHY, DEAD, NOON), DEAD, Introspection(active=False))
    assert step.connection.status is Status.REVOKED
    assert step.connection.due_at is None
    assert names(step) == [EventName.REFRESH_FAILED, EventName.SUSPECTED, EventName.REVOKED]
    evidence = step.events[-1].detail
    assert evidence == {
        "refresh": {"code": "BAD_REFRESH_TOKEN", "http_status": 400},
        "introspection": {"active": False},
    }


def test_a_witness_that_sees_life_brings_it_back_to_trying():
    step = apply_introspection(apply_failure(HEALTHY, DEAD, NOON), DEAD, Introspection(active=True))
    assert step.connection.status is Status.ACTIVE
    assert step.connection.due_at > NOON
    assert names(step)[-1] is EventName.RECOVERED


def test_a_witness_that_does_not_answer_leaves_it_suspect():
    step = apply_introspection(apply_failure(HEALTHY, DEAD, NOON), DEAD, TemporarilyUnavailable("timeout"))
    assert step.connection.status is Status.SUSPECT


def test_a_suspect_is_not_suspected_twice():
    assert names(apply_failure(SUSPECT, DEAD, NOON)) == []


def test_a_grant_of_another_account_never_revokes():
    wrong = WrongHub("another_hub")
    step = apply_introspection(apply_failure(HEALTHY, wrong, NOON), wrong, Introspection(active=False))
    assert step.connection.status is Status.SUSPECT


def test_a_revoked_one_tried_again_in_vain_stays_revoked_in_silence():
    revoked = replace(HEALTHY, status=Status.REVOKED)
    step = apply_failure(revoked, DEAD, NOON)
    assert (step.connection.status, step.connection.due_at, step.events) == (Status.REVOKED, None, ())


def test_a_revoked_one_tried_during_an_outage_is_tried_again():
    step = apply_failure(replace(HEALTHY, status=Status.REVOKED), TemporarilyUnavailable("timeout"), NOON)
    assert step.connection.status is Status.REVOKED
    assert step.connection.due_at > NOON


def test_a_refresh_token_that_does_not_open_is_our_trouble():
    step = apply_decryption_failure(HEALTHY, NOON)
    assert step.connection.status is Status.ACTIVE
    assert step.connection.last_error == "decryption_failed"
    assert step.events == ()


def test_a_grant_never_shows_its_tokens():
    assert "clear" not in repr(GRANT)
    assert "clear" not in repr(apply_refresh(HEALTHY, GRANT, Schedule()))
