"""What administrators do to PostgreSQL beside the product: limits of its logins, maintenance, a full disk.

With the logins of a real installation, which are no superusers: several of these limits do not apply to those.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg2
import pytest

from sandbox.child_processes import ChildProcess
from tests.faults.held_refreshes import PATIENT, end_leases_in, holding_refreshes
from tests.support.fault_deployment import MAINTENANCE, FaultDeployment, start_fault_deployment
from tests.support.polling import until
from tests.support.stores import SqlFixture

FIRST_NEW_HUB = 5_000
#: What is left of a lease where a test waits for its end.
LEASE_SECONDS = 7
SLOW_UPDATES = """
CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.03); RETURN new; END$$;
CREATE TRIGGER wait BEFORE UPDATE ON tokenkeeper.connections FOR EACH ROW EXECUTE FUNCTION public.wait();
"""
FULL_DISK = """
CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql
    AS $$BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END$$;
CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON tokenkeeper.connections EXECUTE FUNCTION public.fail();
"""


@pytest.fixture(scope="module")
def started_deployment(
    simulator_process: ChildProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultDeployment]:
    """Web and worker have logins of their own."""
    with start_fault_deployment(tmp_path_factory.mktemp("product"), simulator_process.url, PATIENT) as deployment:
        databases, url = deployment.servers.postgres.databases, deployment.database_url
        deployment.product.environment |= {
            "DATABASE_URL": databases.as_worker(url),
            "WEB_DATABASE_URL": databases.as_web(url),
        }
        yield deployment.start()  # type: ignore[misc]  # it returns itself


@pytest.fixture
def administrator(deployment: FaultDeployment) -> Iterator[SqlFixture]:
    """A superuser with a session of its own."""
    with open_session(deployment) as sql:
        yield sql


@contextmanager
def open_session(deployment: FaultDeployment) -> Iterator[SqlFixture]:
    connection = psycopg2.connect(deployment.database_url)
    connection.autocommit = True
    yield SqlFixture(connection)
    connection.close()


def logins(deployment: FaultDeployment) -> list[str]:
    environment = deployment.product.environment
    return [str(urlsplit(environment[name]).username) for name in ("DATABASE_URL", "WEB_DATABASE_URL")]


def check_refreshes_and_installs(deployment: FaultDeployment, hub_id: int) -> None:
    deployment.wait_for_new_tokens(deployment.make_due())
    assert deployment.install(hub_id).status_code == 303
    until(lambda: deployment.token(hub_id))


@dataclass
class Change:
    """Statements of an administrator; `{login}` stands for each of our logins, `{database}` for our database."""

    make: tuple[str, ...]
    undo: tuple[str, ...]
    since: int = 0  #: the version of PostgreSQL


TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout")
CHANGES = {
    "timeouts of a tenth of a second": Change(
        (SLOW_UPDATES, *(f"ALTER ROLE {{login}} SET {name} = '100ms'" for name in TIMEOUTS)),
        ("ALTER ROLE {login} RESET ALL", "DROP FUNCTION public.wait CASCADE"),
    ),
    "a limit for transactions": Change(
        (SLOW_UPDATES, "ALTER DATABASE {database} SET transaction_timeout = '100ms'"),
        ("ALTER DATABASE {database} RESET ALL", "DROP FUNCTION public.wait CASCADE"),
        since=17_00_00,
    ),
    "three connections for each login": Change(
        ("ALTER ROLE {login} CONNECTION LIMIT 3",), ("ALTER ROLE {login} CONNECTION LIMIT -1",)
    ),
    "as many connections for the database as processes, and this test's": Change(
        ("ALTER DATABASE {database} CONNECTION LIMIT 9",), ("ALTER DATABASE {database} CONNECTION LIMIT -1",)
    ),
    "functions in another schema with the names of PostgreSQL's": Change(
        (
            "CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT 'epoch'::timestamptz$$",
            "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$SELECT public.now()$$",
            "ALTER DATABASE {database} SET search_path = public, pg_catalog",
        ),
        (
            "ALTER DATABASE {database} RESET ALL",
            "DROP FUNCTION public.clock_timestamp()",
            "DROP FUNCTION public.now()",
        ),
    ),
    "a publication of every table": Change(
        ("CREATE PUBLICATION everything FOR ALL TABLES",), ("DROP PUBLICATION everything",)
    ),
    "a disk that takes a tenth of a second for each commit": Change(
        (
            "ALTER SYSTEM SET commit_delay = 100000",
            "ALTER SYSTEM SET commit_siblings = 0",
            "SELECT pg_reload_conf()",
        ),
        ("ALTER SYSTEM RESET commit_delay", "ALTER SYSTEM RESET commit_siblings", "SELECT pg_reload_conf()"),
    ),
}


def execute(deployment: FaultDeployment, administrator: SqlFixture, statements: tuple[str, ...]) -> None:
    database = urlsplit(deployment.database_url).path[1:]
    for statement in statements:
        for login in logins(deployment) if "{login}" in statement else [""]:
            administrator.rows(statement.format(login=login, database=database) if "{" in statement else statement)


@pytest.mark.parametrize("name", CHANGES)
def test_refreshes_and_installs_go_on_with(deployment: FaultDeployment, administrator: SqlFixture, name: str) -> None:
    change = CHANGES[name]
    version = int(administrator.value("SHOW server_version_num"))
    if version < change.since:
        pytest.skip(f"PostgreSQL {version // 10_000} has no {name}")
    execute(deployment, administrator, change.make)
    try:
        deployment.terminate_sessions()  # new ones begin with these settings
        check_refreshes_and_installs(deployment, FIRST_NEW_HUB + list(CHANGES).index(name))
    finally:
        execute(deployment, administrator, change.undo)
        deployment.terminate_sessions()
    deployment.check_recovered()


def test_maintenance_of_every_kind_beside_the_refreshes_ends_no_connection(
    deployment: FaultDeployment, administrator: SqlFixture
) -> None:
    deployment.simulator.change_settings(rotation=0)
    for _ in range(2):
        for statement in MAINTENANCE:
            before = deployment.make_due(*deployment.hubs[:6])
            administrator.rows(statement)
            deployment.wait_for_new_tokens(before)
    deployment.check_recovered()


def test_refreshes_and_installs_go_on_while_checkpoints_hang(deployment: FaultDeployment) -> None:
    with deployment.servers.freeze_postgres_writers():
        check_refreshes_and_installs(deployment, FIRST_NEW_HUB + 50)
    deployment.check_recovered()


def test_while_the_history_is_rebuilt_connections_are_refreshed_and_what_is_to_be_written_there_waits(
    deployment: FaultDeployment, administrator: SqlFixture
) -> None:
    """Its lock is held by REINDEX and CREATE INDEX for minutes, as the history is the table that grows."""
    failing, others = deployment.hubs[0], deployment.hubs[1:]
    failures = deployment.count_events("refresh_failed")
    administrator.rows("BEGIN; LOCK TABLE tokenkeeper.history IN SHARE MODE")
    deployment.simulator.add_fault(503, hub_id=failing, times=1)
    old = deployment.make_due(failing)
    for _ in range(2):
        deployment.wait_for_new_tokens(deployment.make_due(*others))
    administrator.rows("COMMIT")
    deployment.wait_for_new_tokens(old)
    assert deployment.count_events("refresh_failed") == failures + 1
    deployment.check_recovered()


@pytest.mark.parametrize("fault", ["a full disk", "a table that is rewritten for longer than a lease"])
def test_every_answer_of_hubspot_survives(deployment: FaultDeployment, administrator: SqlFixture, fault: str) -> None:
    """HubSpot ends the old refresh token at once, so an answer that is lost ends the connection."""
    deployment.simulator.change_settings(rotation=0)
    begun = deployment.count_refreshes()
    with holding_refreshes(deployment) as before:
        if fault == "a full disk":
            administrator.rows(FULL_DISK)
        else:
            end_leases_in(deployment, LEASE_SECONDS)
            administrator.rows("BEGIN; LOCK TABLE tokenkeeper.connections IN ACCESS EXCLUSIVE MODE")
    if fault == "a full disk":
        until(lambda: deployment.newest_process("worker").has_printed("its disk is full"))
        assert deployment.install(FIRST_NEW_HUB).status_code == 303, "it waits in the queue"
        administrator.rows("DROP FUNCTION public.fail CASCADE")
    else:
        administrator.rows("SELECT pg_sleep(%s)", LEASE_SECONDS + 2)
        administrator.rows("COMMIT")
    deployment.wait_for_new_tokens(before)
    assert deployment.count_refreshes() <= begun + 2 * len(before), "an answer was lost, and HubSpot was asked again"
    deployment.check_recovered()
