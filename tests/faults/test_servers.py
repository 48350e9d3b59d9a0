"""PostgreSQL and Redis stop, restart or hang while HubSpot rotates refresh tokens."""

from __future__ import annotations

import time
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
import requests

from tests.faults.held_refreshes import PATIENT, end_leases_in, holding_refreshes
from tests.support.fault_deployment import FaultDeployment
from tests.support.polling import until
from tests.support.product import has_printed
from tests.support.tcp_proxy import TcpProxy

SETTINGS = PATIENT
#: What is left of a lease where a test waits for its end.
LEASE_SECONDS = 7
#: In the worker's log: it has answers of HubSpot, or calls in flight, and cannot save.
LOOP_FAILURE = "PostgreSQL does not answer, trying again"


@pytest.fixture(autouse=True)
def rotation(deployment: FaultDeployment) -> None:
    """HubSpot revokes a refresh token as soon as it is used: an answer that is not saved ends the connection."""
    deployment.simulator.change_settings(rotation=0)


def test_every_answer_of_hubspot_is_saved_after_a_restart_of_postgres(deployment: FaultDeployment) -> None:
    calls, worker = deployment.count_refreshes(), deployment.newest_process("worker")
    with holding_refreshes(deployment) as before:
        deployment.servers.postgres.stop()
    until(lambda: deployment.count_calls_in_flight() == 0)
    failures = worker.output().count(LOOP_FAILURE)
    until(lambda: worker.output().count(LOOP_FAILURE) > failures)
    deployment.servers.postgres.start()
    deployment.wait_for_new_tokens(before)
    assert deployment.count_refreshes() == calls + len(before), "an answer was lost, and HubSpot was asked again"
    deployment.check_recovered()


def test_every_connection_recovers_after_a_crash_of_postgres(deployment: FaultDeployment) -> None:
    with holding_refreshes(deployment, at_least=3) as before:
        deployment.servers.crash_postgres()
    deployment.servers.postgres.start()
    deployment.wait_for_new_tokens(before)
    deployment.check_recovered()


def test_every_connection_recovers_after_repeated_terminations_of_sessions_in_postgres(
    deployment: FaultDeployment,
) -> None:
    deployment.simulator.change_settings(latency=0.1)
    terminated, deadline = 0, time.monotonic() + 2
    while time.monotonic() < deadline:
        before = deployment.make_due()
        terminated += deployment.terminate_sessions()
        time.sleep(0.1)
    assert terminated > 0
    deployment.wait_for_new_tokens(before)
    deployment.check_recovered()


def test_every_connection_recovers_after_postgres_is_frozen_for_longer_than_a_lease(
    deployment: FaultDeployment,
) -> None:
    """A worker claims the rows again before HubSpot's answer is saved: the rotated refresh token is stored.

    Until then refresh and introspection both reject the old one. A connection revoked by that becomes active again.
    """
    with ExitStack() as stack:
        with holding_refreshes(deployment) as before:
            end_leases_in(deployment, LEASE_SECONDS)
            stack.enter_context(deployment.servers.freeze_postgres())
        response = requests.get(f"{deployment.url}/readyz", timeout=60)
        assert (response.status_code, response.json()["postgres"]) == (503, "no answer")
        time.sleep(LEASE_SECONDS + 1)
    deployment.wait_for_new_tokens(before)
    first_watcher = deployment.watcher
    with deployment.new_watcher() as deployment.watcher:  # which has not seen a connection that was revoked meanwhile
        deployment.check_recovered()
    assert first_watcher.found_no_refused_token(), first_watcher.refused[:5]
    for hub_id in tuple(first_watcher.ended_hub_ids):
        assert deployment.sql.events(hub_id)[-1] == "recovered"


def test_every_connection_recovers_after_redis_restarts_empty(deployment: FaultDeployment) -> None:
    before = deployment.make_due()
    deployment.servers.kill_valkey()
    time.sleep(1)
    deployment.servers.valkey.start()
    deployment.wait_for_new_tokens(before)
    deployment.check_recovered()


def test_every_connection_recovers_after_repeated_flushes_of_redis(deployment: FaultDeployment) -> None:
    for _ in range(5):
        before = deployment.make_due()
        deployment.servers.flush()
        time.sleep(0.2)
    deployment.wait_for_new_tokens(before)
    deployment.check_recovered()


def test_every_connection_recovers_after_redis_is_frozen(deployment: FaultDeployment) -> None:
    with deployment.servers.freeze_valkey():
        before = deployment.make_due()
        time.sleep(3)
    deployment.wait_for_new_tokens(before)
    deployment.check_recovered()


def test_installs_and_refreshes_succeed_with_a_slow_redis(deployment: FaultDeployment) -> None:
    """Each packet to and from Redis is delayed by 0.2 s."""
    broker = urlsplit(deployment.servers.valkey.url())
    with TcpProxy("127.0.0.1", int(broker.port or 0), delay_seconds=0.2) as proxy:
        slow = {"REDIS_URL": proxy.lead(broker.geturl())}
        for name in ("worker", "beat", "web"):
            assert deployment.newest_process(name).stop() == 0
            deployment.product.running.remove(deployment.newest_process(name))
        deployment.start(**slow)
        old = deployment.token(deployment.hubs[0])
        assert deployment.install(deployment.hubs[0]).status_code == 303
        until(lambda: deployment.token(deployment.hubs[0]) != old)
        deployment.wait_for_new_tokens(deployment.make_due())
        assert proxy.carried > 0
        deployment.check_recovered()
        for name in ("worker", "beat", "web"):
            assert deployment.newest_process(name).stop() == 0
            deployment.product.running.remove(deployment.newest_process(name))
    deployment.start()


def test_worker_and_beat_started_before_redis_wait_for_it(deployment: FaultDeployment) -> None:
    for name in ("worker", "beat"):
        assert deployment.newest_process(name).stop() == 0
        deployment.product.running.remove(deployment.newest_process(name))
    deployment.servers.kill_valkey()
    before = deployment.make_due()
    waiting = [deployment.product.worker(wait=False), deployment.product.beat(wait=False)]
    for running in waiting:
        running.wait_until(has_printed("the broker at REDIS_URL does not answer yet"))
    deployment.servers.valkey.start()
    deployment.wait_for_new_tokens(before)
    assert [running.status for running in waiting] == [None, None]
    deployment.check_recovered()


def test_every_connection_recovers_after_postgres_and_redis_stop_together(deployment: FaultDeployment) -> None:
    with holding_refreshes(deployment, at_least=3) as before:
        deployment.servers.stop()
    time.sleep(1)
    deployment.servers.postgres.start()
    deployment.servers.valkey.start()
    deployment.wait_for_new_tokens(before)
    deployment.check_recovered()
