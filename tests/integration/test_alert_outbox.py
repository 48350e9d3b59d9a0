"""Alerts on their way to a real receiver: signed, once at a time, in order, until they are taken or too old."""

from __future__ import annotations

import json
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import structlog
from sqlalchemy import Engine

from shared import logs
from shared.db.alerts.outbox import Outbox
from shared.db.alerts.raising import raise_alert
from shared.db.core.engine import make_engine
from shared.db.core.statements import Database
from shared.domain.alerts import Alert, AlertKind
from tests.support.builders import START
from tests.support.raw_http_server import drips, http, resets, sends, serving, stays_silent
from tests.support.stores import SqlFixture, at_once
from tests.support.webhook_receiver import SECRET_PATH, Receiver, receiving, well_signed
from worker.alert_delivery import deliver_alerts
from worker.webhook import Webhook, WebhookRejected

SECRET = "the-secret-that-signs"
DOWN: dict[str, Any] = {"state": "unavailable", "before": "ok", "reason": "timeout"}


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    with ExitStack() as open_ones:
        yield lambda *answers: open_ones.enter_context(receiving(*answers))


def webhook(there: Receiver, seconds: float = 5.0, secret: str = SECRET) -> Webhook:
    return Webhook(there.url, secret, seconds)


@pytest.fixture
def outbox(engine: Engine) -> Outbox:
    return Outbox(engine)


@pytest.fixture
def raised(engine: Engine) -> Callable[..., None]:
    def put(kind: AlertKind = AlertKind.PROVIDER, detail: dict[str, Any] = DOWN, **but: Any) -> None:
        with Database(engine).transaction() as connection:
            raise_alert(connection, kind, detail=detail, **but)

    return put


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What people would read of it."""
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, structlog.processors.KeyValueRenderer()],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "urllib3")  # as shared/logs.py has it
    yield caplog
    structlog.reset_defaults()


def overdue(sql: SqlFixture) -> None:
    """As after the wait for the next try."""
    sql.rows("UPDATE tokenkeeper.alerts SET due_at = now() WHERE due_at IS NOT NULL")


def state(sql: SqlFixture) -> list[tuple[Any, ...]]:
    return sql.rows(
        "SELECT attempts, due_at IS NOT NULL, delivered_at IS NOT NULL FROM tokenkeeper.alerts ORDER BY number"
    )


def test_an_alert_arrives_as_json_that_slack_shows_with_a_signature_that_holds(outbox, raised, receiver, sql):
    there = receiver()
    raised()
    deliver_alerts(outbox, webhook(there))
    ((headers, body),) = there.posts()
    assert headers[""] == f"POST {SECRET_PATH} HTTP/1.1"
    assert headers["content-type"] == "application/json"
    told = json.loads(body)
    assert told["text"].startswith("tokenkeeper: HubSpot does not answer (timeout)")
    assert (told["kind"], told["recovered"], told["detail"]) == ("provider", False, DOWN)
    assert told["id"] == headers["x-tokenkeeper-id"] == str(sql.value("SELECT id FROM tokenkeeper.alerts"))
    assert abs(int(headers["x-tokenkeeper-timestamp"]) - sql.now().timestamp()) < 30
    assert well_signed(SECRET, headers, body)
    assert not well_signed("another", headers, body)
    assert state(sql) == [(1, False, True)]


def test_without_a_secret_nothing_is_signed(outbox, raised, receiver):
    there = receiver()
    raised()
    deliver_alerts(outbox, webhook(there, secret=""))
    assert "x-tokenkeeper-signature" not in there.posts()[0][0]


def test_it_is_tried_until_it_is_taken_under_the_same_id_and_then_no_more(outbox, raised, receiver, sql):
    there = receiver(*[sends(http(500), stay=False)] * 3)
    hook = webhook(there)
    raised()
    for _ in range(6):
        deliver_alerts(outbox, hook)
        overdue(sql)
    assert len(there.told()) == 4
    assert len({told["id"] for told in there.told()}) == 1
    assert len({told["text"] for told in there.told()}) == 1
    assert state(sql) == [(4, False, True)]


def test_before_it_is_due_again_it_is_left_alone(outbox, raised, receiver, sql):
    there = receiver(sends(http(503), stay=False))
    raised()
    for _ in range(3):
        deliver_alerts(outbox, webhook(there))
    assert state(sql) == [(1, True, False)]
    assert 1 < sql.value("SELECT extract(epoch FROM due_at - now()) FROM tokenkeeper.alerts") < 2.1


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (stays_silent, "no answer in time"),
        (drips(b"HTTP/1.1 200 So\r\n", b"X: y\r\n"), "no answer in time"),
        (resets, "no connection, or it broke"),
        (sends(b"rubbish\r\n\r\n", stay=False), "no connection, or it broke"),
        (sends(http(404), stay=False), "HTTP 404"),
        (sends(http(302, b"", "Location: http://127.0.0.1:1/elsewhere"), stay=False), "HTTP 302"),
        (sends(http(307, b"", "Location: /again"), stay=False), "HTTP 307"),
    ],
    ids=["silent", "drips", "resets", "rubbish", "404", "302", "307"],
)
def test_whatever_is_not_a_2xx_is_tried_again(  # noqa: PLR0917  fixtures, all by name
    outbox, raised, receiver, sql, log, trouble, words
):
    there = receiver(trouble)
    raised()
    deliver_alerts(outbox, webhook(there, seconds=0.5))
    assert len(there.server.requests) == 1, "no redirect is followed"
    assert words in log.text
    assert state(sql) == [(1, True, False)]


def test_nobody_there_is_tried_again(outbox, raised, sql):
    raised()
    deliver_alerts(outbox, Webhook("http://127.0.0.1:1/hook", SECRET))
    assert state(sql) == [(1, True, False)]


def alert() -> Alert:
    return Alert("3f6c1a52", AlertKind.BRAKE, START)


def test_it_is_posted_over_tls(tls: ssl.SSLContext):
    with serving(sends(http(204), stay=False), tls) as server:
        Webhook(f"{server.url}/hook", SECRET).post(alert(), START)
        assert len(server.requests) == 1


def test_a_receiver_that_nobody_vouches_for_is_told_nothing(untrusted: ssl.SSLContext):
    with serving(sends(http(204), stay=False), untrusted) as server:
        with pytest.raises(WebhookRejected):
            Webhook(f"{server.url}/hook", SECRET).post(alert(), START)
        assert server.requests == []


def test_an_endless_answer_is_not_read(outbox, raised, receiver, sql):
    def endless(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 So\r\nContent-Length: 10000000000\r\n\r\n")
        for _turn in range(20_000):
            connection.sendall(b"x" * 65_536)
        return False

    there = receiver(endless)
    raised()
    deliver_alerts(outbox, webhook(there))
    assert state(sql) == [(1, False, True)]
    assert there.server.hung_up.wait(5)


def test_who_asks_to_be_left_alone_is(outbox, raised, receiver, sql):
    there = receiver(sends(http(429, b"", "Retry-After: 90"), stay=False))
    raised()
    deliver_alerts(outbox, webhook(there))
    assert 85 < sql.value("SELECT extract(epoch FROM due_at - now()) FROM tokenkeeper.alerts") < 91


def test_after_a_day_it_is_given_up_with_a_word_in_the_log(outbox, raised, receiver, sql, log):
    there = receiver(*[sends(http(500), stay=False)] * 9)
    raised()
    sql.rows("UPDATE tokenkeeper.alerts SET at = at - interval '23 hours'")
    deliver_alerts(outbox, webhook(there))
    assert "gave up" not in log.text
    sql.rows("UPDATE tokenkeeper.alerts SET at = at - interval '1 hour', due_at = now()")
    deliver_alerts(outbox, webhook(there))
    assert "it is not posted any more" in log.text
    assert state(sql) == [(2, False, False)]


def test_the_end_of_a_trouble_is_not_told_before_its_beginning(outbox, raised, receiver, sql):
    there = receiver(sends(http(500), stay=False))
    hook = webhook(there)
    raised()
    deliver_alerts(outbox, hook)
    raised(recovered=True)
    raised(AlertKind.REVOKED, {"count": 1, "hubs": [7]})
    deliver_alerts(outbox, hook)
    kinds = [(told["kind"], told["recovered"]) for told in there.told()]
    assert kinds[0] == ("provider", False)
    assert sorted(kinds[1:]) == [("connection_revoked", False), ("provider", False), ("provider", True)]
    assert kinds.index(("provider", True)) > kinds.index(("provider", False), 1)


def test_news_does_not_wait_behind_an_hours_pause(outbox, raised, receiver, sql):
    there = receiver(sends(http(500), stay=False))
    raised()
    deliver_alerts(outbox, webhook(there))
    sql.rows("UPDATE tokenkeeper.alerts SET due_at = now() + interval '1 hour'")
    raised(recovered=True)
    deliver_alerts(outbox, webhook(there))
    assert [told["recovered"] for told in there.told()] == [False, False, True]


def test_when_too_many_wait_the_newest_stands_for_all_of_them(outbox, raised, receiver, sql):
    there = receiver(sends(http(500), stay=False))
    for number in range(15):
        raised(recovered=bool(number % 2))
        raised(AlertKind.REVOKED, {"count": 1, "hubs": [number]})
    for _ in range(3):
        deliver_alerts(outbox, webhook(there))
        overdue(sql)
    said = [told for told in there.told() if told["kind"] == "provider"]
    assert len({told["id"] for told in said}) == 1
    assert "14 changes before it" in said[-1]["text"]
    hubs = {told["detail"]["hubs"][0] for told in there.told() if told["kind"] == "connection_revoked"}
    assert hubs == set(range(15)), "revocations are other connections each"


def test_a_state_that_changes_all_night_is_posted_now_and_then(outbox, raised, receiver, sql):
    there = receiver()
    for _ in range(40):
        raised()
        deliver_alerts(outbox, webhook(there))
    assert len(there.told()) == 12
    sql.rows("UPDATE tokenkeeper.alerts SET delivered_at = delivered_at - interval '6 minutes'")
    for _ in range(3):
        deliver_alerts(outbox, webhook(there))
    assert len(there.told()) == 13
    assert "changes before it" in there.told()[-1]["text"]


def test_workers_at_once_post_nothing_twice(engine, raised, receiver, sql):
    there = receiver()
    for number in range(8):
        raised(detail={**DOWN, "reason": f"number {number}"})
    at_once([lambda: deliver_alerts(Outbox(engine), webhook(there))] * 6)
    deliver_alerts(Outbox(engine), webhook(there))
    reasons = [told["detail"]["reason"] for told in there.told()]
    assert reasons == [f"number {number}" for number in range(8)]


def test_what_a_killed_worker_was_posting_is_posted_when_its_lease_ends(outbox, raised, receiver, sql):
    there = receiver()
    raised()
    assert outbox.claim() is not None
    deliver_alerts(outbox, webhook(there))
    assert there.told() == []
    sql.rows("UPDATE tokenkeeper.alerts SET lease_until = now() - interval '1 second'")
    deliver_alerts(outbox, webhook(there))
    assert len(there.told()) == 1


def test_one_who_comes_back_late_does_not_undo_what_another_did(outbox, raised, receiver, sql):
    raised()
    late = outbox.claim()
    sql.rows("UPDATE tokenkeeper.alerts SET lease_until = now() - interval '1 second'")
    deliver_alerts(outbox, webhook(receiver()))
    assert outbox.schedule_retry(late.alert, 2.0)
    assert state(sql) == [(2, False, True)]


def test_without_a_webhook_it_is_logged_once_and_kept(outbox, raised, sql, log):
    raised()
    raised(recovered=True)
    for _ in range(3):
        deliver_alerts(outbox, None)
    assert log.text.count("HubSpot does not answer") == 1
    assert log.text.count("HubSpot answers again") == 1
    assert [record.levelname for record in log.records if "event='alert'" in record.message] == ["WARNING", "INFO"]
    assert state(sql) == [(0, False, False)] * 2


def test_two_at_once_log_it_once(engine, raised, log):
    for _ in range(5):
        raised()
    at_once([lambda: deliver_alerts(Outbox(engine), None)] * 4)
    assert log.text.count("HubSpot does not answer") == 5


def test_no_secret_reaches_the_webhook_and_the_webhooks_own_reaches_no_log(outbox, raised, receiver, log):
    there = receiver(sends(http(500), stay=False), resets)
    token = "na1-0123-4567-refresh-token-of-a-hub"
    raised(detail={"state": "unavailable", "before": "ok", "reason": f"refresh_token={token}"})
    raised(AlertKind.BRAKE, {"held": 3, "deep": [{"why": f"Bearer {token}"}]})
    for _ in range(3):
        deliver_alerts(outbox, webhook(there))
    said = b"".join(body for _, body in there.posts())
    assert token.encode() not in said
    assert SECRET.encode() not in said
    assert SECRET_PATH not in log.text
    assert SECRET not in log.text


def test_what_is_old_and_done_with_goes_but_for_the_newest_of_its_kind(outbox, raised, sql):
    for _ in range(3):
        raised()
    raised(AlertKind.STALE, {"count": 1, "hubs": [7]})
    deliver_alerts(outbox, None)
    sql.rows("UPDATE tokenkeeper.alerts SET at = at - interval '31 days'")
    raised()
    deliver_alerts(outbox, None)
    assert sql.value("SELECT count(*) FROM tokenkeeper.alerts WHERE kind = 'provider'") == 1
    assert sql.value("SELECT count(*) FROM tokenkeeper.alerts WHERE kind = 'stale_connections'") == 1


def test_a_postgres_that_does_not_answer_is_one_line(log):
    gone = make_engine("postgresql://nobody@127.0.0.1:1/nothing")
    deliver_alerts(Outbox(gone), None)
    gone.dispose()
    assert "the next sweep delivers the alerts" in log.text


def test_a_secret_that_settings_know_is_blotted_out(outbox, raised, receiver):
    logs._secrets = ("a-client-secret",)
    try:
        there = receiver()
        raised(detail={**DOWN, "reason": "it said a-client-secret"})
        deliver_alerts(outbox, webhook(there))
    finally:
        logs._secrets = ()
    assert b"a-client-secret" not in there.posts()[0][1]
