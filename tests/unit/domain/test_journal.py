"""Which entry of HubSpot's journal counts against which grant."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.connection import Status
from shared.domain.journal import (
    CLOCK_TOLERANCE,
    EntryKind,
    GrantFacts,
    JournalEntry,
    ReportedUninstall,
    UninstallDecision,
    decide_uninstall,
    select_uninstalls,
)

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
INSTALLED = GrantFacts(Status.ACTIVE, user_id=None, installed_at=NOON, refreshed_at=NOON)
instants = st.datetimes(datetime(2026, 11, 20), datetime(2026, 12, 1), timezones=st.just(UTC))


def report(occurred_at, *, user_id=None):
    return ReportedUninstall(occurred_at, reported_at=NOON + 60 * MINUTE, user_id=user_id)


def test_an_uninstall_after_the_grant_makes_the_connection_suspect():
    assert decide_uninstall(report(NOON + MINUTE), INSTALLED) is UninstallDecision.SUSPECT


def test_an_uninstall_before_the_grant_changes_nothing_because_the_app_was_installed_again():
    assert decide_uninstall(report(NOON - MINUTE), INSTALLED) is UninstallDecision.IGNORE


def test_an_uninstall_before_a_refresh_that_worked_changes_nothing():
    refreshed = replace(INSTALLED, refreshed_at=NOON + 20 * MINUTE)
    assert decide_uninstall(report(NOON + 10 * MINUTE), refreshed) is UninstallDecision.IGNORE


def test_where_clocks_may_hide_the_order_the_connection_is_checked_and_its_status_stays():
    assert decide_uninstall(report(NOON - CLOCK_TOLERANCE / 2), INSTALLED) is UninstallDecision.CHECK


@pytest.mark.parametrize("status", [Status.REVOKED, Status.DISCONNECTED])
def test_a_connection_that_has_ended_stays_as_it_is(status):
    assert decide_uninstall(report(NOON + MINUTE), replace(INSTALLED, status=status)) is UninstallDecision.IGNORE


def test_a_connection_that_is_suspect_already_is_only_asked_about_again():
    assert decide_uninstall(report(NOON + MINUTE), replace(INSTALLED, status=Status.SUSPECT)) is UninstallDecision.CHECK


def test_an_uninstall_without_a_date_is_checked():
    assert decide_uninstall(report(None), INSTALLED) is UninstallDecision.CHECK


def test_an_imported_grant_that_no_token_has_come_from_yet_is_checked():
    imported = replace(INSTALLED, installed_at=None, refreshed_at=None)
    assert decide_uninstall(report(NOON + MINUTE), imported) is UninstallDecision.CHECK


def test_an_uninstall_dated_in_the_future_does_not_count_against_a_later_grant():
    later = replace(INSTALLED, installed_at=NOON + 120 * MINUTE)
    assert decide_uninstall(report(NOON + timedelta(days=9000)), later) is UninstallDecision.IGNORE


def test_of_a_user_level_app_the_grant_of_that_user_is_suspect_and_those_of_others_are_checked():
    ada, bob = (replace(INSTALLED, user_id=user_id) for user_id in (1, 2))
    assert decide_uninstall(report(NOON + MINUTE, user_id=1), ada) is UninstallDecision.SUSPECT
    assert decide_uninstall(report(NOON + MINUTE, user_id=1), bob) is UninstallDecision.CHECK
    assert decide_uninstall(report(NOON + MINUTE), bob) is UninstallDecision.SUSPECT, "it names no user"
    assert decide_uninstall(report(NOON + MINUTE, user_id=1), INSTALLED) is UninstallDecision.SUSPECT, (
        "an account-level app"
    )


@given(
    occurred_at=instants | st.none(),
    installed_at=instants | st.none(),
    refreshed_at=instants | st.none(),
    reported_at=instants,
    status=st.sampled_from(Status),
    user_id=st.sampled_from([None, 1, 2]),
)
def test_no_report_counts_against_a_grant_that_is_newer_than_it(
    *, occurred_at, installed_at, refreshed_at, reported_at, status, user_id
):
    grant = GrantFacts(status, user_id, installed_at, refreshed_at)
    if decide_uninstall(ReportedUninstall(occurred_at, reported_at, user_id=1), grant) is UninstallDecision.SUSPECT:
        assert status is Status.ACTIVE
        assert all(at < occurred_at for at in (installed_at, refreshed_at) if at is not None)


def test_installs_and_entries_of_other_apps_are_left_out():
    uninstall = JournalEntry(EntryKind.UNINSTALL, 7, NOON)
    own = [uninstall, replace(uninstall, app_id=55)]
    foreign = [replace(uninstall, app_id=56), replace(uninstall, kind=EntryKind.INSTALL, app_id=55)]
    assert select_uninstalls([*own, *foreign], app_id=55) == own
    assert select_uninstalls([*own, foreign[0]], app_id=None) == [*own, foreign[0]], "our own number is not known"
