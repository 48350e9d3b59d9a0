"""Fixtures: a real PostgreSQL and Valkey for the session, a fresh database and an empty Redis for each test."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis
import structlog
from hypothesis import HealthCheck, settings

from sandbox.child_processes import ChildProcess
from sandbox.embedded import EmbeddedPostgres, EmbeddedValkey
from sandbox.ports import find_free_port
from sandbox.simulator.control import SimulatorControl
from tests.support import fork_server
from tests.support.databases import Databases
from tests.support.deployment import Deployment, start_deployment
from tests.support.environment import inherited_environment, product_environment
from tests.support.folders import RUN_FOLDER, make_run_folder, server_folder
from tests.support.postgres import MigratedPostgres, make_migrated_postgres, make_postgres, running
from tests.support.product import Product, url_responds

# Hypothesis measures wall-clock time, which says nothing on a busy machine. Examples of a test may share fixtures. How
# many of the first ones are too large or filtered out is chance; where none is left, that is an error all the same.
settings.register_profile(
    "tokenkeeper",
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
    ],
)
settings.load_profile("tokenkeeper")

#: Database 0 is for interactive use, 15 for `shared_deployment`.
_redis_numbers = cycle(range(1, 15))


@pytest.fixture(autouse=True)
def restore_log() -> Iterator[None]:
    """Product code that a test runs in this process may configure the log: the next test finds it unconfigured."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def state() -> Iterator[Path]:
    """The folder for the files of the session's servers."""
    with server_folder("tests") as folder:
        yield folder


@pytest.fixture(scope="session")
def databases(state: Path) -> Iterator[Databases]:
    """On the server of TEST_DATABASE_URL, where that is set: the URL of a superuser."""
    if external := os.environ.get("TEST_DATABASE_URL"):
        databases = Databases(external)
        yield databases
        databases.close()
        return
    server = make_migrated_postgres(state, durable=False)
    server.start()
    yield server.databases
    server.stop()


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A migrated database for this test, as new."""
    with databases.borrow_migrated() as url:
        yield url


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """A database without a schema."""
    with databases.create_empty() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server(state: Path) -> Iterator[Callable[[int], str]]:
    """Empties a database by its number and returns its URL, on the server of TEST_REDIS_URL if set: 1 to 15 are WIPED.

    An earlier product may have left messages there, which another one cannot decrypt.
    """

    def empty(url: str) -> str:
        with redis.Redis.from_url(url) as client:
            client.flushdb()
        return url

    if external := os.environ.get("TEST_REDIS_URL"):
        base = external.rstrip("/").removesuffix("/0")
        yield lambda number: empty(f"{base}/{number}")
        return
    server = EmbeddedValkey(state, durable=False)
    server.start()
    yield lambda number: empty(server.url(number))
    server.stop()


@pytest.fixture
def redis_url(redis_server: Callable[[int], str]) -> str:
    """An empty database of Redis, another one than that of the previous test."""
    return redis_server(next(_redis_numbers))


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A started PostgreSQL that the test may stop, kill by its `process`, and start again on the same port."""
    with running(make_postgres) as server:
        yield server


@pytest.fixture
def migrated_postgres() -> Iterator[MigratedPostgres]:
    """As `own_postgres`, with a migrated database, which its `url()` names."""
    with running(make_migrated_postgres) as server:
        yield server


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A started Valkey that the test may stop, kill by its `process`, and start again on the same port, empty."""
    server = EmbeddedValkey(tmp_path, durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def simulator_process(state: Path) -> Iterator[ChildProcess]:
    port = find_free_port()
    argv = [sys.executable, "-m", "sandbox.simulator", "--port", str(port), "--lifetime", "1800"]
    running = ChildProcess(
        "simulator", argv, inherited_environment(), state / "simulator.log", url=f"http://127.0.0.1:{port}"
    )
    try:
        yield running.wait_until(url_responds("/_sim/health"))
    finally:
        running.stop()


@pytest.fixture
def simulator(simulator_process: ChildProcess) -> Iterator[SimulatorControl]:
    """The HubSpot simulator without accounts and faults; access tokens are valid for 1,800 s."""
    with SimulatorControl(simulator_process.url) as control:
        control.reset(settings=True, accounts=True)
        yield control


@pytest.fixture(scope="module")
def shared_deployment(
    databases: Databases,
    redis_server: Callable[[int], str],
    simulator_process: ChildProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """Web, worker and beat, running for all tests of a file: starting them takes seconds."""
    logs = tmp_path_factory.mktemp("shared-deployment")
    with start_deployment(databases, redis_server(15), simulator_process.url, logs) as deployment:
        yield deployment


@pytest.fixture
def environment(
    databases: Databases, database_url: str, redis_url: str, simulator: SimulatorControl
) -> Callable[..., dict[str, str]]:
    """Makes all settings of a process, on this test's database, Redis and simulator; keywords change some.

    Web and worker have logins of their own (`web_environment`), unless DATABASE_URL is changed.
    """

    def make(**changes: str) -> dict[str, str]:
        own = {} if "DATABASE_URL" in changes else {"WEB_DATABASE_URL": databases.as_web(database_url)}
        url = databases.as_worker(database_url)
        return product_environment(url, redis_url, simulator.base_url, **own, **changes)

    return make


@pytest.fixture
def new_product(
    tmp_path: Path, database_url: str, redis_url: str, simulator: SimulatorControl
) -> Iterator[Callable[[dict[str, str]], Product]]:
    """Makes a Product from an environment, for tests with settings of their own.

    It depends on database, Redis and simulator so that the processes stop before those.
    """
    products: list[Product] = []

    def new(environment: dict[str, str]) -> Product:
        folder = tmp_path / f"product-{len(products)}"
        folder.mkdir()
        products.append(Product(environment, folder))
        return products[-1]

    yield new
    for product in products:
        product.stop()


@pytest.fixture
def product(environment: Callable[..., dict[str, str]], new_product: Callable[[dict[str, str]], Product]) -> Product:
    """The product on this test's database, Redis and simulator: `product.web()`, `.worker()`, `.beat()` …"""
    return new_product(environment())


@pytest.fixture
def connect(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """An autocommitting psycopg2 connection to this test's database, or to the URL given; closed in the end.

    The first one to the test's database is another test's: to connect costs five milliseconds of CPU time.
    """
    is_lent = False

    def open_connection(url: str | None = None) -> Any:
        nonlocal is_lent
        if url is None and not is_lent:
            is_lent = True
            if session := request.getfixturevalue("databases").lend_session(request.getfixturevalue("database_url")):
                return session
        connection = psycopg2.connect(url or request.getfixturevalue("database_url"))
        connection.autocommit = True
        request.addfinalizer(connection.close)
        return connection

    return open_connection


def pytest_configure(config: pytest.Config) -> None:
    """What a shell starts in the background ignores SIGINT, and the product's processes would inherit that."""
    gc.disable()  # until all tests are collected
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not is_xdist_process(config):
        make_run_folder()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not is_xdist_process(config):
        fork_server.stop_server()
        shutil.rmtree(os.environ[RUN_FOLDER])


def is_xdist_process(config: pytest.Config) -> bool:
    """Whether this is one of several processes of a run of tests, and not the one that starts them."""
    return hasattr(config, "workerinput")


def pytest_collection_finish() -> None:
    """Otherwise the garbage collector visits thousands of tests and modules again and again, which all stay."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the output of the product's processes."""
    report = yield
    if report.failed:
        for fixture in getattr(item, "funcargs", {}).values():
            if isinstance(fixture, Product):
                report.sections.extend(fixture.output_tails())
    return report
