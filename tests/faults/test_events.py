"""Events of a running product, while its workers, its broker and its receiver fail: none is lost, none out of order."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox.simulator.control import SimulatorControl
from tests.support.deployment import Deployment
from tests.support.fault_deployment import SHORT_TIMEOUTS
from tests.support.polling import until
from tests.support.product import Product
from tests.support.raw_http_server import Answer, replies, resets
from tests.support.stores import SqlFixture
from tests.support.webhook_receiver import TAKEN, Receiver, receiving, well_signed

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HUBS = range(1_000, 1_012)
UNINSTALLED = list(HUBS)[:6]
#: As half a minute later.
END_LEASE = "UPDATE tokenkeeper.event_delivery SET lease_until = NULL"
#: As if the waits were over: the receiver's pause, and those of refused events.
END_WAITS = """
UPDATE tokenkeeper.event_delivery SET paused_until = NULL WHERE paused_until IS NOT NULL;
UPDATE tokenkeeper.event_retries SET due_at = now() WHERE due_at > now()
"""
IS_ALL_ACCEPTED = """
SELECT cursor_id = (SELECT max(id) FROM tokenkeeper.history) AND NOT EXISTS (SELECT FROM tokenkeeper.event_retries)
  FROM tokenkeeper.event_delivery
"""


def slowly(answer: Answer) -> Answer:
    def wait_and_answer(connection: Any, request: bytes) -> object:
        time.sleep(0.2)
        return answer(connection, request)

    return wait_and_answer


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Refuses some posts, is slow for a while, then accepts all."""
    failures = [replies(500), resets, replies(503)]
    with receiving(*failures, *[slowly(TAKEN)] * 30) as made:
        yield made


@pytest.fixture
def deployment(
    environment: Callable[..., dict[str, str]],
    new_product: Callable[[dict[str, str]], Product],
    simulator: SimulatorControl,
    connect: Callable[..., Any],
    receiver: Receiver,
) -> Deployment:
    """Two workers and a beat that were there before the first connection."""
    events = {"EVENTS_WEBHOOK_URL": receiver.url, "EVENTS_WEBHOOK_SECRET": SECRET, "LOG_LEVEL": "debug"}
    made = Deployment(new_product(environment(**SHORT_TIMEOUTS, **events)), simulator, SqlFixture(connect()))
    made.start(workers=2, web=False)
    until(lambda: made.sql.value("SELECT is_enabled FROM tokenkeeper.event_delivery"))
    made.import_accounts(len(HUBS), HUBS[0])
    return made


def test_events_arrive_in_order_and_none_is_lost_while_a_worker_is_killed_and_the_receiver_fails(
    deployment: Deployment, receiver: Receiver
) -> None:
    until(lambda: len(deployment.tokens()) == len(HUBS))
    scopes = deployment.product.environment["HUBSPOT_SCOPES"].split()
    assert deployment.sql.rows("SELECT app, required_scopes FROM tokenkeeper.apps") == [("default", scopes)]
    until(receiver.posts)
    deployment.processes_named("worker")[0].kill()
    deployment.sql.rows(END_LEASE)
    for hub_id in UNINSTALLED:
        deployment.simulator.uninstall(hub_id)
    deployment.make_due(*UNINSTALLED)
    until(lambda: all(deployment.status(hub_id) == "revoked" for hub_id in UNINSTALLED))

    def is_all_accepted() -> bool:
        deployment.sql.rows(END_WAITS)
        return bool(deployment.sql.value(IS_ALL_ACCEPTED))

    until(is_all_accepted, 60)
    happened = deployment.sql.rows("SELECT id, hub_id, event FROM hubspot.history ORDER BY id")
    arrived = {(event["id"], event["hub_id"]) for event in read_events(receiver)}
    assert arrived == {(line_id, hub_id) for line_id, hub_id, _ in happened}
    assert {event for _, _, event in happened} >= {"imported", "suspected", "revoked"}
    check_order(receiver)
    assert all(well_signed(SECRET, headers, body) for headers, body in receiver.posts())
    log = "".join(running.output() for running in deployment.product.running)
    assert SECRET not in log
    assert receiver.url not in log


def read_events(receiver: Receiver) -> list[dict[str, Any]]:
    return [json.loads(body)["data"] for _, body in receiver.posts()]


def check_order(receiver: Receiver) -> None:
    """An event that was refused, or whose worker died, is posted again; none comes before an earlier one of its hub."""
    newest: dict[int, int] = defaultdict(int)
    first_posts = list({event["id"]: event for event in read_events(receiver)}.values())
    for event in first_posts:
        assert event["id"] > newest[event["hub_id"]]
        newest[event["hub_id"]] = event["id"]
