"""The states of a connection and the transitions between them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared.domain.connection import (
    CONSENT_AGAIN_REASON,
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
    ScopesRejected,
    TemporarilyUnavailable,
    Throttled,
    UnknownRefusal,
    WrongHub,
)
from shared.domain.grant import UNKNOWN_LIFETIME_SECONDS, Grant, Introspection
from shared.domain.schedule import Schedule
from tests.support.builders import make_connection

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HEALTHY = make_connection(lifetime_seconds=1800.0, scopes=("oauth",), due_at=NOON)
SUSPECT = replace(HEALTHY, status=Status.SUSPECT, failures=1, status_reason="HubSpot answered so")
DEAD = InvalidGrant("BAD_REFRESH_TOKEN", http_status=400)
GRANT = Grant(access_token="clear", expires_in=1800, granted_at=NOON, hub_id=7, scopes=("oauth",))


def names(transition):
    return [event.name for event in transition.events]


def test_a_refresh_is_due_again_within_the_new_lifetime_and_makes_no_event():
    transition = apply_refresh(HEALTHY, GRANT, Schedule())
    assert transition.events == ()
    assert NOON + timedelta(seconds=1080) <= transition.connection.due_at <= NOON + timedelta(seconds=1350)


def test_a_success_after_failures_is_a_recovery_and_clears_the_failures():
    failing = replace(HEALTHY, failures=3, last_error="timeout", retry_not_before=NOON)
    transition = apply_refresh(failing, GRANT, Schedule())
    assert names(transition) == [EventName.RECOVERED]
    assert transition.events[0].status is None  # it was active all the time
    assert (
        transition.connection.failures,
        transition.connection.last_error,
        transition.connection.retry_not_before,
    ) == (0, None, None)


@pytest.mark.parametrize("status", [Status.SUSPECT, Status.REVOKED])
def test_a_success_makes_a_suspect_or_revoked_connection_active_and_notifies_listeners(status):
    transition = apply_refresh(replace(SUSPECT, status=status), GRANT, Schedule())
    assert transition.connection.status is Status.ACTIVE
    assert [(event.name, event.status) for event in transition.events] == [(EventName.RECOVERED, Status.ACTIVE)]


def test_changed_scopes_are_an_event_with_the_scopes_before_and_after():
    transition = apply_refresh(HEALTHY, replace(GRANT, scopes=("oauth", "tickets")), Schedule())
    assert names(transition) == [EventName.SCOPES_CHANGED]
    assert transition.events[0].detail == {"before": ["oauth"], "after": ["oauth", "tickets"]}


def test_a_reply_without_scopes_keeps_the_stored_scopes():
    transition = apply_refresh(HEALTHY, replace(GRANT, scopes=None), Schedule())
    assert (transition.connection.scopes, transition.events) == (("oauth",), ())


@pytest.mark.parametrize(("last", "served"), [(None, 60), (1800.0, 60), (60.0, 60), (20.0, 20), (0.4, 1)])
def test_a_token_of_unknown_lifetime_is_served_for_the_shortest_lifetime_known(last, served):
    grant = replace(GRANT, expires_in=UNKNOWN_LIFETIME_SECONDS, is_lifetime_known=False)
    transition = apply_refresh(replace(HEALTHY, lifetime_seconds=last), grant, Schedule())
    assert transition.grant.expires_in == transition.connection.lifetime_seconds == served
    assert NOON < transition.connection.due_at < NOON + timedelta(seconds=served)


def test_a_known_lifetime_counts_also_where_the_last_one_was_shorter():
    assert apply_refresh(replace(HEALTHY, lifetime_seconds=20.0), GRANT, Schedule()).grant.expires_in == 1800


def test_the_first_scopes_of_an_imported_connection_are_not_a_change():
    assert apply_refresh(replace(HEALTHY, scopes=()), GRANT, Schedule()).events == ()


@pytest.mark.parametrize(
    "error", [TemporarilyUnavailable("timeout"), UnknownRefusal("NEW_WORD"), Throttled("429"), AccountMigrating("477")]
)
def test_a_failure_keeps_the_connection_active_and_only_the_first_in_a_row_is_an_event(error):
    first = apply_failure(HEALTHY, error, NOON)
    second = apply_failure(first.connection, error, NOON)
    assert names(first) == [EventName.REFRESH_FAILED]
    assert names(second) == []
    assert second.connection.status is Status.ACTIVE
    assert second.connection.failures == 2
    assert second.connection.due_at > NOON


def test_a_refusal_of_our_app_does_not_count_as_a_failure_of_the_connection():
    transition = apply_failure(HEALTHY, InvalidClient("BAD_CLIENT_SECRET"), NOON)
    assert (transition.connection.status, transition.connection.failures, transition.events) == (Status.ACTIVE, 0, ())
    assert transition.connection.due_at > NOON


def test_hubspots_retry_after_is_stored_and_the_connection_is_not_due_before_it():
    transition = apply_failure(HEALTHY, AccountMigrating("477", retry_after=3600), NOON)
    assert transition.connection.retry_not_before == NOON + timedelta(hours=1)
    assert transition.connection.due_at >= transition.connection.retry_not_before


def test_one_invalid_grant_makes_a_connection_suspect_and_not_revoked():
    transition = apply_failure(HEALTHY, DEAD, NOON)
    assert transition.connection.status is Status.SUSPECT
    assert names(transition) == [EventName.REFRESH_FAILED, EventName.SUSPECTED]
    assert transition.connection.status_reason == "HubSpot answered BAD_REFRESH_TOKEN (HTTP 400) to a refresh"
    assert transition.connection.due_at > NOON


def test_an_inactive_introspection_revokes_and_the_history_has_both_answers():
    transition = apply_introspection(apply_failure(HEALTHY, DEAD, NOON), DEAD, Introspection(active=False))
    assert transition.connection.status is Status.REVOKED
    assert transition.connection.due_at is None
    assert names(transition) == [EventName.REFRESH_FAILED, EventName.SUSPECTED, EventName.REVOKED]
    evidence = transition.events[-1].detail
    assert evidence == {
        "refresh": {"code": "BAD_REFRESH_TOKEN", "http_status": 400},
        "introspection": {"active": False},
    }


def test_an_active_introspection_makes_a_suspect_connection_active_again():
    transition = apply_introspection(apply_failure(HEALTHY, DEAD, NOON), DEAD, Introspection(active=True))
    assert transition.connection.status is Status.ACTIVE
    assert transition.connection.due_at > NOON
    assert names(transition)[-1] is EventName.RECOVERED


def test_a_connection_stays_suspect_where_introspection_does_not_answer():
    transition = apply_introspection(apply_failure(HEALTHY, DEAD, NOON), DEAD, TemporarilyUnavailable("timeout"))
    assert transition.connection.status is Status.SUSPECT


def test_a_suspect_connection_is_not_suspected_twice():
    assert names(apply_failure(SUSPECT, DEAD, NOON)) == []


def test_rejected_scopes_end_no_connection_and_say_that_the_account_must_consent_again():
    error = ScopesRejected("BAD_SCOPES", http_status=403)
    failed = apply_failure(HEALTHY, error, NOON).connection
    assert (failed.status, failed.status_reason, failed.failures) == (Status.ACTIVE, CONSENT_AGAIN_REASON, 1)
    assert "consent again" in CONSENT_AGAIN_REASON
    assert failed.due_at > NOON
    again = apply_failure(failed, TemporarilyUnavailable("timeout"), NOON).connection
    assert again.status_reason == CONSENT_AGAIN_REASON, "an outage in between says nothing about the scopes"
    assert apply_refresh(again, GRANT, Schedule()).connection.status_reason is None
    assert apply_failure(SUSPECT, error, NOON).connection.status_reason == SUSPECT.status_reason


def test_a_grant_of_another_account_never_revokes_a_connection():
    wrong = WrongHub("another_hub")
    transition = apply_introspection(apply_failure(HEALTHY, wrong, NOON), wrong, Introspection(active=False))
    assert transition.connection.status is Status.SUSPECT


def test_a_revoked_connection_that_is_rejected_again_stays_revoked_without_an_event():
    revoked = replace(HEALTHY, status=Status.REVOKED)
    transition = apply_failure(revoked, DEAD, NOON)
    assert (transition.connection.status, transition.connection.due_at, transition.events) == (Status.REVOKED, None, ())


def test_a_revoked_connection_is_tried_again_where_the_attempt_met_an_outage():
    transition = apply_failure(replace(HEALTHY, status=Status.REVOKED), TemporarilyUnavailable("timeout"), NOON)
    assert transition.connection.status is Status.REVOKED
    assert transition.connection.due_at > NOON


def test_a_refresh_token_that_does_not_open_is_our_trouble():
    transition = apply_decryption_failure(HEALTHY, NOON)
    assert transition.connection.status is Status.ACTIVE
    assert transition.connection.last_error == "decryption_failed"
    assert transition.events == ()


def test_a_grant_never_shows_its_tokens():
    assert "clear" not in repr(GRANT)
    assert "clear" not in repr(apply_refresh(HEALTHY, GRANT, Schedule()))
