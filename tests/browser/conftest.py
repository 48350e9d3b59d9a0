"""The system's own Chromium, driven by hand: where there is none, these tests say so and are skipped.

Whatever Chromium complains of on one of our pages (an error, a blocked script, a missing file) fails the test.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from sandbox.child_processes import ChildProcess
from sandbox.simulator.control import SimulatorControl
from shared.db.core.engine import make_engine as connect_engine
from tests.browser.desk import Desk
from tests.journeys.world import World
from tests.support.databases import Databases
from tests.support.environment import SHORT_WAITS, product_environment
from tests.support.product import Product
from tests.support.stores import ConnectionFixture, SqlFixture, Stores

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Milliseconds: a machine may be busy with other tests.
PATIENCE = 30_000

#: As after the migrations.
EMPTY = """
TRUNCATE tokenkeeper.connections, tokenkeeper.accounts, tokenkeeper.history, tokenkeeper.installs, tokenkeeper.alerts,
         tokenkeeper.refreshes_by_minute, tokenkeeper.refresh_counters, tokenkeeper.provider,
         tokenkeeper.connection_counts;
INSERT INTO tokenkeeper.provider DEFAULT VALUES;
INSERT INTO tokenkeeper.connection_counts DEFAULT VALUES;
"""

OpenPage = Callable[..., Page]
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """For one file: while Playwright runs, its event loop stands in the way of any other test's asyncio.run."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"browser tests need Chromium: none of {', '.join(NAMES)} is on PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS, timeout=2 * PATIENCE)
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What Chromium complained of so far; a test that provokes it takes it out."""
    heard: list[str] = []
    yield heard
    assert heard == []


@pytest.fixture
def open_page(chromium: Browser, complaints: list[str]) -> Iterator[OpenPage]:
    """A page of a browser of its own; cookies are not shared."""
    contexts: list[BrowserContext] = []

    def opened(**options: Any) -> Page:
        context = chromium.new_context(**options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        context.on("console", lambda said: complaints.append(told(said)) if is_complaint(said) else None)
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        return context.new_page()

    yield opened
    for context in contexts:
        context.close()


def is_complaint(said: ConsoleMessage) -> bool:
    """Not that the page itself came with a status of 4xx: whoever asks for such a page looks at that."""
    page = said.page
    return said.type in {"error", "warning"} and not (page and said.location["url"] == page.url)


def told(said: ConsoleMessage) -> str:
    return f"{said.location['url']}: {said.text}"


@pytest.fixture
def shot(tmp_path: Path) -> Callable[..., None]:
    """Leaves a picture of the page in the test's folder."""

    def take(page: Page, *name: object) -> None:
        page.screenshot(path=tmp_path / f"{'-'.join(map(str, name))}.png", full_page=True)

    return take


@pytest.fixture(scope="module")
def office(
    databases: Databases,
    redis_server: Callable[[int], str],
    simulator_process: ChildProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """A web that runs alone for all tests of a file, as in production: no worker changes what a test put there."""
    with databases.migrated() as database_url, SimulatorControl(simulator_process.url) as simulator:
        environment = product_environment(database_url, redis_server(14), simulator.base_url)
        with world_of(Product(environment, tmp_path_factory.mktemp("office")), simulator, database_url) as world:
            world.product.web()
            yield world


@pytest.fixture(scope="module")
def standing(
    databases: Databases,
    redis_server: Callable[[int], str],
    simulator_process: ChildProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """A world in which web, worker and beat run for all tests of a file: starting them takes seconds."""
    with databases.migrated() as database_url, SimulatorControl(simulator_process.url) as simulator:
        simulator.reset(settings=True, accounts=True)
        environment = product_environment(
            databases.as_worker(database_url),
            redis_server(15),
            simulator.base_url,
            WEB_DATABASE_URL=databases.as_web(database_url),
            **SHORT_WAITS,
        )
        with world_of(Product(environment, tmp_path_factory.mktemp("standing")), simulator, database_url) as world:
            yield world.started()


@contextmanager
def world_of(product: Product, simulator: SimulatorControl, database_url: str) -> Iterator[World]:
    """`database_url` is the superuser's: a test looks past what the product's own logins may see."""
    connection = psycopg2.connect(database_url)
    connection.autocommit = True
    try:
        yield World(product, simulator, SqlFixture(connection))
    finally:
        product.stop()
        connection.close()


@pytest.fixture
def sql(office: World) -> SqlFixture:
    """Past all of our code into the office's database, which is empty."""
    office.sql.rows(EMPTY)
    return office.sql


@pytest.fixture
def connections(office: World, sql: SqlFixture) -> Iterator[ConnectionFixture]:
    engine = connect_engine(office.product.environment["DATABASE_URL"])
    yield ConnectionFixture(Stores(engine, lease_seconds=60), sql)
    engine.dispose()


@pytest.fixture
def desk(office: World, sql: SqlFixture, open_page: OpenPage) -> Desk:
    return desk_of(office, open_page)


def desk_of(world: World, open_page: OpenPage) -> Desk:
    return Desk(world.home, world.product.environment["OPERATOR_PASSWORD"], open_page)
