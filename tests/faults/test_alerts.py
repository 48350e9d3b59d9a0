"""Alerts of a running product: what the webhook receives, and what the log contains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox.simulator.control import SimulatorControl
from tests.faults.held_refreshes import PATIENT
from tests.support.deployment import Deployment
from tests.support.polling import until
from tests.support.product import Product
from tests.support.raw_http_server import replies, resets
from tests.support.stores import SqlFixture
from tests.support.webhook_receiver import SECRET_PATH, Receiver, receiving, well_signed

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HUBS = range(1_000, 1_012)
UNINSTALLED = list(HUBS)[:8]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Refuses the first two posts."""
    with receiving(replies(500), resets) as made:
        yield made


@pytest.fixture
def deployment(
    environment: Callable[..., dict[str, str]],
    new_product: Callable[[dict[str, str]], Product],
    simulator: SimulatorControl,
    connect: Callable[..., Any],
    receiver: Receiver,
) -> Deployment:
    """Two workers and two beats, a dozen connections with a token each."""
    webhook = {"ALERT_WEBHOOK_URL": receiver.url, "ALERT_WEBHOOK_SECRET": SECRET, "LOG_LEVEL": "debug"}
    made = Deployment(
        new_product(environment(SWEEP_SECONDS="0.5", **PATIENT, **webhook)), simulator, SqlFixture(connect())
    )
    made.import_accounts(len(HUBS), HUBS[0])
    made.start(workers=2, beats=2)
    until(lambda: len(made.tokens()) == len(HUBS))
    return made


def read_alerts(receiver: Receiver) -> list[tuple[str, bool]]:
    """Kind and recovery of each alert once, in the order in which they first arrived."""
    return list({post["id"]: (post["kind"], post["recovered"]) for post in receiver.read_alerts()}.values())


def make_due(deployment: Deployment, hubs: list[int]) -> None:
    deployment.sql.rows("UPDATE tokenkeeper.connections SET due_at = now() WHERE hub_id = ANY(%s)", hubs)


def are_delivered(deployment: Deployment, count: int) -> bool:
    return bool(
        deployment.sql.value("SELECT count(*) FROM tokenkeeper.alerts WHERE delivered_at IS NOT NULL") >= count
        and deployment.sql.value("SELECT count(*) FROM tokenkeeper.alerts WHERE due_at IS NOT NULL") == 0
    )


def test_an_outage_and_revocations_and_their_ends_are_each_posted_once(
    deployment: Deployment, receiver: Receiver
) -> None:
    deployment.simulator.add_fault(503, where="token")
    make_due(deployment, list(HUBS))
    until(lambda: read_alerts(receiver) == [("provider", False)])
    until(lambda: are_delivered(deployment, 1))
    assert len(receiver.read_alerts()) == 3, "two posts were refused"
    deployment.simulator.clear_faults()
    deployment.sql.rows(
        "UPDATE tokenkeeper.provider SET bucket_level = 1"
    )  # as ten seconds later: the next probe may go
    until(lambda: are_delivered(deployment, 2))
    assert read_alerts(receiver) == [("provider", False), ("provider", True)]

    until(lambda: deployment.sql.value("SELECT bool_and(failures = 0) FROM tokenkeeper.connections"))
    for hub_id in UNINSTALLED:
        deployment.simulator.uninstall(hub_id)
    make_due(deployment, UNINSTALLED)
    until(lambda: _count_hubs(receiver, recovered=False) == len(UNINSTALLED))
    for hub_id in UNINSTALLED[:2]:
        deployment.connect(hub_id)
    until(lambda: _count_hubs(receiver, recovered=True) == 2)

    until(lambda: deployment.sql.value("SELECT count(*) = 0 FROM tokenkeeper.alerts WHERE due_at IS NOT NULL"))
    counts = Counter(read_alerts(receiver))
    assert counts["connection_revoked", False] <= 2
    assert counts["connection_revoked", True] <= 2
    assert all(well_signed(SECRET, headers, body) for headers, body in receiver.posts())
    _check_log(deployment, receiver)


def _count_hubs(receiver: Receiver, *, recovered: bool) -> int:
    """The number of connections in the alerts about revocations, or about recoveries."""
    posts = {post["id"]: post for post in receiver.read_alerts()}.values()
    matching = [post for post in posts if (post["kind"], post["recovered"]) == ("connection_revoked", recovered)]
    return sum(int(post["detail"]["count"]) for post in matching)


def _check_log(deployment: Deployment, receiver: Receiver) -> None:
    def read_log() -> str:
        return "".join(running.output() for running in deployment.product.running)

    def count_lines(alert: str) -> int:
        lines = [line for line in read_log().splitlines() if "worker.delivery.alerts" in line and "recovered=" in line]
        return sum(alert in line for line in lines)

    alerts = {post["id"] for post in receiver.read_alerts()}
    until(lambda: all(count_lines(alert) for alert in alerts))  # the worker logs an alert after the receiver's answer
    assert [alert for alert in alerts if count_lines(alert) != 1] == []
    log = read_log()
    assert SECRET not in log
    assert SECRET_PATH not in log
    sent = b"".join(body for _, body in receiver.posts()).decode()
    secrets = [value for name, value in deployment.product.environment.items() if "SECRET" in name or "KEYS" in name]
    assert not any(secret in sent for secret in (*secrets, *deployment.tokens().values()))
