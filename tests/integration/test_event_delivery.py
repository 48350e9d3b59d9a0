"""Events to our own product, sent to a real receiver: in order, at least once, and bounded in what they keep."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from shared.db.core.statements import single_statement
from shared.db.events.delivery import Batch, EventDelivery
from shared.db.events.delivery_sql import BATCH_EVENTS, LOCK
from shared.domain.events import FAILURES_BEFORE_PAUSE, BatchResult, ChainOutcome
from tests.support.raw_http_server import Answer, replies, resets
from tests.support.stores import SqlFixture, at_once
from tests.support.webhook_receiver import TAKEN, Receiver, receiving, well_signed
from worker.delivery.events import EventSender
from worker.delivery.webhook import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
INSERT = "INSERT INTO tokenkeeper.history (hub_id, event, status, detail) VALUES (%s, %s, %s, %s)"
INSERT_MANY = """
INSERT INTO tokenkeeper.history (hub_id, event, status, at)
SELECT n, 'revoked', 'revoked', now() - CAST(%s AS interval) FROM generate_series(1, %s) AS n
"""
END_WAITS = """
UPDATE tokenkeeper.event_delivery SET paused_until = NULL;
UPDATE tokenkeeper.event_retries SET due_at = now()
"""
NO_WAIT = f"{END_WAITS}; UPDATE tokenkeeper.event_delivery SET rate = 50"
READ_PAUSE = "SELECT paused_until, rate FROM tokenkeeper.event_delivery"
#: What tests add to the wait before an event is posted again, and to a pause: a busy machine would reach their ends.
ADDED_WAIT = timedelta(hours=1)
LENGTHEN_WAITS = (
    single_statement("UPDATE tokenkeeper.event_retries SET due_at = due_at + :added WHERE due_at > now()"),
    single_statement("UPDATE tokenkeeper.event_delivery SET paused_until = paused_until + :added"),
)
ALERTS = "SELECT detail ->> 'problem', recovered FROM tokenkeeper.alerts WHERE kind = 'events_webhook' ORDER BY number"
REFUSED = replies(422)


class PatientDelivery(EventDelivery):
    """Its waits and pauses are over when a test says so."""

    def finish(self, batch: Batch, outcomes: Sequence[ChainOutcome]) -> BatchResult | None:
        result = super().finish(batch, outcomes)
        for statement in LENGTHEN_WAITS:
            self._database.execute(statement, added=ADDED_WAIT)
        return result


@pytest.fixture
def delivery(engine: Engine) -> EventDelivery:
    made = PatientDelivery(engine)
    made.enable(is_enabled=True)
    return made


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    with ExitStack() as stack:
        yield lambda *answers: stack.enter_context(receiving(*answers))


@pytest.fixture
def happen(sql: SqlFixture) -> Callable[..., None]:
    """Lines of the history, one transaction each."""

    def happen(*hub_ids: int, event: str = "recovered", status: str | None = None) -> None:
        for hub_id in hub_ids:
            sql.rows(INSERT, hub_id, event, status, json.dumps({"hub": hub_id}))

    return happen


def send(delivery: EventDelivery, there: Receiver) -> None:
    """A busy machine may take seconds for an answer, and the lease of a batch is longer."""
    EventSender(delivery, Webhook(there.url, (SECRET,), timeout_seconds=15.0, max_idle_connections=10)).run()


def read_events(there: Receiver) -> list[dict[str, Any]]:
    return [json.loads(body)["data"] for _, body in there.posts()]


def read_hubs(there: Receiver) -> list[int]:
    return [event["hub_id"] for event in read_events(there)]


def refusing(hub_id: int, answer: Answer = REFUSED) -> Answer:
    """Refuses the events of one hub."""
    return lambda connection, request: (answer if f'"hub_id":{hub_id},'.encode() in request else TAKEN)(
        connection, request
    )


def forever(answer: Answer) -> list[Answer]:
    return [answer] * 10_000


def test_a_process_whose_lease_another_one_has_taken_says_that_events_may_arrive_twice(delivery, happen, receiver, sql):
    def take_over(connection: socket.socket, request: bytes) -> object:
        sql.rows("UPDATE tokenkeeper.event_delivery SET lease_number = lease_number + 1")
        return TAKEN(connection, request)

    there = receiver(take_over)
    happen(1)
    with capture_logs() as log:
        send(delivery, there)
    assert [line["event"] for line in log] == ["another process has taken over the events; some may arrive twice"]
    assert read_hubs(there) == [1]


def test_an_event_arrives_signed_with_all_that_the_history_says(delivery, happen, receiver, sql):
    there = receiver()
    sql.rows(
        """INSERT INTO tokenkeeper.history (hub_id, app, user_id, customer, event, status, detail)
           VALUES (7, 'crm', 41, 'acme', 'installed', 'active', '{"was": "revoked"}')"""
    )
    send(delivery, there)
    ((headers, body),) = there.posts()
    ((line_id, at),) = sql.rows("SELECT id, at FROM hubspot.history")
    assert json.loads(body) == {
        "type": "connection.installed",
        "timestamp": at.isoformat(),
        "data": {
            "id": line_id,
            "hub_id": 7,
            "app": "crm",
            "user_id": 41,
            "customer": "acme",
            "status": "active",
            "detail": {"was": "revoked"},
        },
    }
    assert well_signed(SECRET, headers, body)
    assert headers["webhook-id"].startswith(f"evt_{line_id}_")
    assert abs(int(headers["webhook-timestamp"]) - sql.now().timestamp()) < 30
    assert not delivery.any_to_send()


def test_a_receiver_gets_what_happens_after_it_was_set_and_each_event_once(engine, happen, receiver):
    happen(1, 2)
    there = receiver()
    delivery = EventDelivery(engine)
    assert not delivery.any_to_send()
    delivery.enable(is_enabled=True)
    happen(3, 4)
    delivery.enable(is_enabled=True)
    for _ in range(2):
        send(delivery, there)
    assert sorted(read_hubs(there)) == [3, 4]


def test_events_of_a_connection_arrive_in_order_while_those_of_another_are_refused(delivery, happen, receiver, sql):
    there = receiver(*forever(refusing(5)))
    for _ in range(4):
        happen(5, 6, 7)
    for _ in range(3):
        send(delivery, there)
        sql.rows(NO_WAIT)
        happen(5, 6)
    ids = {hub_id: [each["id"] for each in read_events(there) if each["hub_id"] == hub_id] for hub_id in (5, 6, 7)}
    assert (len(ids[6]), len(ids[7])) == (6, 4)
    assert ids[6] == sorted(ids[6])
    assert ids[7] == sorted(ids[7])
    assert len(set(ids[5])) == 1, "later events of a connection wait behind the one that is refused"
    assert sql.value("SELECT count(*) FROM tokenkeeper.event_retries") == 1

    accepting = receiver()
    for _ in range(3):
        send(delivery, accepting)
    assert [each["hub_id"] for each in read_events(accepting)].count(5) == 7
    of_five = [each["id"] for each in read_events(accepting) if each["hub_id"] == 5]
    assert of_five == sorted(of_five)
    assert sql.value("SELECT count(*) FROM tokenkeeper.event_retries") == 0


def test_connections_of_one_hub_wait_each_for_itself(delivery, receiver, sql):
    there = receiver(REFUSED)
    for user_id in (1, 2, None):
        sql.rows("INSERT INTO tokenkeeper.history (hub_id, user_id, event) VALUES (7, %s, 'recovered')", user_id)
    send(delivery, there)
    assert len(there.posts()) == 3
    assert sql.value("SELECT count(*) FROM tokenkeeper.event_retries") == 1


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (replies(429, b"", "Retry-After: 90"), (80, 91)),
        (replies(503), (3, 6)),
        (replies(502), (3, 6)),
        (resets, (3, 6)),
    ],
    ids=["429", "503", "502", "resets"],
)
def test_an_answer_about_the_receiver_pauses_all_events_and_slows_them_down(  # noqa: PLR0917  fixtures, all by name
    delivery, happen, receiver, sql, answer, seconds
):
    there = receiver(answer)
    happen(*range(1, 31))
    began_at = sql.now()
    send(delivery, there)
    ended_at = sql.now()
    assert len(there.posts()) <= 10, "those in flight at most"
    ((paused_until, rate),) = sql.rows(READ_PAUSE)
    shortest, longest = (timedelta(seconds=each) + ADDED_WAIT for each in seconds)
    assert began_at + shortest < paused_until < ended_at + longest
    assert rate == 25
    assert not delivery.any_to_send()
    sql.rows(END_WAITS)
    send(delivery, there)
    hubs = read_hubs(there)
    assert set(hubs) == set(range(1, 31))
    assert sql.value("SELECT rate FROM tokenkeeper.event_delivery") == 50


def test_a_receiver_that_is_down_adds_few_rows_and_is_asked_with_growing_pauses(delivery, receiver, sql):
    """The case of a million revocations: what waits is in the history already."""
    there = receiver(*forever(replies(503)))
    sql.rows(INSERT_MANY, "0 seconds", 200)
    pauses = []
    for _ in range(12):
        send(delivery, there)
        ((paused_until, _),) = sql.rows(READ_PAUSE)
        pauses.append((paused_until - ADDED_WAIT - sql.now()).total_seconds())
        sql.rows(NO_WAIT)
    assert sql.value("SELECT count(*) FROM tokenkeeper.event_retries") <= 2 * BATCH_EVENTS
    assert len(there.posts()) <= 12 * 10
    assert pauses[0] < 6
    assert 250 < pauses[-1] < 301
    accepting = receiver()
    sql.rows(NO_WAIT)
    send(delivery, accepting)
    assert len(accepting.posts()) > BATCH_EVENTS, "one that works makes all that waited due at once"
    assert sql.value("SELECT count(*) FROM tokenkeeper.event_retries WHERE due_at > now()") == 0


def test_a_receiver_that_refuses_every_event_gets_probes_alone(delivery, receiver, sql):
    there = receiver(*forever(replies(401)))
    sql.rows(INSERT_MANY, "0 seconds", 300)
    send(delivery, there)
    sql.rows(NO_WAIT)
    before = len(there.posts())
    send(delivery, there)
    assert len(there.posts()) == before + 1
    assert sql.value("SELECT count(*) FROM tokenkeeper.event_retries") == BATCH_EVENTS >= FAILURES_BEFORE_PAUSE


def test_a_receiver_that_wants_no_more_gets_none_until_an_operator_resumes(delivery, happen, receiver, sql):
    there = receiver(replies(410))
    happen(1)
    send(delivery, there)
    sql.rows(NO_WAIT)
    happen(2)
    assert not delivery.any_to_send()
    send(delivery, there)
    assert len(there.posts()) == 1
    assert sql.rows(ALERTS) == [("gone", False)]
    assert delivery.resume()
    send(delivery, there)
    assert sorted(read_hubs(there)[1:]) == [1, 2]
    assert sql.rows(ALERTS) == [("gone", False), ("gone", True)]


def test_after_three_days_events_are_dropped_with_an_alert_and_the_newer_ones_go_on(delivery, happen, receiver, sql):
    refused = receiver(REFUSED)
    happen(99_999)
    send(delivery, refused)
    sql.rows(INSERT_MANY, "73 hours", 25_000)
    sql.rows("UPDATE tokenkeeper.history SET at = at - interval '73 hours' WHERE hub_id = 99999")
    happen(2)
    sql.rows(NO_WAIT)
    there = receiver()
    send(delivery, there)
    assert read_hubs(there) == [2]
    assert sql.value("SELECT dropped FROM tokenkeeper.event_delivery") == 25_001
    assert sql.value("SELECT count(*) FROM tokenkeeper.event_retries") == 0
    assert sql.rows(ALERTS)[0] == ("dropped", False)


def test_a_receiver_that_fails_for_ten_minutes_raises_an_alert_and_its_recovery_another(
    delivery, happen, receiver, sql
):
    there = receiver(*[replies(500)] * 2)
    happen(1)
    for _ in range(2):
        send(delivery, there)
        sql.rows("UPDATE tokenkeeper.event_delivery SET failing_since = failing_since - interval '11 minutes'")
        sql.rows(NO_WAIT)
    assert sql.rows(ALERTS) == [("failing", False)]
    send(delivery, there)
    assert sql.rows(ALERTS) == [("failing", False), ("failing", True)]


def test_a_replay_sends_the_events_again_in_order_also_those_that_are_old(delivery, happen, receiver, sql):
    there = receiver()
    happen(1, 1, 1)
    send(delivery, there)
    first = there.posts()
    sql.rows("UPDATE tokenkeeper.history SET at = at - interval '30 days'")
    (first_id,) = sql.rows("SELECT min(id) FROM hubspot.history")[0]
    assert delivery.replay(first_id) == 2
    send(delivery, there)
    assert [event["id"] for event in read_events(there)[3:]] == [event["id"] for event in read_events(there)[1:3]]
    assert len(first) == 3


def test_a_replay_while_events_are_in_flight_is_not_undone_by_them(delivery, happen, receiver, sql):
    there = receiver()
    happen(1, 2)
    send(delivery, there)
    happen(3)
    batch = delivery.claim()
    assert delivery.replay(0) == 2
    assert delivery.finish(batch, []) is None
    send(delivery, there)
    assert sorted(read_hubs(there)) == [1, 1, 2, 2, 3]


def test_the_events_of_a_killed_worker_are_sent_when_its_lease_ends(delivery, happen, receiver, sql):
    there = receiver()
    happen(1, 2)
    assert delivery.claim() is not None
    assert not delivery.any_to_send()
    send(delivery, there)
    assert there.posts() == []
    sql.rows("UPDATE tokenkeeper.event_delivery SET lease_until = now() - interval '1 second'")
    send(delivery, there)
    assert sorted(read_hubs(there)) == [1, 2]


def test_of_many_workers_one_sends_at_a_time(engine, delivery, happen, receiver):
    there = receiver()
    happen(*[1, 2] * 20)
    at_once([lambda: send(EventDelivery(engine), there)] * 5)
    send(delivery, there)
    ids = [event["id"] for event in read_events(there)]
    assert len(ids) == len(set(ids)) == 40


def test_a_worker_whose_transaction_began_before_another_took_the_lease_does_not_send_too(
    delivery, happen, sql, connect
):
    happen(1)
    session = SqlFixture(connect())
    session.rows("BEGIN")
    assert delivery.claim() is not None
    assert session.rows(str(LOCK)) == []
    session.rows("ROLLBACK")
    sql.rows("UPDATE tokenkeeper.event_delivery SET lease_until = now() + interval '1 hour'")
    assert delivery.claim() is not None, "a date of a clock that was ahead"


def test_at_most_fifty_events_a_second_are_sent(delivery, receiver, sql):
    """By the times at which the receiver got them; the limit is one of the sender's, so it holds on a busy machine."""
    arrivals: list[float] = []
    there = receiver(*forever(_note(arrivals)))
    sql.rows(INSERT_MANY, "0 seconds", 60)
    send(delivery, there)
    assert len(arrivals) == 60
    assert max(arrivals) - min(arrivals) > 59 / 50 * 0.8


def _note(arrivals: list[float]) -> Answer:
    def answer(connection: Any, request: bytes) -> object:
        arrivals.append(monotonic())
        return TAKEN(connection, request)

    return answer


def test_no_token_reaches_the_receiver(
    delivery,
    receiver,
    sql,
):
    there = receiver()
    token = "na1-0123-4567-refresh-token-of-a-hub"
    sql.rows(INSERT, 1, "refresh_failed", None, json.dumps({"why": [f"refresh_token={token}"]}))
    send(delivery, there)
    assert token.encode() not in there.posts()[0][1]


def test_disabled_events_are_not_looked_for(delivery: EventDelivery, happen: Callable[..., None]) -> None:
    delivery.enable(is_enabled=False)
    happen(1)
    assert not delivery.any_to_send()
    assert delivery.claim() is None
