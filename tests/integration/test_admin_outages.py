"""With PostgreSQL or Redis down or frozen the operator is told so, soon, and what can be done is done."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import requests

from sandbox.embedded import EmbeddedPostgres, EmbeddedValkey
from shared.db.core.engine import make_engine as connect_engine
from shared.db.schema.migrate import migrate
from tests.support.builders import HUB
from tests.support.http_server import serving
from tests.support.stores import ConnectionFixture, SqlFixture, Stores

PASSWORD = "correct horse battery staple"
PAGES = ("/operator", "/connections", f"/connections/{HUB}", f"/connections/{HUB}/disconnect")


class Operator:
    """At a browser, over HTTP."""

    def __init__(self, home: str, session: requests.Session) -> None:
        self.home = home
        self.session = session

    def open(self, path: str) -> requests.Response:
        return self.session.get(self.home + path, timeout=30)

    def form(self, page: str) -> dict[str, str]:
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.open(page).text)
        assert found
        return {"csrf_token": found[1]}

    def press(self, action: str, form: dict[str, str]) -> requests.Response:
        return self.session.post(self.home + action, data=form, timeout=30)


@pytest.fixture
def connections(own_postgres: EmbeddedPostgres, connect: Callable[..., Any]) -> Iterator[ConnectionFixture]:
    migrate(own_postgres.url())
    engine = connect_engine(own_postgres.url())
    made = ConnectionFixture(Stores(engine, lease_seconds=60), SqlFixture(connect(own_postgres.url())))
    made.install()
    yield made
    engine.dispose()


@pytest.fixture
def operator(
    environment: Callable[..., dict[str, str]],
    connections: ConnectionFixture,
    own_postgres: EmbeddedPostgres,
    own_valkey: EmbeddedValkey,
) -> Iterator[Operator]:
    settings = environment(DATABASE_URL=own_postgres.url(), REDIS_URL=own_valkey.url(), OPERATOR_PASSWORD=PASSWORD)
    with serving(settings) as home, requests.Session() as session:
        session.trust_env = False
        session.auth = ("operator", PASSWORD)
        yield Operator(home, session)


def timed(call: Callable[[], requests.Response]) -> tuple[requests.Response, float]:
    began = time.monotonic()
    return call(), time.monotonic() - began


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_without_postgres_every_page_says_so_in_time(
    operator: Operator, own_postgres: EmbeddedPostgres, how: str
) -> None:
    form = operator.form(f"/connections/{HUB}")
    processes = [psutil.Process(own_postgres.process.pid), *psutil.Process(own_postgres.process.pid).children(True)]
    if how == "stopped":
        own_postgres.stop()
    else:
        for process in processes:
            process.send_signal(signal.SIGSTOP)
    try:
        calls = [lambda path=path: operator.open(path) for path in PAGES]
        calls.append(lambda: operator.press(f"/connections/{HUB}/refresh", form))
        calls.append(lambda: operator.press(f"/connections/{HUB}/disconnect", form))
        for call in calls:
            answer, seconds = timed(call)
            assert answer.status_code == 503
            assert "PostgreSQL does not answer" in answer.text
            assert "tokenkeeper doctor" in answer.text
            assert answer.headers["Retry-After"] == "5"
            assert seconds < 6
    finally:
        if how == "frozen":
            for process in processes:
                process.send_signal(signal.SIGCONT)


def test_the_503_of_an_order_leads_to_the_page_that_shows_what_became_of_it(
    operator: Operator, own_postgres: EmbeddedPostgres
) -> None:
    form = operator.form(f"/connections/{HUB}")
    own_postgres.stop()
    answer = operator.press(f"/connections/{HUB}/refresh", form)
    assert f'href="/connections/{HUB}">Back' in answer.text
    assert 'href="/operator">Back' in operator.press("/operator/revocations/dismiss", form).text


def test_a_database_that_is_not_ours_is_told_apart_from_one_that_is_down(
    operator: Operator, connections: ConnectionFixture
) -> None:
    connections.sql.rows("ALTER TABLE tokenkeeper.provider RENAME TO gone")
    answer = operator.open("/operator")
    assert answer.status_code == 503
    assert "tokenkeeper migrate" in answer.text


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_without_redis_a_connection_is_ended_all_the_same(
    operator: Operator, connections: ConnectionFixture, own_valkey: EmbeddedValkey, how: str
) -> None:
    form = operator.form(f"/connections/{HUB}")
    if how == "stopped":
        own_valkey.stop()
    else:
        own_valkey.process.send_signal(signal.SIGSTOP)
    try:
        answer, seconds = timed(lambda: operator.press(f"/connections/{HUB}/disconnect", form))
    finally:
        if how == "frozen":
            own_valkey.process.send_signal(signal.SIGCONT)
    assert answer.history[0].status_code == 303
    assert "uninstalled at HubSpot within a minute" in answer.text
    assert seconds < 8
    assert connections.sql.served() is None
