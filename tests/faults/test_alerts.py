"""Alerts of a whole product at work: what somebody with a phone is sent, and what the log keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox.simulator.control import SimulatorControl
from tests.support.deployment import Deployment
from tests.support.fault_deployment import SHORT_TIMEOUTS
from tests.support.polling import until
from tests.support.product import Product
from tests.support.raw_http_server import http, resets, sends
from tests.support.stores import SqlFixture
from tests.support.webhook_receiver import SECRET_PATH, Receiver, receiving, well_signed

SECRET = "the-secret-that-signs"
HUBS = range(1_000, 1_012)
DOOMED = list(HUBS)[:8]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Does not take the first two posts."""
    with receiving(sends(http(500), stay=False), resets) as made:
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
    made = Deployment(new_product(environment(**SHORT_TIMEOUTS, **webhook)), simulator, SqlFixture(connect()))
    tokens = simulator.install_many(len(HUBS), HUBS[0])
    lines = "".join(f"{hub_id},{token}\n" for hub_id, token in tokens.items())
    told = made.product.tokenkeeper("import", "-", stdin=f"hub_id,refresh_token\n{lines}")
    assert told.returncode == 0, told.stderr
    made.start(workers=2, beats=2)
    until(lambda: len(made.tokens()) == len(HUBS))
    return made


def read_alerts(receiver: Receiver) -> list[tuple[str, bool]]:
    """Each once, however often it was tried, in the order in which they first came."""
    return list({post["id"]: (post["kind"], post["recovered"]) for post in receiver.read_alerts()}.values())


def due(deployment: Deployment, hubs: list[int]) -> None:
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
    due(deployment, list(HUBS))
    until(lambda: read_alerts(receiver) == [("provider", False)])
    until(lambda: are_delivered(deployment, 1))
    assert len(receiver.read_alerts()) == 3, "twice it was not taken"
    deployment.simulator.clear_faults()
    deployment.sql.rows(
        "UPDATE tokenkeeper.provider SET bucket_level = 1"
    )  # as ten seconds later: the next probe may go
    until(lambda: are_delivered(deployment, 2))
    assert read_alerts(receiver) == [("provider", False), ("provider", True)]

    until(lambda: deployment.sql.value("SELECT bool_and(failures = 0) FROM tokenkeeper.connections"))
    for hub_id in DOOMED:
        deployment.simulator.uninstall(hub_id)
    due(deployment, DOOMED)
    until(lambda: _hubs(receiver, recovered=False) == len(DOOMED))
    for hub_id in DOOMED[:2]:
        deployment.connect(hub_id)
    until(lambda: _hubs(receiver, recovered=True) == 2)

    until(lambda: deployment.sql.value("SELECT count(*) = 0 FROM tokenkeeper.alerts WHERE due_at IS NOT NULL"))
    counted = Counter(read_alerts(receiver))
    assert counted["connection_revoked", False] <= 2
    assert counted["connection_revoked", True] <= 2
    assert all(well_signed(SECRET, headers, body) for headers, body in receiver.posts())
    _the_log_holds_each_once_and_no_secret(deployment, receiver)


def _hubs(receiver: Receiver, *, recovered: bool) -> int:
    """How many connections were told of as revoked, or as back."""
    posts = {post["id"]: post for post in receiver.read_alerts()}.values()
    wanted = [post for post in posts if (post["kind"], post["recovered"]) == ("connection_revoked", recovered)]
    return sum(int(post["detail"]["count"]) for post in wanted)


def _the_log_holds_each_once_and_no_secret(deployment: Deployment, receiver: Receiver) -> None:
    logged = "".join(running.output() for running in deployment.product.running)
    lines = [line for line in logged.splitlines() if "worker.alert_delivery" in line and "recovered=" in line]
    for alert in {post["id"] for post in receiver.read_alerts()}:
        assert sum(alert in line for line in lines) == 1
    assert SECRET not in logged
    assert SECRET_PATH not in logged
    sent = b"".join(body for _, body in receiver.posts()).decode()
    secrets = [value for name, value in deployment.product.environment.items() if "SECRET" in name or "KEYS" in name]
    assert not any(secret in sent for secret in (*secrets, *deployment.tokens().values()))
