"""How alerts read, and how often they are sent."""

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
    AlertKind.BEAT: {"seconds": 31},
    AlertKind.OLD_SNAPSHOT: {"seconds": 1900, "kind": "session", "name": "4711", "user": "etl", "application": "psql"},
    AlertKind.EVENTS: {"problem": "failing", "why": "HTTP 500", "minutes": 12},
    AlertKind.SCOPES_LOST: {"scope": "tickets", "count": 31},
    AlertKind.NOTIFICATION_QUEUE: {"percent": 31, "kind": "session", "name": "4711", "user": "etl", "application": ""},
    AlertKind.JOURNAL: {"state": "failing", "reason": "timeout"},
}


def describe(kind: AlertKind, *, recovered: bool = False, **detail: object) -> str:
    return describe_alert(Alert("id", kind, START, recovered=recovered, detail=detail or DETAILS[kind]))


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (AlertKind.PROVIDER, "does not accept our app (BAD_CLIENT_SECRET (HTTP 400))"),
        (AlertKind.REVOKED, "ended 1 connection (hub 62515)"),
        (AlertKind.STALE, "14 connections (hubs 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 4 more)"),
        (AlertKind.BRAKE, "190 are held so far"),
        (AlertKind.BEAT, "has reached a worker for 31 s. The workers sweep without it"),
        (AlertKind.OLD_SNAPSHOT, "open for 31 minutes, held by session 4711 of user etl (psql)"),
        (AlertKind.NOTIFICATION_QUEUE, "is 31 % full: a session that listens has a transaction open"),
        (AlertKind.JOURNAL, "has not been readable for five minutes (timeout)"),
    ],
)
def test_the_text_of_each_kind_says_what_happened(kind, part):
    assert part in describe(kind)


def test_an_alert_about_one_connection_names_its_command_and_is_in_the_singular():
    assert "Its token is not served any more" in (revoked := describe(AlertKind.REVOKED))
    assert revoked.endswith("tokenkeeper refresh 62515.")
    assert "tokenkeeper refresh HUB." in describe(AlertKind.REVOKED, count=2, hubs=[1, 2])
    assert "(hub 5): its token expires soon, or has expired" in describe(AlertKind.STALE, count=1, hubs=[5])


@pytest.mark.parametrize("kind", AlertKind)
def test_each_text_is_one_line_and_a_recovery_reads_differently(kind):
    started, recovered_text = describe(kind), describe(kind, recovered=True)
    assert started != recovered_text
    for text in (started, recovered_text):
        assert text.startswith("tokenkeeper: ")
        assert "\n" not in text
        assert "None" not in text


@pytest.mark.parametrize("kind", AlertKind)
@pytest.mark.parametrize("recovered", [False, True])
def test_an_alert_without_detail_has_a_text(kind, recovered):
    assert describe_alert(Alert("id", kind, START, recovered=recovered))


@pytest.mark.parametrize(
    ("detail", "text"),
    [
        ({"problem": "gone"}, "(410 Gone): none is sent. Correct EVENTS_WEBHOOK_URL"),
        ({"problem": "dropped", "count": 3, "why": "HTTP 500"}, "3 events were not accepted for three days (HTTP 500)"),
    ],
)
def test_what_became_of_events_that_the_receiver_does_not_take_is_said_with_what_to_do(detail, text):
    assert text in describe(AlertKind.EVENTS, **detail)


def test_the_end_of_a_pause_names_the_operator_who_ended_it():
    text = describe(AlertKind.PROVIDER, recovered=True, state="ok", before="throttled", resumed_by="root@<worker>")
    assert "an operator (root@&lt;worker&gt;) ended the pause of refreshes (before: throttled)" in text


def test_the_end_of_the_brake_names_the_operators_decision():
    assert describe(AlertKind.BRAKE, recovered=True, dismissed=190).endswith("is off again: 190 dismissed.")


@pytest.mark.parametrize("state", ["unavailable", "throttled", "app_rejected"])
def test_every_condition_of_hubspot_has_a_description_with_its_reason(state):
    text = describe(AlertKind.PROVIDER, state=state, reason="why")
    assert "(why)" in text
    assert "is not working normally" not in text


def test_a_reason_from_hubspot_cannot_become_a_mention_or_a_link_in_slack():
    text = describe(AlertKind.PROVIDER, state="unavailable", reason="<!channel> & <http://evil|click>")
    assert "&lt;!channel&gt; &amp; &lt;http://evil|click&gt;" in text


def test_the_waits_between_attempts_double_from_seconds_to_an_hour():
    assert [post_retry_seconds(attempts) for attempts in (1, 2, 3)] == [FIRST_RETRY_SECONDS, 4.0, 8.0]
    assert post_retry_seconds(50) == post_retry_seconds(5000) == MAX_RETRY_SECONDS


def test_an_alert_is_posted_some_tens_of_times_before_it_is_dropped():
    passed = attempts_made = 0.0
    while passed < GIVE_UP_AFTER.total_seconds():
        attempts_made += 1
        passed += post_retry_seconds(int(attempts_made))
    assert 20 < attempts_made < 50


def test_the_first_alert_is_sent_at_once_and_a_stream_is_reduced_to_six():
    assert pause_seconds(0) == 0
    sent: list[float] = []
    for second in range(int(RECENT_WINDOW.total_seconds())):
        if not sent or second - sent[-1] >= pause_seconds(len(sent)):
            sent.append(second)
    assert sent[0] == 0
    assert len(sent) == 6
