"""Neighbours in PostgreSQL that do nothing wrong: open transactions, locked rows, advisory locks, requests in a loop.

Only the row that one of them holds waits; every other connection is refreshed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psycopg2
import pytest

from tests.faults.held_refreshes import PATIENT, holding_refreshes, terminate
from tests.support.fault_deployment import TOKEN_LIFETIME_SECONDS, FaultDeployment
from tests.support.polling import until
from tests.support.stores import SqlFixture

SETTINGS = PATIENT
REQUEST = "SELECT hubspot.request_refresh(%s)"
COUNT_THROTTLED = "SELECT count(*) FROM tokenkeeper.alerts WHERE kind = 'provider' AND detail->>'state' = 'throttled'"
LOCK_ROW = "SELECT FROM tokenkeeper.connections WHERE hub_id = %s FOR UPDATE"

OpenTransaction = Callable[[], SqlFixture]


@pytest.fixture
def open_transaction(deployment: FaultDeployment) -> Iterator[OpenTransaction]:
    """Opens transactions of another program; they are rolled back at the end of the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(_transaction(deployment))


@contextmanager
def _transaction(deployment: FaultDeployment) -> Iterator[SqlFixture]:
    connection = psycopg2.connect(deployment.database_url)
    try:
        yield SqlFixture(connection)
    finally:
        connection.close()


def refresh_all_but(deployment: FaultDeployment, *hub_ids: int) -> None:
    """The control: every other connection is refreshed now."""
    others = [hub_id for hub_id in deployment.hubs if hub_id not in hub_ids]
    deployment.wait_for_new_tokens(deployment.make_due(*others))


def test_a_transaction_that_stays_open_after_a_request_for_a_refresh_in_flight_holds_up_nothing(
    deployment: FaultDeployment, open_transaction: OpenTransaction
) -> None:
    """Not the saves, not the other connections, and not the end of the worker, whose refresh tokens HubSpot rotates."""
    asked = deployment.hubs[0]
    deployment.simulator.change_settings(rotation=0)
    with holding_refreshes(deployment) as before:
        assert open_transaction().value(REQUEST, asked) is True
    deployment.wait_for_new_tokens(before)
    worker = deployment.newest_process("worker")
    with holding_refreshes(deployment):
        assert open_transaction().value(REQUEST, asked) is True
        terminate(worker)
    assert worker.wait() == 0
    deployment.product.worker()
    refresh_all_but(deployment)
    deployment.check_recovered()


def test_a_locked_row_costs_itself_only_and_its_rotated_refresh_token_survives_the_worker(
    deployment: FaultDeployment, open_transaction: OpenTransaction
) -> None:
    """With a lock that only an administrator can take. HubSpot ends the old refresh token at once."""
    locked = deployment.hubs[0]
    deployment.simulator.change_settings(rotation=0)
    administrator = open_transaction()
    with holding_refreshes(deployment) as before:
        # The refresh token that waits is given back once the lease of the worker, which is stopped here, is over.
        deployment.sql.set("lease_until = now() + interval '7 seconds'", locked)
        administrator.rows(LOCK_ROW, locked)
    old = before.pop(locked)
    deployment.wait_for_new_tokens(before)
    refresh_all_but(deployment, locked)
    assert deployment.newest_process("worker").stop() == 0
    assert deployment.sql.value("SELECT count(*) FROM tokenkeeper.rotated_tokens") == 1
    deployment.product.worker()
    refresh_all_but(deployment, locked)
    administrator.rows("ROLLBACK")
    deployment.wait_for_new_tokens({locked: old})
    assert deployment.sql.value("SELECT count(*) FROM tokenkeeper.rotated_tokens") == 0
    deployment.check_recovered()


def test_after_a_429_sweeps_go_on_while_a_postponed_connection_is_locked(
    deployment: FaultDeployment, open_transaction: OpenTransaction
) -> None:
    """One transaction is of a job that asked for a connection that was put off by a 477, one of an administrator."""
    asked, locked, throttled = deployment.hubs[:3]
    alerts = deployment.sql.value(COUNT_THROTTLED)
    faults = [deployment.simulator.add_fault(477, hub_id=hub_id, retry_after=1) for hub_id in (asked, locked)]
    deployment.make_due(asked, locked)
    until(lambda: deployment.sql.value("SELECT count(*) FROM hubspot.connections WHERE failures > 0") == 2)
    assert open_transaction().value(REQUEST, asked) is True
    administrator = open_transaction()
    administrator.rows(LOCK_ROW, locked)
    for fault in faults:
        deployment.simulator.clear_faults(fault)
    deployment.simulator.add_fault(429, hub_id=throttled, retry_after=1, times=1)
    before = deployment.make_due(throttled)
    until(lambda: deployment.sql.value(COUNT_THROTTLED) > alerts)  # the state itself may be over already
    deployment.wait_for_new_tokens(before)
    refresh_all_but(deployment, locked)
    administrator.rows("ROLLBACK")
    deployment.check_recovered()


def test_a_job_that_asks_in_a_loop_causes_one_refresh_in_half_a_minute_and_stores_one_row(
    deployment: FaultDeployment,
) -> None:
    """A token that came by a request is replaced by another one after a sixtieth of its lifetime."""
    asked = deployment.hubs[0]
    deployment.simulator.change_settings(lifetime=1800)
    refresh_all_but(deployment)
    calls, answers = deployment.count_refreshes(), list[bool]()
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline or len(answers) <= 100:
        answers.append(deployment.sql.value(REQUEST, asked))
        time.sleep(0.005)  # PostgreSQL would be busy with this alone
    assert deployment.count_refreshes() - calls <= 1, "the next one is due half a minute later"
    assert answers.count(True) < len(answers) / 2
    assert deployment.sql.value("SELECT count(*) FROM tokenkeeper.refresh_requests") <= 1
    deployment.simulator.change_settings(lifetime=TOKEN_LIFETIME_SECONDS)
    deployment.check_recovered()


def test_advisory_locks_and_open_snapshots_of_strangers_hold_up_no_install_and_no_refresh(
    deployment: FaultDeployment, open_transaction: OpenTransaction
) -> None:
    stranger = open_transaction()
    for hub_id in deployment.hubs:
        stranger.rows("SELECT pg_advisory_lock(%s)", hub_id)
    snapshot = open_transaction()
    snapshot.rows("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    snapshot.rows("SELECT FROM hubspot.tokens")
    for hub_id in deployment.hubs[:6]:
        assert deployment.install(hub_id).status_code == 303
    count = "SELECT count(*) FROM hubspot.history WHERE event = 'reinstalled'"
    until(lambda: deployment.sql.value(count) == 6)
    refresh_all_but(deployment)
    deployment.check_recovered()
