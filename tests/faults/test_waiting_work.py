"""Work that waits for HubSpot, for a lock, for a receiver of alerts or for beat: it holds up nothing but its like."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import psycopg2
import pytest
import redis

from sandbox.child_processes import ChildProcess
from shared.dispatch import BACKGROUND_QUEUE, Dispatch
from tests.support.fault_deployment import FaultDeployment, start_fault_deployment
from tests.support.polling import until
from tests.support.raw_http_server import RawServer, serving, stays_silent

#: Sweeps in a row, until a test is sure that they go on.
SWEEPS = 4
FIRST_NEW_HUB = 5_000
#: Six of them: three times as many as pool processes.
DISCONNECTED_HUBS = range(FIRST_NEW_HUB, FIRST_NEW_HUB + 6)
#: A call that hangs takes this long; a disconnect makes two of them.
TIMEOUTS = {"HTTP_TIMEOUT_SECONDS": "10", "LEASE_SECONDS": "25"}
COUNT_SWEPT_WITHOUT_BEAT = "SELECT count(swept_without_beat_since) FROM tokenkeeper.provider"
COUNT_NOT_WIPED = """
SELECT count(*) FROM tokenkeeper.connections WHERE hub_id = ANY(%s) AND encrypted_refresh_token IS NOT NULL
"""


@pytest.fixture(scope="module")
def hung_receiver() -> Iterator[RawServer]:
    """Accepts each alert and never answers."""
    with serving(stays_silent) as server:
        yield server


@pytest.fixture(scope="module")
def started_deployment(
    simulator_process: ChildProcess, tmp_path_factory: pytest.TempPathFactory, hung_receiver: RawServer
) -> Iterator[FaultDeployment]:
    settings = {"ALERT_WEBHOOK_URL": hung_receiver.url, **TIMEOUTS}
    logs = tmp_path_factory.mktemp("product")
    with start_fault_deployment(logs, simulator_process.url, settings) as deployment:
        deployment.start()
        yield deployment


def check_sweeps_continue(deployment: FaultDeployment, except_for: Collection[int] = ()) -> None:
    """Sweeps go on, and what is due is refreshed."""
    for _ in range(SWEEPS):
        since = deployment.sql.now()
        until(lambda since=since: deployment.sql.value("SELECT swept_at > %s FROM tokenkeeper.provider", since))
    deployment.wait_for_new_tokens(deployment.make_due(*(hub for hub in deployment.hubs if hub not in except_for)))


@contextmanager
def lock_connections(deployment: FaultDeployment, hub_ids: Collection[int]) -> Iterator[None]:
    """A session of another program holds these rows."""
    session = psycopg2.connect(deployment.database_url)
    try:
        with session.cursor() as cursor:
            cursor.execute("SELECT FROM tokenkeeper.connections WHERE hub_id = ANY(%s) FOR UPDATE", [list(hub_ids)])
            yield
    finally:
        session.close()


def read_newest_alert(deployment: FaultDeployment) -> tuple[str, bool] | None:
    rows = deployment.sql.rows("SELECT kind, recovered FROM tokenkeeper.alerts ORDER BY number DESC LIMIT 1")
    return (rows[0][0], rows[0][1]) if rows else None


def test_disconnects_that_wait_for_hubspot_stop_neither_sweeps_nor_installs(deployment: FaultDeployment) -> None:
    hubs = list(DISCONNECTED_HUBS)
    for hub_id in hubs:
        deployment.connect(hub_id)
    for endpoint in ("revoke", "uninstall"):
        deployment.simulator.add_fault("held", where=endpoint)
    dispatch = Dispatch.from_url(deployment.servers.valkey.url())
    for hub_id in hubs:
        deployment.sql.set("status = 'disconnected', due_at = NULL, account_info_due_at = NULL", hub_id)
        dispatch.disconnect(deployment.sql.id_of(hub_id))

    deployment.connect(FIRST_NEW_HUB + 6)
    check_sweeps_continue(deployment)
    assert deployment.sql.value(COUNT_NOT_WIPED, hubs) > 0, "they were to hang longer than the rest of the test takes"
    deployment.simulator.clear_faults()
    until(lambda: deployment.sql.value(COUNT_NOT_WIPED, hubs) == 0)
    deployment.check_recovered(except_for=DISCONNECTED_HUBS)


def test_installs_that_wait_for_a_lock_stop_neither_sweeps_nor_other_installs(deployment: FaultDeployment) -> None:
    locked = deployment.hubs[:3]
    before = {hub_id: deployment.token(hub_id) for hub_id in locked}
    with lock_connections(deployment, locked):
        for hub_id in locked:
            assert deployment.install(hub_id).status_code == 303
        deployment.connect(FIRST_NEW_HUB + 7)
        check_sweeps_continue(deployment, except_for=locked)
        assert {hub_id: deployment.token(hub_id) for hub_id in locked} == before
    until(lambda: all(deployment.token(hub_id) not in {None, old} for hub_id, old in before.items()))
    deployment.check_recovered(except_for=DISCONNECTED_HUBS)


def test_tokens_stay_fresh_without_redis(deployment: FaultDeployment) -> None:
    deployment.servers.kill_valkey()
    try:
        check_sweeps_continue(deployment)
        deployment.connect(FIRST_NEW_HUB + 8)
    finally:
        deployment.servers.valkey.start()
    deployment.check_recovered(except_for=DISCONNECTED_HUBS)


def test_tokens_stay_fresh_without_beat_and_the_operator_is_told(
    deployment: FaultDeployment, hung_receiver: RawServer
) -> None:
    """The receiver of the alert hangs meanwhile."""
    posts = len(hung_receiver.requests)
    # After the test before, the worker may find Redis seconds later than beat: what beat has sent waits until then.
    until(lambda: deployment.sql.value(COUNT_SWEPT_WITHOUT_BEAT) == 0)
    beat = deployment.newest_process("beat")
    beat.kill()
    deployment.product.running.remove(beat)
    until(lambda: deployment.sql.value(COUNT_SWEPT_WITHOUT_BEAT) == 1)
    assert read_newest_alert(deployment) != ("beat_missing", False), "a restart of beat is not worth an alert"
    check_sweeps_continue(deployment)

    deployment.sql.rows("UPDATE tokenkeeper.provider SET swept_without_beat_since = now() - interval '31 seconds'")
    until(lambda: read_newest_alert(deployment) == ("beat_missing", False))
    until(lambda: len(hung_receiver.requests) > posts)
    check_sweeps_continue(deployment)
    assert "beat" in deployment.product.tokenkeeper("status").stdout
    doctor = deployment.product.tokenkeeper("doctor")
    assert doctor.returncode == 1
    assert "no message of beat reaches a worker" in doctor.stdout

    deployment.sql.rows("UPDATE tokenkeeper.alerts SET at = at - interval '1 hour'")
    deployment.product.beat()
    until(lambda: read_newest_alert(deployment) == ("beat_missing", True))
    deployment.check_recovered(except_for=DISCONNECTED_HUBS)


def test_sweeps_that_no_worker_takes_do_not_pile_up(deployment: FaultDeployment) -> None:
    assert deployment.newest_process("worker").stop() == 0
    with redis.Redis.from_url(deployment.servers.valkey.url()) as broker:
        waiting = until(lambda: broker.llen(BACKGROUND_QUEUE))
        since = deployment.sql.now()
        until(lambda: deployment.sql.value("SELECT clock_timestamp() > %s + interval '2 seconds'", since))
        assert broker.llen(BACKGROUND_QUEUE) == waiting, "four intervals passed"
    deployment.product.worker()
    deployment.check_recovered(except_for=DISCONNECTED_HUBS)
