"""The overview's first sentence says whether all is well, and else what comes first."""

from datetime import timedelta

import pytest

from shared.domain.provider import Condition, Provider
from shared.domain.severity import Severity
from tests.support.builders import START
from tests.unit.web.seen import overview
from web.admin.health_summary import Seen, summarize_health

SWEEP_SECONDS = 12.0


def of(*, stale=0, **but):
    return summarize_health(Seen(overview(**but), stale, SWEEP_SECONDS))


@pytest.mark.parametrize(
    ("active", "headline"),
    [
        (0, "No account is connected."),
        (1, "The one connection is fresh."),
        (2, "Both connections are fresh."),
        (1234, "All 1,234 connections are fresh."),
    ],
)
def test_when_all_is_well_it_says_so(active, headline):
    said = of(active=active)
    assert said.headline == headline
    assert said.tone is Severity.GOOD


def test_those_that_the_operator_ended_are_no_news():
    assert of(disconnected=7).tone is Severity.GOOD


@pytest.mark.parametrize(
    ("revoked", "headline"),
    [(1, "1 connection needs you."), (2, "2 connections need you."), (1000, "1,000 connections need you.")],
)
def test_revoked_ones_wait_for_somebody(revoked, headline):
    assert of(revoked=revoked).headline == headline


@pytest.mark.parametrize(
    ("suspect", "headline"), [(1, "1 connection is in doubt."), (3, "3 connections are in doubt.")]
)
def test_suspect_ones_need_nobody_yet(suspect, headline):
    said = of(suspect=suspect)
    assert said.headline == headline
    assert said.tone is Severity.WAIT


@pytest.mark.parametrize("swept_at", [None, START - timedelta(seconds=61)])
def test_without_a_sweep_nothing_is_refreshed(swept_at):
    said = of(swept_at=swept_at)
    assert said.headline == "Nothing is refreshed."
    assert said.tone is Severity.BAD
    assert "Start beat and the worker" in said.text


def test_a_sweep_that_is_a_little_late_is_no_news():
    assert of(swept_at=START - timedelta(seconds=59)).tone is Severity.GOOD


@pytest.mark.parametrize(
    ("condition", "headline"),
    [(Condition.UNAVAILABLE, "HubSpot does not answer."), (Condition.THROTTLED, "HubSpot asks us to wait.")],
)
def test_hubspots_troubles_become_bad_once_somebody_has_no_token(condition, headline):
    provider = Provider(condition, START, "timeout")
    assert of(provider=provider).headline == headline
    assert of(provider=provider).tone is Severity.WAIT
    assert of(provider=provider, stale=1).tone is Severity.BAD


def test_connections_without_a_token_are_never_called_fresh():
    assert of(stale=1).headline == "1 connection is without a token."
    assert of(stale=1).tone is Severity.BAD


def test_failures_that_cost_nobody_a_token_are_told_as_such():
    said = of(failing=2)
    assert said.headline.startswith("All tokens are served")
    assert said.tone is Severity.WAIT


def test_what_only_the_operator_can_end_comes_first():
    """From all at once, the worst is taken away one by one."""
    state = {"revoked": 1, "suspect": 1, "failing": 3, "stale": 1, "swept_at": None, "brake_since": START, "held": 12}
    state["provider"] = Provider(Condition.APP_REJECTED, START, "BAD_CLIENT_ID (HTTP 400)")
    ends = [
        ("brake_since", "12 connections are held by the brake."),
        ("provider", "HubSpot refuses our app."),
        ("swept_at", "Nothing is refreshed."),
        ("stale", "1 connection is without a token."),
        ("revoked", "1 connection needs you."),
        ("suspect", "1 connection is in doubt."),
        ("failing", "All tokens are served, 3 connections behind."),
    ]
    for name, headline in ends:
        assert of(**state).headline == headline
        del state[name]
    assert of(**state).tone is Severity.GOOD
