"""Delivery of alerts to a real receiver: signed, in order, by one worker at a time, until accepted or too old."""

from __future__ import annotations

import json
import logging
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
import structlog
from sqlalchemy import Engine

from shared import logs
from shared.db.alerts.outbox import CLAIM, Outbox
from shared.db.alerts.raising import raise_alert
from shared.db.core.statements import Database
from shared.domain.alerts import Alert, AlertKind
from tests.support.builders import START
from tests.support.log_capture import LogCapture, capturing_log
from tests.support.polling import until
from tests.support.raw_http_server import drips, replies, resets, sends, serving, stays_silent
from tests.support.stores import SqlFixture, at_once
from tests.support.webhook_receiver import SECRET_PATH, Receiver, receiving, well_signed
from worker.delivery.alerts import deliver_alerts
from worker.delivery.webhook import Webhook, WebhookRejected

SECRET, OTHER_SECRET = (f"whsec_{b64encode(letter * 32).decode()}" for letter in (b"s", b"o"))
#: Of a post that is answered. A busy machine may take seconds for it, and the lease of an alert is longer.
POST_SECONDS = 20.0
#: What tests add to the wait for the next attempt: a busy machine would reach it within the same call.
ADDED_WAIT_SECONDS = 600
DOWN: dict[str, Any] = {"state": "unavailable", "before": "ok", "reason": "timeout"}


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    with ExitStack() as stack:
        yield lambda *answers: stack.enter_context(receiving(*answers))


def webhook(there: Receiver, seconds: float = POST_SECONDS, secrets: Sequence[str] = (SECRET,)) -> Webhook:
    return Webhook(there.url, secrets, seconds)


class PatientOutbox(Outbox):
    """Its alerts are due again when a test says so."""

    waits: list[float]  #: seconds, as they were asked for

    def schedule_retry(self, alert: Alert, wait_seconds: float) -> bool:
        self.waits.append(wait_seconds)
        return super().schedule_retry(alert, wait_seconds + ADDED_WAIT_SECONDS)


@pytest.fixture
def outbox(engine: Engine) -> PatientOutbox:
    made = PatientOutbox(engine)
    made.waits = []
    return made


@pytest.fixture
def raise_new_alert(engine: Engine) -> Callable[..., None]:
    def raise_one(kind: AlertKind = AlertKind.PROVIDER, detail: dict[str, Any] = DOWN, **but: Any) -> None:
        with Database(engine).transaction() as connection:
            raise_alert(connection, kind, detail=detail, **but)

    return raise_one


@pytest.fixture
def log() -> Iterator[LogCapture]:
    """The log in its text format."""
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, structlog.processors.KeyValueRenderer()],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    urllib3_log = logging.getLogger("urllib3")
    urllib3_log.setLevel(logging.INFO)  # as in shared/logs.py
    with capturing_log() as capture:
        yield capture
    urllib3_log.setLevel(logging.NOTSET)


def make_due(sql: SqlFixture) -> None:
    """As if the wait for the next attempt were over."""
    sql.rows("UPDATE tokenkeeper.alerts SET due_at = now() WHERE due_at IS NOT NULL")


def read_delivery(sql: SqlFixture) -> list[tuple[Any, ...]]:
    return sql.rows(
        "SELECT attempts, due_at IS NOT NULL, delivered_at IS NOT NULL FROM tokenkeeper.alerts ORDER BY number"
    )


def test_an_alert_arrives_as_json_that_slack_shows_with_a_valid_signature(outbox, raise_new_alert, receiver, sql):
    there = receiver()
    raise_new_alert()
    deliver_alerts(outbox, webhook(there))
    ((headers, body),) = there.posts()
    assert headers[""] == f"POST {SECRET_PATH} HTTP/1.1"
    assert headers["content-type"] == "application/json"
    message = json.loads(body)
    assert message["text"].startswith("tokenkeeper: HubSpot does not answer (timeout)")
    assert (message["kind"], message["recovered"], message["detail"]) == ("provider", False, DOWN)
    assert message["id"] == headers["webhook-id"] == str(sql.value("SELECT id FROM tokenkeeper.alerts"))
    assert abs(int(headers["webhook-timestamp"]) - sql.now().timestamp()) < 30
    assert well_signed(SECRET, headers, body)
    assert not well_signed(OTHER_SECRET, headers, body)
    assert read_delivery(sql) == [(1, False, True)]


def test_without_a_secret_an_alert_is_not_signed(outbox, raise_new_alert, receiver):
    there = receiver()
    raise_new_alert()
    deliver_alerts(outbox, webhook(there, secrets=()))
    assert "webhook-signature" not in there.posts()[0][0]


def test_while_a_secret_is_replaced_an_alert_has_a_signature_by_each(outbox, raise_new_alert, receiver):
    there = receiver()
    raise_new_alert()
    deliver_alerts(outbox, webhook(there, secrets=(OTHER_SECRET, SECRET)))
    ((headers, body),) = there.posts()
    assert well_signed(SECRET, headers, body)
    assert well_signed(OTHER_SECRET, headers, body)


def test_an_alert_is_posted_under_the_same_id_until_it_is_accepted_and_then_no_more(
    outbox, raise_new_alert, receiver, sql
):
    there = receiver(*[replies(500)] * 3)
    hook = webhook(there)
    raise_new_alert()
    for _ in range(6):
        deliver_alerts(outbox, hook)
        make_due(sql)
    assert len(there.read_alerts()) == 4
    assert len({alert["id"] for alert in there.read_alerts()}) == 1
    assert len({alert["text"] for alert in there.read_alerts()}) == 1
    assert read_delivery(sql) == [(4, False, True)]


def test_an_alert_is_not_posted_again_before_it_is_due(outbox, raise_new_alert, receiver, sql):
    there = receiver(replies(503))
    raise_new_alert()
    began_at = sql.now()
    deliver_alerts(outbox, webhook(there))
    ended_at = sql.now()
    for _ in range(2):
        deliver_alerts(outbox, webhook(there))
    assert read_delivery(sql) == [(1, True, False)]
    assert outbox.waits == [2.0]
    waited = timedelta(seconds=2.0 + ADDED_WAIT_SECONDS)
    assert began_at + waited < sql.value("SELECT due_at FROM tokenkeeper.alerts") < ended_at + waited


TOO_LATE = "no answer in time"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (stays_silent, TOO_LATE),
        (drips(b"HTTP/1.1 200 So\r\n", b"X: y\r\n"), TOO_LATE),
        (resets, "no connection, or it broke"),
        (sends(b"rubbish\r\n\r\n", stay=False), "no connection, or it broke"),
        (replies(404), "HTTP 404"),
        (replies(302, b"", "Location: http://127.0.0.1:1/elsewhere"), "HTTP 302"),
        (replies(307, b"", "Location: /again"), "HTTP 307"),
    ],
    ids=["silent", "drips", "resets", "rubbish", "404", "302", "307"],
)
def test_an_answer_other_than_2xx_is_retried(  # noqa: PLR0917  fixtures, all by name
    outbox, raise_new_alert, receiver, sql, log, answer, words
):
    there = receiver(answer)
    raise_new_alert()
    deliver_alerts(outbox, webhook(there, seconds=0.5 if words == TOO_LATE else POST_SECONDS))
    until(lambda: there.server.requests)  # the receiver may read one after the time limit
    assert len(there.server.requests) == 1, "no redirect is followed"
    assert words in log.text
    assert read_delivery(sql) == [(1, True, False)]


def test_a_refused_connection_is_retried(outbox, raise_new_alert, sql):
    raise_new_alert()
    deliver_alerts(outbox, Webhook("http://127.0.0.1:1/hook", (SECRET,)))
    assert read_delivery(sql) == [(1, True, False)]


def test_an_alert_is_posted_over_tls(tls: ssl.SSLContext):
    with serving(replies(204), tls) as server:
        Webhook(f"{server.url}/hook", (SECRET,)).post("an-id", b"{}", START)
        assert len(server.requests) == 1


def test_a_receiver_with_an_untrusted_certificate_gets_no_alert(self_signed_tls: ssl.SSLContext):
    with serving(replies(204), self_signed_tls) as server:
        with pytest.raises(WebhookRejected):
            Webhook(f"{server.url}/hook", (SECRET,)).post("an-id", b"{}", START)
        assert server.requests == []


def test_an_endless_answer_is_not_read(outbox, raise_new_alert, receiver, sql):
    def endless(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 So\r\nContent-Length: 10000000000\r\n\r\n")
        for _turn in range(20_000):
            connection.sendall(b"x" * 65_536)
        return False

    there = receiver(endless)
    raise_new_alert()
    deliver_alerts(outbox, webhook(there))
    assert read_delivery(sql) == [(1, False, True)]
    assert there.server.hung_up.wait(30)


def test_a_retry_after_is_obeyed(outbox, raise_new_alert, receiver, sql):
    there = receiver(replies(429, b"", "Retry-After: 90"))
    raise_new_alert()
    deliver_alerts(outbox, webhook(there))
    assert outbox.waits == [90.0]
    due_in_seconds = sql.value("SELECT extract(epoch FROM due_at - now()) FROM tokenkeeper.alerts")
    assert 60 < due_in_seconds - ADDED_WAIT_SECONDS < 91


def test_after_a_day_an_alert_is_given_up_and_that_is_logged(outbox, raise_new_alert, receiver, sql, log):
    there = receiver(*[replies(500)] * 9)
    raise_new_alert()
    sql.rows("UPDATE tokenkeeper.alerts SET at = at - interval '23 hours'")
    deliver_alerts(outbox, webhook(there))
    assert "gave up" not in log.text
    sql.rows("UPDATE tokenkeeper.alerts SET at = at - interval '1 hour', due_at = now()")
    deliver_alerts(outbox, webhook(there))
    assert "it is not posted any more" in log.text
    assert read_delivery(sql) == [(2, False, False)]


def test_a_recovery_is_not_posted_before_the_problem(outbox, raise_new_alert, receiver, sql):
    there = receiver(replies(500))
    hook = webhook(there)
    raise_new_alert()
    deliver_alerts(outbox, hook)
    raise_new_alert(recovered=True)
    raise_new_alert(AlertKind.REVOKED, {"count": 1, "hubs": [7]})
    deliver_alerts(outbox, hook)
    kinds = [(alert["kind"], alert["recovered"]) for alert in there.read_alerts()]
    assert kinds[0] == ("provider", False)
    assert sorted(kinds[1:]) == [("connection_revoked", False), ("provider", False), ("provider", True)]
    assert kinds.index(("provider", True)) > kinds.index(("provider", False), 1)


def test_a_new_alert_does_not_wait_behind_an_hours_retry_wait(outbox, raise_new_alert, receiver, sql):
    there = receiver(replies(500))
    raise_new_alert()
    deliver_alerts(outbox, webhook(there))
    sql.rows("UPDATE tokenkeeper.alerts SET due_at = now() + interval '1 hour'")
    raise_new_alert(recovered=True)
    deliver_alerts(outbox, webhook(there))
    assert [alert["recovered"] for alert in there.read_alerts()] == [False, False, True]


def test_when_too_many_alerts_wait_the_newest_summarizes_all_of_them(outbox, raise_new_alert, receiver, sql):
    there = receiver(replies(500))
    for number in range(15):
        raise_new_alert(recovered=bool(number % 2))
        raise_new_alert(AlertKind.REVOKED, {"count": 1, "hubs": [number]})
    for _ in range(3):
        deliver_alerts(outbox, webhook(there))
        make_due(sql)
    posted = [alert for alert in there.read_alerts() if alert["kind"] == "provider"]
    assert len({alert["id"] for alert in posted}) == 1
    assert "14 changes before it" in posted[-1]["text"]
    hubs = {alert["detail"]["hubs"][0] for alert in there.read_alerts() if alert["kind"] == "connection_revoked"}
    assert hubs == set(range(15)), "each revocation alert is about another connection"


def test_alerts_about_a_state_that_changes_all_night_are_limited_to_twelve_an_hour(
    outbox, raise_new_alert, receiver, sql
):
    there = receiver()
    for _ in range(40):
        raise_new_alert()
        deliver_alerts(outbox, webhook(there))
    assert len(there.read_alerts()) == 12
    sql.rows("UPDATE tokenkeeper.alerts SET delivered_at = delivered_at - interval '6 minutes'")
    for _ in range(3):
        deliver_alerts(outbox, webhook(there))
    assert len(there.read_alerts()) == 13
    assert "changes before it" in there.read_alerts()[-1]["text"]


def test_concurrent_workers_post_no_alert_twice_and_keep_the_order(engine, raise_new_alert, receiver, sql):
    there = receiver()
    for number in range(8):
        raise_new_alert(detail={**DOWN, "reason": f"number {number}"})
    at_once([lambda: deliver_alerts(Outbox(engine), webhook(there))] * 6)
    deliver_alerts(Outbox(engine), webhook(there))
    reasons = [alert["detail"]["reason"] for alert in there.read_alerts()]
    assert reasons == [f"number {number}" for number in range(8)]


def test_an_alert_claimed_by_a_killed_worker_is_posted_when_its_lease_ends(outbox, raise_new_alert, receiver, sql):
    there = receiver()
    raise_new_alert()
    assert outbox.claim() is not None
    deliver_alerts(outbox, webhook(there))
    assert there.read_alerts() == []
    sql.rows("UPDATE tokenkeeper.alerts SET lease_until = now() - interval '1 second'")
    deliver_alerts(outbox, webhook(there))
    assert len(there.read_alerts()) == 1


def test_a_worker_whose_statement_began_before_another_claimed_the_alert_does_not_post_it_too(
    outbox, raise_new_alert, connect
):
    raise_new_alert()
    session = SqlFixture(connect())
    session.rows("BEGIN")
    assert outbox.claim() is not None
    assert session.rows(str(CLAIM)) == []
    session.rows("ROLLBACK")


def test_a_worker_that_reports_after_its_lease_does_not_undo_a_delivery(outbox, raise_new_alert, receiver, sql):
    raise_new_alert()
    late = outbox.claim()
    sql.rows("UPDATE tokenkeeper.alerts SET lease_until = now() - interval '1 second'")
    deliver_alerts(outbox, webhook(receiver()))
    assert outbox.schedule_retry(late.alert, 2.0)
    assert read_delivery(sql) == [(2, False, True)]


def test_without_a_webhook_an_alert_is_logged_once_and_kept(outbox, raise_new_alert, sql, log):
    raise_new_alert()
    raise_new_alert(recovered=True)
    for _ in range(3):
        deliver_alerts(outbox, None)
    assert log.text.count("HubSpot does not answer") == 1
    assert log.text.count("HubSpot answers again") == 1
    assert [record.levelname for record in log.records if "event='alert'" in record.message] == ["WARNING", "INFO"]
    assert read_delivery(sql) == [(0, False, False)] * 2


def test_concurrent_workers_log_each_alert_once(engine, raise_new_alert, log):
    for _ in range(5):
        raise_new_alert()
    at_once([lambda: deliver_alerts(Outbox(engine), None)] * 4)
    assert log.text.count("HubSpot does not answer") == 5


def test_no_secret_reaches_the_webhook_and_the_webhooks_own_secrets_reach_no_log(
    outbox, raise_new_alert, receiver, log
):
    there = receiver(replies(500), resets)
    token = "na1-0123-4567-refresh-token-of-a-hub"
    raise_new_alert(detail={"state": "unavailable", "before": "ok", "reason": f"refresh_token={token}"})
    raise_new_alert(AlertKind.BRAKE, {"held": 3, "deep": [{"why": f"Bearer {token}"}]})
    for _ in range(3):
        deliver_alerts(outbox, webhook(there))
    posted = b"".join(body for _, body in there.posts())
    assert token.encode() not in posted
    assert SECRET.encode() not in posted
    assert SECRET_PATH not in log.text
    assert SECRET not in log.text


def test_old_delivered_alerts_are_pruned_except_the_newest_of_each_kind(outbox, raise_new_alert, sql):
    for _ in range(3):
        raise_new_alert()
    raise_new_alert(AlertKind.STALE, {"count": 1, "hubs": [7]})
    deliver_alerts(outbox, None)
    sql.rows("UPDATE tokenkeeper.alerts SET at = at - interval '31 days'")
    raise_new_alert()
    deliver_alerts(outbox, None)
    assert sql.value("SELECT count(*) FROM tokenkeeper.alerts WHERE kind = 'provider'") == 1
    assert sql.value("SELECT count(*) FROM tokenkeeper.alerts WHERE kind = 'stale_connections'") == 1


def test_a_secret_from_the_settings_is_redacted_in_an_alert(outbox, raise_new_alert, receiver):
    logs._secrets = ("a-client-secret",)
    try:
        there = receiver()
        raise_new_alert(detail={**DOWN, "reason": "it said a-client-secret"})
        deliver_alerts(outbox, webhook(there))
    finally:
        logs._secrets = ()
    assert b"a-client-secret" not in there.posts()[0][1]
