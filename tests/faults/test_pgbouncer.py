"""The whole product and a downstream job, through PgBouncer in transaction mode."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest
import requests

from sandbox.child_processes import ChildProcess
from shared.db.schema.migrate import create_roles
from shared.db.schema.privileges import WEB, WORKER
from shared.db.schema.roles import Login
from tests.faults.held_refreshes import PATIENT, holding_refreshes
from tests.support.fault_deployment import FaultDeployment, start_fault_deployment
from tests.support.folders import server_folder
from tests.support.pgbouncer import BINARY, SERVER_CONNECTIONS, Bouncer
from tests.support.polling import until
from tests.support.stores import SqlFixture

pytestmark = pytest.mark.skipif(BINARY is None, reason="no pgbouncer here: apt-get install pgbouncer")

JOB, WEB_LOGIN, WORKER_LOGIN = "bounced_job", "bounced_web", "bounced_worker"
PASSWORD = "of-a-test"
#: A test of this file disconnects it.
HUB = 62515
EVENTS = "SELECT event FROM hubspot.history WHERE hub_id = %s ORDER BY at"
SESSIONS = """
SELECT usename, count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND usename = ANY(%s) GROUP BY usename
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with server_folder("pgbouncer", mode=0o755) as made:
        yield made


class PooledUrls:
    """A URL through PgBouncer for each login."""

    def __init__(self, bouncer: Bouncer, database_url: str) -> None:
        through = bouncer.url(database_url)
        self.owner = through
        self.web, self.worker, self.job = (as_login(through, name) for name in (WEB_LOGIN, WORKER_LOGIN, JOB))


@pytest.fixture(scope="module")
def pooled_urls() -> list[PooledUrls]:
    """Filled by `started_deployment`."""
    return []


@pytest.fixture(scope="module")
def started_deployment(
    folder: Path,
    pooled_urls: list[PooledUrls],
    simulator_process: ChildProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FaultDeployment]:
    with start_fault_deployment(tmp_path_factory.mktemp("product"), simulator_process.url, PATIENT) as deployment:
        create_roles(deployment.database_url, {WEB: Login(WEB_LOGIN, PASSWORD), WORKER: Login(WORKER_LOGIN, PASSWORD)})
        deployment.sql.rows(f"CREATE ROLE {JOB} LOGIN PASSWORD '{PASSWORD}' IN ROLE hubspot_reader")
        bouncer = Bouncer(folder, deployment.database_url, dict.fromkeys((WEB_LOGIN, WORKER_LOGIN, JOB), PASSWORD))
        bouncer.start()
        try:
            pgbouncer_urls = PooledUrls(bouncer, deployment.database_url)
            pooled_urls.append(pgbouncer_urls)
            deployment.product.environment |= {
                "DATABASE_URL": pgbouncer_urls.worker,
                "WEB_DATABASE_URL": pgbouncer_urls.web,
            }
            deployment.start(workers=2)
            yield deployment
        finally:
            deployment.product.stop()
            bouncer.stop()


@pytest.fixture
def pgbouncer_urls(deployment: FaultDeployment, pooled_urls: list[PooledUrls]) -> PooledUrls:
    return pooled_urls[0]


def as_login(url: str, name: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{name}:{PASSWORD}@{parts.netloc.rpartition('@')[2]}").geturl()


@contextmanager
def open_sql(url: str) -> Iterator[SqlFixture]:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        yield SqlFixture(connection)
    finally:
        connection.close()


def operator(deployment: FaultDeployment) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.headers["Connection"] = "close"  # gunicorn soon ends one that is kept
    session.auth = ("operator", deployment.product.environment["OPERATOR_PASSWORD"])
    return session


def press(session: requests.Session, page: str, action: str) -> None:
    asks_first = session.get(f"{page}/{action}", timeout=60)
    text = asks_first.text if asks_first.ok else session.get(page, timeout=60).text
    form = re.search(rf'action="[^"]*/{action}">.*?name="csrf_token" value="([^"]+)"', text, re.DOTALL)
    assert form, text
    answer = session.post(f"{page}/{action}", data={"csrf_token": form[1]}, allow_redirects=False, timeout=60)
    assert answer.status_code == 303, answer.text


def test_all_processes_connect_through_pgbouncer_and_share_few_server_connections(deployment: FaultDeployment) -> None:
    """`most`: the largest number of sessions of a login during a round of refreshes."""
    before, most, is_over = deployment.make_due(), 0, False
    while not is_over:
        is_over = not deployment.tokens().items() & before.items()
        most = max([most, *(number for _, number in deployment.sql.rows(SESSIONS, [WEB_LOGIN, WORKER_LOGIN]))])
    clients = deployment.sql.rows(
        "SELECT DISTINCT client_port FROM pg_stat_activity WHERE usename = ANY(%s)", [WEB_LOGIN, WORKER_LOGIN]
    )
    assert 0 < most <= SERVER_CONNECTIONS
    assert len(clients) <= 2 * SERVER_CONNECTIONS
    deployment.check_recovered(except_for=[HUB])


def test_a_connection_is_installed_refreshed_requested_and_disconnected_through_pgbouncer(
    deployment: FaultDeployment, pgbouncer_urls: PooledUrls
) -> None:
    """A job reads each state by SQL."""
    hub = HUB
    first = deployment.connect(hub)
    page = f"{deployment.url}/connections/{hub}"
    with operator(deployment) as session, open_sql(pgbouncer_urls.job) as job:
        assert job.read_served_token(hub) == first
        until(lambda: job.value("SELECT hub_domain FROM hubspot.connections WHERE hub_id = %s", hub))
        press(session, page, "refresh")
        second = until(lambda: (token := job.read_served_token(hub)) != first and token)
        assert job.value("SELECT hubspot.request_refresh(%s, %s)", hub, second)
        third = until(lambda: (token := job.read_served_token(hub)) != second and token)
        assert deployment.are_live(third)
        assert str(hub) in session.get(f"{deployment.url}/connections", timeout=60).text
        press(session, page, "disconnect")
        until(lambda: job.read_served_token(hub) is None)
        assert [event for (event,) in job.rows(EVENTS, hub)] == ["installed", "disconnected"]
        assert "disconnected" in session.get(page, timeout=60).text
    deployment.check_recovered(except_for=[HUB])


def test_a_downstream_job_has_no_more_privileges_through_pgbouncer(pgbouncer_urls: PooledUrls) -> None:
    with open_sql(pgbouncer_urls.job) as job, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        job.rows("SELECT * FROM tokenkeeper.connections")


def test_the_operators_commands_work_through_pgbouncer(deployment: FaultDeployment, pgbouncer_urls: PooledUrls) -> None:
    run = deployment.product.tokenkeeper
    assert run("status").returncode == 0
    assert run("keys", "rotate").returncode == 0
    until(lambda: run("doctor").returncode == 0)
    migrated = run("migrate", DATABASE_URL=pgbouncer_urls.owner)
    assert migrated.returncode == 0, migrated.stderr
    roles = run("roles", DATABASE_URL=pgbouncer_urls.owner, WORKER_DATABASE_URL=pgbouncer_urls.worker)
    assert roles.returncode == 0, roles.stderr
    deployment.check_recovered(except_for=[HUB])


def test_no_setting_and_no_prepared_statement_stays_on_a_server_connection_of_pgbouncer(
    deployment: FaultDeployment, pgbouncer_urls: PooledUrls
) -> None:
    deployment.wait_for_new_tokens(deployment.make_due())
    with open_sql(pgbouncer_urls.worker) as sql:
        for name in ("statement_timeout", "lock_timeout", "enable_seqscan", "enable_bitmapscan", "jit"):
            found = {sql.value(f"SELECT source FROM pg_settings WHERE name = '{name}'") for _ in range(20)}
            assert found == {"default"}, name
        assert {sql.value("SELECT count(*) FROM pg_prepared_statements") for _ in range(20)} == {0}


def test_listen_receives_nothing_through_pgbouncer(deployment: FaultDeployment, pgbouncer_urls: PooledUrls) -> None:
    """The reason why docs/downstream.md says to connect directly to PostgreSQL for LISTEN."""
    listeners = []
    for url in (pgbouncer_urls.job, as_login(deployment.database_url, JOB)):
        connection = psycopg2.connect(url)
        connection.autocommit = True
        connection.cursor().execute("LISTEN hubspot_connections")
        listeners.append(connection)
    through_pgbouncer, direct = listeners
    try:
        deployment.connect(777)

        def has_notification() -> bool:
            direct.poll()
            return bool(direct.notifies)

        until(has_notification)
        through_pgbouncer.poll()
        assert not through_pgbouncer.notifies
    finally:
        for connection in listeners:
            connection.close()


def test_after_pgbouncers_server_connections_are_terminated_every_connection_is_refreshed(
    deployment: FaultDeployment,
) -> None:
    with holding_refreshes(deployment, at_least=3) as before:
        assert deployment.terminate_sessions() > 0
    deployment.wait_for_new_tokens(before)
    deployment.check_recovered(except_for=[HUB])
