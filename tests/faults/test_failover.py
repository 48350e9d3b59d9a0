"""PostgreSQL fails over to a standby that lacks the newest commits, or leads to one for a while; Redis likewise.

HubSpot rotates refresh tokens: one that was saved and lost ends its connection, unless it is saved again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
import requests
from sqlalchemy import Engine

from sandbox.child_processes import ChildProcess
from sandbox.embedded import EmbeddedValkey
from shared.db.core.engine import make_engine, ping
from shared.db.core.errors import StoreReadOnly, StoreUnavailable
from shared.db.core.server_watch import server_watch
from tests.faults.held_refreshes import PATIENT, holding_refreshes
from tests.support.fault_deployment import FaultDeployment, start_fault_deployment
from tests.support.folders import server_folder
from tests.support.pgbouncer import BINARY, Bouncer
from tests.support.polling import until
from tests.support.replication import Names
from tests.support.visitor import Visitor

#: Accounts that install while the standby lacks what is committed.
NEW_HUB = 62515
#: "Within a minute", on a busy machine.
FAILOVER_SECONDS = 90.0
TOKEN_LIFETIME_SECONDS = 300


@pytest.fixture(scope="module")
def names(simulator_process: ChildProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Names]:
    logs = tmp_path_factory.mktemp("product")
    with ExitStack() as stack:
        deployment = stack.enter_context(start_fault_deployment(logs, simulator_process.url, PATIENT))
        names = Names(deployment, stack)
        stack.callback(deployment.product.stop)
        deployment.start()
        yield names


@pytest.fixture(scope="module")
def started_deployment(names: Names) -> FaultDeployment:
    return names.deployment


@pytest.fixture(autouse=True)
def rotation(deployment: FaultDeployment) -> None:
    """HubSpot revokes a refresh token as soon as it is used. No refresh falls due by itself in a test."""
    deployment.simulator.change_settings(rotation=0, lifetime=TOKEN_LIFETIME_SECONDS)


def read_readiness(deployment: FaultDeployment) -> dict[str, str]:
    return dict(requests.get(f"{deployment.url}/readyz", timeout=60).json())


def test_what_a_promoted_standby_lacks_is_written_again_and_no_connection_ends(
    deployment: FaultDeployment, names: Names
) -> None:
    """The control are connections that were refreshed while the standby received everything."""
    control, saved, in_flight = deployment.hubs[:4], deployment.hubs[4:8], deployment.hubs[8:]
    standby = names.add_standby()
    deployment.wait_for_new_tokens(deployment.make_due(*control))
    until(lambda: standby.has_received(deployment.servers.postgres))
    tokens_of_control = {hub: deployment.token(hub) for hub in control}

    standby.stop_receiving()
    deployment.wait_for_new_tokens(deployment.make_due(*saved))
    with Visitor(deployment.url, deployment.simulator) as visitor:
        visitor.wait(visitor.install(NEW_HUB))
    lost = {hub: deployment.token(hub) for hub in (*saved, NEW_HUB)}
    with holding_refreshes(deployment, *in_flight) as before:
        names.fail_over(standby)

    until(lambda: lost.items() <= deployment.tokens().items(), FAILOVER_SECONDS)
    deployment.wait_for_new_tokens(before, FAILOVER_SECONDS)
    assert {hub: deployment.token(hub) for hub in control} == tokens_of_control
    assert deployment.sql.events(NEW_HUB) == ["installed"]
    deployment.hubs.append(NEW_HUB)
    deployment.check_recovered()


def test_with_a_synchronous_standby_nothing_is_lost_even_where_the_worker_dies_with_the_primary(
    deployment: FaultDeployment, names: Names
) -> None:
    """Then no process remembers what was saved: everything depends on the standby."""
    standby = names.add_standby()
    deployment.sql.rows("ALTER SYSTEM SET synchronous_standby_names = '*'")
    deployment.sql.rows("SELECT pg_reload_conf()")
    until(lambda: deployment.sql.value("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == 1)
    deployment.wait_for_new_tokens(deployment.make_due())
    saved = deployment.tokens()
    deployment.newest_process("worker").kill()
    deployment.product.running.remove(deployment.newest_process("worker"))
    names.fail_over(standby)
    deployment.sql.rows("ALTER SYSTEM RESET synchronous_standby_names")  # of the new primary, which has no standby
    deployment.sql.rows("SELECT pg_reload_conf()")
    tokens = {hub: deployment.token(hub) for hub in saved}
    deployment.product.worker()
    assert tokens == saved
    deployment.check_recovered()


def test_a_name_that_leads_to_a_standby_for_a_while_is_noticed_and_left_without_a_restart(
    deployment: FaultDeployment, names: Names
) -> None:
    standby = names.add_standby()
    names.lead_to(standby)
    deployment.terminate_sessions()
    before = deployment.make_due()  # by a session that leads to the primary still
    until(lambda: read_readiness(deployment)["postgres"] == "read-only")
    status = deployment.product.tokenkeeper("status")
    assert (status.returncode, "PostgreSQL is read-only" in status.stderr) == (1, True), status
    doctor = deployment.product.tokenkeeper("doctor")
    assert "PostgreSQL is read-only" in doctor.stdout, doctor
    assert deployment.tokens().items() >= before.items(), "tokens are served by the standby, too"
    with Visitor(deployment.url, deployment.simulator) as visitor:
        page = visitor.install(NEW_HUB + 1)
        assert visitor.status(page)["state"] == "storing"
        names.lead_to(deployment.servers.postgres)
        visitor.wait(page, seconds=FAILOVER_SECONDS)
    deployment.wait_for_new_tokens(before, FAILOVER_SECONDS)
    until(lambda: read_readiness(deployment)["postgres"] == "ok")  # each process of web notices it by itself
    assert all(process.status is None for process in deployment.product.running)
    deployment.check_recovered()


@pytest.mark.skipif(BINARY is None, reason="no pgbouncer here: apt-get install pgbouncer")
def test_a_failover_behind_pgbouncer_is_noticed_though_the_connection_to_it_stays(names: Names) -> None:
    """PgBouncer reports neither parameter of the server from which libpq knows that it is read-only."""
    standby = names.add_standby()
    with server_folder("pgbouncer", mode=0o755) as folder:
        bouncer = Bouncer(folder, names.deployment.database_url, {})
        bouncer.start()
        try:
            engine = make_engine(bouncer.url(names.deployment.database_url))
            ping(engine, seconds=30)
            names.lead_to(standby)
            names.deployment.terminate_sessions()  # of PgBouncer too
            until(lambda: ping_error(engine) is StoreReadOnly)
            losses = server_watch(engine).losses
            names.lead_to(names.deployment.servers.postgres)
            standby.stop()
            until(lambda: ping_error(engine) is None, FAILOVER_SECONDS)
            assert server_watch(engine).losses > losses
            engine.dispose()
        finally:
            bouncer.stop()


def ping_error(engine: Engine) -> type[StoreUnavailable] | None:
    try:
        ping(engine, seconds=30)
    except StoreUnavailable as error:
        return type(error)
    return None


def test_a_redis_that_becomes_a_replica_is_left_by_web_worker_and_beat_without_a_restart(
    deployment: FaultDeployment, names: Names, tmp_path: Path
) -> None:
    former, replacement = deployment.servers.valkey, EmbeddedValkey(tmp_path, durable=False)
    replacement.folder.mkdir()
    shutil.copy(former.folder / "password", replacement.folder / "password")
    replacement.start()
    try:
        with redis.Redis.from_url(former.url()) as primary, redis.Redis.from_url(replacement.url()) as new_primary:
            primary.replicaof("127.0.0.1", str(replacement.port))
            until(lambda: read_readiness(deployment)["redis"] == "read-only")
            with Visitor(deployment.url, deployment.simulator) as visitor:
                visitor.wait(visitor.install(NEW_HUB + 2))  # web stores it itself
            names.redis.target = ("127.0.0.1", replacement.port)
            deployment.wait_for_new_tokens(deployment.make_due(), FAILOVER_SECONDS)
            until(lambda: read_readiness(deployment)["redis"] == "ok")
            with Visitor(deployment.url, deployment.simulator) as visitor:
                visitor.wait(visitor.install(NEW_HUB + 3))
            until(lambda: new_primary.info("commandstats").get("cmdstat_lpush"))
            primary.replicaof("NO", "ONE")
        deployment.check_recovered()
    finally:
        names.redis.target = ("127.0.0.1", former.port)
        replacement.stop()
