"""How alerts read, and how often they are told."""

from __future__ import annotations

import pytest

from shared.domain.alerts import (
    FIRST_RETRY_SECONDS,
    GIVE_UP_AFTER,
    MAX_RETRY_SECONDS,
    RECENT_WINDOW,
    Alert,
    AlertKind,
    describe_alert,
    pause_seconds,
    post_retry_seconds,
)
from tests.support.builders import START

DETAILS = {
    AlertKind.PROVIDER: {"state": "app_rejected", "before": "ok", "reason": "BAD_CLIENT_SECRET (HTTP 400)"},
    AlertKind.REVOKED: {"count": 1, "hubs": [62515]},
    AlertKind.STALE: {"count": 14, "hubs": list(range(1, 11))},
    AlertKind.BRAKE: {"held": 190},
}


def said(kind: AlertKind, *, recovered: bool = False, **detail: object) -> str:
    return describe_alert(Alert("id", kind, START, recovered=recovered, detail=detail or DETAILS[kind]))


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (AlertKind.PROVIDER, "does not accept our app (BAD_CLIENT_SECRET (HTTP 400))"),
        (AlertKind.REVOKED, "ended 1 connection (hub 62515)"),
        (AlertKind.STALE, "14 connections (hubs 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 4 more)"),
        (AlertKind.BRAKE, "190 are held so far"),
    ],
)
def test_each_kind_says_what_happened_and_what_to_do(kind, part):
    assert part in said(kind)


@pytest.mark.parametrize("kind", AlertKind)
def test_each_kind_is_one_line_that_says_whose_it_is_and_its_end_reads_otherwise(kind):
    begun, over = said(kind), said(kind, recovered=True)
    assert begun != over
    for text in (begun, over):
        assert text.startswith("tokenkeeper: ")
        assert "\n" not in text
        assert "None" not in text


@pytest.mark.parametrize("kind", AlertKind)
@pytest.mark.parametrize("recovered", [False, True])
def test_a_detail_that_lacks_something_still_reads(kind, recovered):
    assert describe_alert(Alert("id", kind, START, recovered=recovered))


def test_the_brakes_end_says_what_the_operator_said():
    assert said(AlertKind.BRAKE, recovered=True, dismissed=190).endswith("is off again: 190 dismissed.")


@pytest.mark.parametrize("state", ["unavailable", "throttled", "app_rejected"])
def test_every_state_of_hubspot_has_words_of_its_own(state):
    text = said(AlertKind.PROVIDER, state=state, reason="why")
    assert "(why)" in text
    assert "is not working normally" not in text


def test_nobody_but_us_makes_slack_call_people():
    text = said(AlertKind.PROVIDER, state="unavailable", reason="<!channel> & <http://evil|click>")
    assert "&lt;!channel&gt; &amp; &lt;http://evil|click&gt;" in text


def test_the_waits_between_tries_double_from_seconds_to_an_hour():
    assert [post_retry_seconds(attempts) for attempts in (1, 2, 3)] == [FIRST_RETRY_SECONDS, 4.0, 8.0]
    assert post_retry_seconds(50) == post_retry_seconds(5000) == MAX_RETRY_SECONDS


def test_in_a_day_there_are_some_tens_of_tries():
    passed = tries = 0.0
    while passed < GIVE_UP_AFTER.total_seconds():
        tries += 1
        passed += post_retry_seconds(int(tries))
    assert 20 < tries < 50


def test_the_first_is_told_at_once_and_a_stream_becomes_a_few():
    assert pause_seconds(0) == 0
    told: list[float] = []
    for second in range(int(RECENT_WINDOW.total_seconds())):
        if not told or second - told[-1] >= pause_seconds(len(told)):
            told.append(second)
    assert told[0] == 0
    assert len(told) == 6
