"""An uninstall in HubSpot is noticed by the journal, long before the next refresh, whatever is killed on the way."""

from __future__ import annotations

import json
import select
import signal
from collections.abc import Callable, Iterator

import psycopg2
import psycopg2.extensions
import pytest

from sandbox.child_processes import ChildProcess
from shared.domain.brake import MAX_REVOKED_PERCENT, MIN_REVOCATIONS
from tests.support.fault_deployment import FaultDeployment, start_fault_deployment
from tests.support.polling import until
from tests.support.product import has_printed
from tests.support.webhook_receiver import Receiver, receiving, well_signed

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SETTINGS = {"JOURNAL_SECONDS": "0.5", "EVENTS_WEBHOOK_SECRET": SECRET}
#: As HubSpot's: no refresh is due by itself while these tests run.
TOKEN_LIFETIME_SECONDS = 1800
ALERTS = "SELECT count(*) FROM tokenkeeper.alerts WHERE kind = 'revocation_brake'"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """Of events to our own product."""
    with receiving() as made:
        yield made


@pytest.fixture(scope="module")
def started_deployment(
    simulator_process: ChildProcess, tmp_path_factory: pytest.TempPathFactory, receiver: Receiver
) -> Iterator[FaultDeployment]:
    settings = {**SETTINGS, "EVENTS_WEBHOOK_URL": receiver.url}
    with start_fault_deployment(tmp_path_factory.mktemp("product"), simulator_process.url, settings) as deployment:
        deployment.start()
        yield deployment


@pytest.fixture(autouse=True)
def long_lives(deployment: FaultDeployment) -> None:
    deployment.simulator.change_settings(lifetime=TOKEN_LIFETIME_SECONDS)
    until(lambda: len(deployment.simulator.list_subscriptions()) == 2)
    deployment.wait_for_new_tokens(deployment.make_due(*deployment.tokens()))


class Listener:
    """A session that listens to changes of status."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url)
        self._connection.set_isolation_level(psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT)
        with self._connection.cursor() as cursor:
            cursor.execute("LISTEN hubspot_connections")

    def read_events(self, hub_id: int) -> list[str]:
        while select.select([self._connection], [], [], 1.0)[0]:
            self._connection.poll()
        payloads = [json.loads(notify.payload) for notify in self._connection.notifies]
        return [payload["event"] for payload in payloads if payload["hub_id"] == hub_id]

    def close(self) -> None:
        self._connection.close()


def read_events(receiver: Receiver, hub_id: int) -> list[str]:
    """Their types, each once, in the order of their arrival. Every one is signed."""
    assert all(well_signed(SECRET, headers, body) for headers, body in receiver.posts())
    posts = [json.loads(body) for _, body in receiver.posts()]
    return list(dict.fromkeys(post["type"] for post in posts if post["data"]["hub_id"] == hub_id))


def kill_worker(deployment: FaultDeployment) -> None:
    deployment.newest_process("worker").send_signal(signal.SIGKILL)
    deployment.product.worker(wait=False).wait_until(has_printed(" ready."))


def restart_redis(deployment: FaultDeployment) -> None:
    deployment.servers.kill_valkey()
    deployment.servers.valkey.start()


def crash_postgres(deployment: FaultDeployment) -> None:
    deployment.servers.crash_postgres()
    deployment.servers.postgres.start()


def test_an_uninstall_in_hubspot_is_revoked_in_sql_heard_by_listen_and_posted_whatever_is_killed_on_the_way(
    deployment: FaultDeployment, receiver: Receiver
) -> None:
    listener = Listener(deployment.database_url)
    breaks: list[Callable[[FaultDeployment], object]] = [lambda _: None, kill_worker, restart_redis, crash_postgres]
    uninstalled = deployment.hubs[: len(breaks)]
    for hub_id, break_something in zip(uninstalled, breaks, strict=True):
        deployment.simulator.uninstall(hub_id, keep_access_tokens=True)
        break_something(deployment)
        until(lambda hub_id=hub_id: deployment.status(hub_id) == "revoked", 60)
        assert deployment.sql.events(hub_id)[-3:] == ["suspected", "refresh_failed", "revoked"]
        if break_something is not crash_postgres:
            until(lambda hub_id=hub_id: len(listener.read_events(hub_id)) >= 2)
            assert listener.read_events(hub_id) == ["suspected", "revoked"]
        until(lambda hub_id=hub_id: "connection.revoked" in read_events(receiver, hub_id), 60)
        assert read_events(receiver, hub_id)[-3:] == [
            *("connection.suspected", "connection.refresh_failed", "connection.revoked"),
        ]
    listener.close()
    assert deployment.count_events("suspected") == len(uninstalled), "of no other connection"
    deployment.check_recovered(except_for=uninstalled)


def test_of_hundreds_of_uninstalls_at_once_the_brake_holds_most_and_no_account_is_lost(
    deployment: FaultDeployment,
) -> None:
    count = "SELECT count(*) FROM tokenkeeper.connections WHERE "
    ended = int(deployment.sql.value(count + "status = 'revoked'"))
    deployment.import_connections(300, first=5_000)
    until(lambda: len(deployment.tokens()) == len(deployment.hubs) - ended, 90)
    active = int(deployment.sql.value(count + "status = 'active'"))
    deployment.simulator.uninstall(keep_access_tokens=True)
    limit = max(MIN_REVOCATIONS, active * MAX_REVOKED_PERCENT // 100)
    decided = count + "pending_revocation IS NOT NULL OR status = 'revoked'"
    until(lambda: int(deployment.sql.value(decided)) == ended + active, 90)
    assert deployment.sql.value(count + "pending_revocation IS NOT NULL") >= active - limit
    assert deployment.sql.value(count + "status = 'active'") == 0
    assert deployment.sql.value(count + "status = 'revoked'") - ended <= limit
    served = deployment.sql.value(count + "status = 'suspect'")
    assert len(deployment.tokens()) == served, "they are served while their tokens live"
    assert deployment.sql.value(ALERTS) == 1
