"""While PostgreSQL or Redis is stopped or frozen, the operator's pages say so soon, and a disconnect still works."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest
import requests

from sandbox.embedded import EmbeddedPostgres, EmbeddedValkey
from shared.db.core.engine import make_engine
from tests.support.builders import HUB
from tests.support.http_server import serving
from tests.support.polling import until
from tests.support.postgres import MigratedPostgres
from tests.support.stores import ConnectionFixture, SqlFixture, Stores

PASSWORD = "correct horse battery staple"
PAGES = ("/operator", "/connections", f"/connections/{HUB}", f"/connections/{HUB}/disconnect")
ACTIONS = (f"/connections/{HUB}/refresh", f"/connections/{HUB}/disconnect")
#: A request that takes longer fails its test. The application's own limit is 3 seconds for each server it asks.
MAX_RESPONSE_SECONDS = 20


class Operator:
    """A signed-in operator, over HTTP."""

    def __init__(self, home: str, session: requests.Session) -> None:
        self.home = home
        self.session = session

    def open(self, path: str) -> requests.Response:
        return self.session.get(self.home + path, timeout=MAX_RESPONSE_SECONDS)

    def csrf_token(self, page: str) -> str:
        token = re.search(r'name="csrf_token" value="([^"]+)"', self.open(page).text)
        assert token
        return token[1]

    def post(self, action: str, csrf_token: str) -> requests.Response:
        return self.session.post(self.home + action, data={"csrf_token": csrf_token}, timeout=MAX_RESPONSE_SECONDS)


@pytest.fixture
def connections(migrated_postgres: MigratedPostgres, connect: Callable[..., Any]) -> Iterator[ConnectionFixture]:
    """One connection, in a server that the test may stop."""
    engine = make_engine(migrated_postgres.url())
    connections = ConnectionFixture(Stores(engine, lease_seconds=60), SqlFixture(connect(migrated_postgres.url())))
    connections.install()
    yield connections
    engine.dispose()


@pytest.fixture
def operator(
    environment: Callable[..., dict[str, str]],
    connections: ConnectionFixture,
    migrated_postgres: MigratedPostgres,
    own_valkey: EmbeddedValkey,
) -> Iterator[Operator]:
    environ = environment(DATABASE_URL=migrated_postgres.url(), REDIS_URL=own_valkey.url(), OPERATOR_PASSWORD=PASSWORD)
    with serving(environ) as home, requests.Session() as session:
        session.trust_env = False
        session.auth = ("operator", PASSWORD)
        yield Operator(home, session)


@contextmanager
def out_of_service(server: EmbeddedPostgres | EmbeddedValkey, how: str) -> Iterator[None]:
    """`stopped`: connections are refused. `frozen`: they are accepted and never answered."""
    if how == "stopped":
        server.stop()
        yield
        return
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    process.suspend()  # before its children are listed: it starts no further one
    until(lambda: process.status() == psutil.STATUS_STOPPED)
    processes = [process, *process.children(recursive=True)]
    for each in processes:
        with suppress(psutil.NoSuchProcess):  # one that had its last work to do has ended
            each.suspend()
    try:
        yield
    finally:
        for each in processes:
            with suppress(psutil.NoSuchProcess):
                each.resume()


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_every_page_and_action_reports_an_outage_of_postgres(
    operator: Operator, migrated_postgres: MigratedPostgres, how: str
) -> None:
    token = operator.csrf_token(f"/connections/{HUB}")
    with out_of_service(migrated_postgres, how), ThreadPoolExecutor(len(PAGES) + len(ACTIONS)) as pool:
        responses = [pool.submit(operator.open, page) for page in PAGES]
        responses += [pool.submit(operator.post, action, token) for action in ACTIONS]
        for response in (future.result() for future in responses):
            assert response.status_code == 503
            assert "PostgreSQL does not answer" in response.text
            assert "tokenkeeper doctor" in response.text
            assert response.headers["Retry-After"] == "5"


def test_the_error_page_of_an_action_links_to_the_page_that_shows_its_result(
    operator: Operator, migrated_postgres: MigratedPostgres
) -> None:
    token = operator.csrf_token(f"/connections/{HUB}")
    migrated_postgres.stop()
    assert f'href="/connections/{HUB}">Back' in operator.post(f"/connections/{HUB}/refresh", token).text
    assert 'href="/operator">Back' in operator.post("/operator/revocations/dismiss", token).text


def test_a_database_with_another_schema_is_reported_differently(
    operator: Operator, connections: ConnectionFixture
) -> None:
    connections.sql.rows("ALTER TABLE tokenkeeper.provider RENAME TO renamed")
    response = operator.open("/operator")
    assert response.status_code == 503
    assert "tokenkeeper migrate" in response.text


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_a_disconnect_works_during_an_outage_of_redis(
    operator: Operator, connections: ConnectionFixture, own_valkey: EmbeddedValkey, how: str
) -> None:
    token = operator.csrf_token(f"/connections/{HUB}")
    with out_of_service(own_valkey, how):
        response = operator.post(f"/connections/{HUB}/disconnect", token)
    assert response.history[0].status_code == 303
    assert "uninstalled at HubSpot within a minute" in response.text
    assert connections.sql.read_served_token() is None
