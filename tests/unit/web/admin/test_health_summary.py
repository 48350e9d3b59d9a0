"""The overview's headline says whether everything works, else the most important thing that does not."""

from datetime import timedelta

import pytest

from shared.domain.provider import Condition, Provider
from shared.domain.severity import Severity
from shared.domain.sweep_liveness import sweep_overdue_seconds
from tests.support.builders import START
from tests.unit.web.admin.report_builders import make_overview
from web.admin.health_summary import HealthFacts, summarize_health

SWEEP_SECONDS = 2.0
OVERDUE_SECONDS = sweep_overdue_seconds(SWEEP_SECONDS)


def summarize(*, without_token=0, **changes):
    return summarize_health(HealthFacts(make_overview(**changes), without_token, SWEEP_SECONDS))


@pytest.mark.parametrize(
    ("active", "headline"),
    [
        (0, "No account is connected."),
        (1, "The one connection has a valid token."),
        (2, "Both connections have a valid token."),
        (1234, "All 1,234 connections have a valid token."),
    ],
)
def test_a_healthy_system_is_reported_as_good(active, headline):
    summary = summarize(active=active)
    assert summary.headline == headline
    assert summary.severity is Severity.GOOD


def test_disconnected_connections_do_not_change_the_severity():
    assert summarize(disconnected=7).severity is Severity.GOOD


@pytest.mark.parametrize(
    ("revoked", "headline"),
    [(1, "1 connection is revoked."), (2, "2 connections are revoked."), (1000, "1,000 connections are revoked.")],
)
def test_revoked_connections_are_reported_with_what_to_do(revoked, headline):
    summary = summarize(revoked=revoked)
    assert summary.headline == headline
    assert "install again, or disconnect" in summary.text


@pytest.mark.parametrize(("suspect", "headline"), [(1, "1 connection is suspect."), (3, "3 connections are suspect.")])
def test_suspect_connections_can_wait(suspect, headline):
    summary = summarize(suspect=suspect)
    assert summary.headline == headline
    assert summary.severity is Severity.WAIT


@pytest.mark.parametrize("swept_at", [None, START - timedelta(seconds=OVERDUE_SECONDS + 1)])
def test_an_overdue_sweep_is_reported_as_bad(swept_at):
    summary = summarize(swept_at=swept_at)
    assert summary.headline == "Nothing is refreshed."
    assert summary.severity is Severity.BAD
    assert "Start a worker and beat" in summary.text


@pytest.mark.parametrize(
    ("seconds", "severity"), [(OVERDUE_SECONDS - 1, Severity.GOOD), (OVERDUE_SECONDS + 1, Severity.WAIT)]
)
def test_sweeps_without_beat_are_reported_once_a_restart_of_beat_would_be_over(seconds, severity):
    assert summarize(swept_without_beat_since=START - timedelta(seconds=seconds)).severity is severity


def test_a_sweep_that_is_not_overdue_yet_is_not_reported():
    assert summarize(swept_at=START - timedelta(seconds=OVERDUE_SECONDS - 1)).severity is Severity.GOOD


@pytest.mark.parametrize(
    ("condition", "headline"),
    [(Condition.UNAVAILABLE, "HubSpot does not answer."), (Condition.THROTTLED, "HubSpot is limiting our requests.")],
)
def test_an_unavailable_hubspot_is_bad_once_a_connection_has_no_token(condition, headline):
    provider = Provider(condition, START, "timeout")
    assert summarize(provider=provider).headline == headline
    assert summarize(provider=provider).severity is Severity.WAIT
    assert summarize(provider=provider, without_token=1).severity is Severity.BAD


def test_a_connection_without_a_token_is_reported_as_bad():
    assert summarize(without_token=1).headline == "1 connection is without a token."
    assert summarize(without_token=1).severity is Severity.BAD


def test_failing_connections_whose_tokens_are_served_can_wait():
    summary = summarize(failing=2)
    assert summary.headline == "2 connections are behind schedule."
    assert summary.text.startswith("All tokens are served")
    assert summary.severity is Severity.WAIT


def test_what_only_the_operator_can_solve_is_reported_first():
    """Everything fails at first; then one cause after the other is removed, the most important one first."""
    state = {"revoked": 1, "suspect": 1, "failing": 3, "without_token": 1, "swept_at": None}
    state |= {"brake_since": START, "held": 12}
    state["provider"] = Provider(Condition.APP_REJECTED, START, "BAD_CLIENT_ID (HTTP 400)")
    headlines = [
        ("brake_since", "12 connections are held by the brake."),
        ("provider", "HubSpot does not accept our app."),
        ("swept_at", "Nothing is refreshed."),
        ("without_token", "1 connection is without a token."),
        ("revoked", "1 connection is revoked."),
        ("suspect", "1 connection is suspect."),
        ("failing", "3 connections are behind schedule."),
    ]
    for name, headline in headlines:
        assert summarize(**state).headline == headline
        del state[name]
    assert summarize(**state).severity is Severity.GOOD
