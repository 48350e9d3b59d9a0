"""Redis answers, and refuses what it is asked: no process ends, and work goes on as soon as Redis accepts it again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import psutil
import pytest
import redis

from shared.dispatch import INTERACTIVE_QUEUE, STORE_INSTALL
from tests.faults.held_refreshes import PATIENT
from tests.support.fault_deployment import FaultDeployment
from tests.support.polling import until
from tests.support.visitor import Visitor

SETTINGS = PATIENT
NEW_PASSWORD = "another-password"
FIRST_NEW_HUB = 4_000
CONNECTION_LOST = "the broker failed; the worker connects again"


@pytest.fixture
def admin(deployment: FaultDeployment) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(deployment.servers.valkey.url(), single_connection_client=True) as admin:
        admin.ping()
        yield admin


@pytest.fixture
def processes(deployment: FaultDeployment) -> Iterator[list[psutil.Process]]:
    """The product's processes with their children: the same ones must run at the end of the test."""
    running = [
        process
        for main in (psutil.Process(child.pid) for child in deployment.product.running)
        for process in (main, *main.children(recursive=True))
    ]
    yield running
    assert [process for process in running if not process.is_running()] == []


class Refusal(NamedTuple):
    refuse: Sequence[str]  #: commands after which Redis refuses work
    accept: Sequence[str]  #: commands after which it accepts work again
    why: str  #: what the worker logs
    takes_installs: bool = False  #: into a queue that no worker can read


REFUSALS = {
    "a primary that became a replica": Refusal(
        ["REPLICAOF 127.0.0.1 1"],
        ["REPLICAOF NO ONE"],
        "You can't write against a read only replica",
    ),
    "a replica without its primary": Refusal(
        ["CONFIG SET replica-serve-stale-data no", "REPLICAOF 127.0.0.1 1"],
        ["REPLICAOF NO ONE", "CONFIG SET replica-serve-stale-data yes"],
        "Link with MASTER is down",
    ),
    "a primary that lost its replicas": Refusal(
        ["CONFIG SET min-replicas-to-write 1"],
        ["CONFIG SET min-replicas-to-write 0"],
        "NOREPLICAS",
    ),
    "a user without the right to read queues": Refusal(
        ["ACL SETUSER default -brpop"],
        ["ACL SETUSER default +brpop"],
        "no permissions to run the 'brpop' command",
        takes_installs=True,
    ),
    "a changed password": Refusal(
        [f"CONFIG SET requirepass {NEW_PASSWORD}", "CLIENT KILL TYPE normal", "CLIENT KILL TYPE pubsub"],
        ["CONFIG SET requirepass {password}"],
        "invalid username-password pair",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_every_process_survives(
    deployment: FaultDeployment, admin: redis.Redis, processes: list[psutil.Process], name: str
) -> None:
    refusal, hub_id = REFUSALS[name], FIRST_NEW_HUB + list(REFUSALS).index(name)
    password = str(admin.config_get("requirepass")["requirepass"])
    worker = deployment.newest_process("worker")
    before = worker.output().count(refusal.why)
    for command in refusal.refuse:
        admin.execute_command(command)
    try:
        until(lambda: worker.output().count(refusal.why) > before)
        # An install is stored by web itself where the queue does not take it.
        assert deployment.install(hub_id).status_code == 303
        assert refusal.takes_installs or until(lambda: deployment.token(hub_id))
    finally:
        for command in refusal.accept:
            admin.execute_command(command.format(password=password))
    until(lambda: deployment.token(hub_id))
    deployment.wait_for_new_tokens(deployment.make_due())
    assert deployment.install(hub_id).status_code == 303
    deployment.check_recovered()
    assert "Traceback" not in worker.output()
    assert processes


def test_installs_in_the_queue_of_a_redis_without_memory_are_stored(
    deployment: FaultDeployment, admin: redis.Redis, processes: list[psutil.Process]
) -> None:
    """Redis gives messages away, and refuses to keep a copy of those in work or to be told of a new connection."""
    old = {hub_id: deployment.token(hub_id) for hub_id in deployment.hubs[:4]}
    worker = psutil.Process(deployment.newest_process("worker").pid)
    worker.suspend()
    for hub_id in old:
        assert deployment.install(hub_id).status_code == 303
    admin.config_set("maxmemory", 1)
    admin.execute_command("CLIENT KILL TYPE normal")
    worker.resume()

    def count_stored() -> int:
        return sum(deployment.token(hub_id) not in {None, token} for hub_id, token in old.items())

    try:
        # The message that was on its way when the connection ended goes back once Redis takes one again.
        until(lambda: count_stored() >= len(old) - 1)
        assert deployment.install(FIRST_NEW_HUB + 11).status_code == 303
        until(lambda: deployment.token(FIRST_NEW_HUB + 11))
    finally:
        admin.config_set("maxmemory", 0)
    until(lambda: count_stored() == len(old))
    deployment.check_recovered()
    assert processes


def test_an_install_is_stored_though_redis_evicts_every_key_for_another_program(
    deployment: FaultDeployment, admin: redis.Redis, processes: list[psutil.Process]
) -> None:
    """`allkeys-lru`: queues, their registration and the messages in work disappear. The browser has the grant, too."""
    worker = psutil.Process(deployment.newest_process("worker").pid)
    hub_id = FIRST_NEW_HUB + 12
    worker.suspend()
    try:
        with Visitor(deployment.url, deployment.simulator) as visitor:
            page = visitor.install(hub_id)
            evict_all(admin)
            worker.resume()
            visitor.wait(page)
        deployment.wait_for_new_tokens(deployment.make_due())
    finally:
        worker.resume()
        admin.config_set("maxmemory", 0)
        admin.config_set("maxmemory-policy", "noeviction")
        admin.delete("of-another-program")
    deployment.check_recovered()
    assert processes


def test_a_redis_that_closes_idle_connections_costs_nothing(
    deployment: FaultDeployment, admin: redis.Redis, processes: list[psutil.Process]
) -> None:
    """As `timeout` does, and Azure after ten minutes."""
    hub_id = FIRST_NEW_HUB + 13
    admin.config_set("timeout", 1)
    try:
        time.sleep(2.5)  # web has not used its connection for so long
        assert deployment.install(hub_id).status_code == 303
        until(lambda: deployment.token(hub_id))
        deployment.check_recovered()
    finally:
        with redis.Redis.from_url(deployment.servers.valkey.url()) as again:
            again.config_set("timeout", 0)
    assert processes


def evict_all(admin: redis.Redis) -> None:
    admin.config_set("maxmemory-policy", "allkeys-lru")
    used = int(admin.info("memory")["used_memory"])
    admin.config_set("maxmemory", used + 500_000)
    with suppress(redis.exceptions.OutOfMemoryError):
        admin.set("of-another-program", bytes(2_000_000))
        admin.set("of-another-program", bytes(2_000_000))
    until(lambda: not admin.exists(INTERACTIVE_QUEUE))


def test_a_worker_whose_acknowledgements_redis_refuses_takes_further_messages(
    deployment: FaultDeployment, admin: redis.Redis, processes: list[psutil.Process]
) -> None:
    worker = deployment.newest_process("worker")
    # Without the right, a worker that has messages to give back cannot connect.
    until(lambda: not admin.exists("unacked"))
    stored, installs = count_stored_installs(deployment), 12
    admin.execute_command("ACL SETUSER default -zrem")
    try:
        for hub_id in deployment.hubs[:installs]:
            assert deployment.install(hub_id).status_code == 303
        until(lambda: count_stored_installs(deployment) == stored + installs)
        until(lambda: worker.output().count("Redis does not take an acknowledgement") >= installs)
    finally:
        admin.execute_command("ACL SETUSER default +zrem")
        admin.delete("unacked", "unacked_index")  # other tests look for messages in work
    deployment.check_recovered()
    assert "Traceback" not in worker.output()
    assert processes


def test_a_worker_with_an_unacknowledged_install_survives_the_end_of_redis(
    deployment: FaultDeployment, admin: redis.Redis, processes: list[psutil.Process]
) -> None:
    """One install waits for PostgreSQL in a pool process while the other one's main process waits for messages."""
    hub_id = deployment.hubs[0]
    stored = count_stored_installs(deployment)
    worker = deployment.newest_process("worker")
    losses = worker.output().count(CONNECTION_LOST)
    with deployment.servers.freeze_postgres():
        assert deployment.install(hub_id).status_code == 303
        until(lambda: any(STORE_INSTALL.encode() in message for message in admin.hvals("unacked")))  # not only a sweep
        deployment.servers.kill_valkey()
        until(lambda: worker.output().count(CONNECTION_LOST) > losses)
        deployment.servers.valkey.start()
    until(lambda: count_stored_installs(deployment) > stored)
    deployment.check_recovered()
    assert processes


def test_an_install_that_no_pool_process_has_yet_survives_the_end_of_redis(
    deployment: FaultDeployment, admin: redis.Redis, processes: list[psutil.Process]
) -> None:
    """Redis has given it away and starts again without data: the worker's main process has the only copy."""
    worker, beat = (psutil.Process(deployment.newest_process(name).pid) for name in ("worker", "beat"))
    output = deployment.newest_process("worker").output
    losses = output().count(CONNECTION_LOST)
    beat.suspend()  # its messages would be taken first
    try:
        stored = until(lambda: suspend_with_an_install_in_its_socket(worker, deployment, admin))
        deployment.servers.kill_valkey()
    finally:
        worker.resume()
        beat.resume()
    until(lambda: output().count(CONNECTION_LOST) > losses)
    deployment.servers.valkey.start()
    until(lambda: count_stored_installs(deployment) > stored)
    deployment.check_recovered()
    assert processes


def suspend_with_an_install_in_its_socket(
    worker: psutil.Process, deployment: FaultDeployment, admin: redis.Redis
) -> int | None:
    """The number of installs stored before. None, and the worker runs, where it did not wait at the queue just then."""
    stored = count_stored_installs(deployment)
    worker.suspend()
    assert deployment.install(deployment.hubs[0]).status_code == 303
    if not admin.llen(INTERACTIVE_QUEUE):
        return stored
    worker.resume()
    until(lambda: count_stored_installs(deployment) > stored)
    return None


def count_stored_installs(deployment: FaultDeployment) -> int:
    return int(deployment.sql.value("SELECT count(*) FROM tokenkeeper.installs"))
