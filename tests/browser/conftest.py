"""Browser tests use the system's Chromium. Where there is none, they say so and are skipped.

An error or a warning on the console of a page (a script error, a blocked resource, a missing file) fails the test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, WebError, expect, sync_playwright

from sandbox.child_processes import ChildProcess
from sandbox.ports import find_free_port
from sandbox.simulator.control import SimulatorControl
from tests.browser.sites import AdminBrowser, Site, open_connections, open_sql
from tests.support.chromium import ARGUMENTS, NAMES, find_chromium
from tests.support.databases import Databases
from tests.support.environment import product_environment
from tests.support.http_server import serving
from tests.support.stores import ConnectionFixture, SqlFixture

#: A machine may be busy with other tests.
TIMEOUT_MS = 60_000

#: The database as it is after the migrations.
EMPTY_TABLES = """
TRUNCATE tokenkeeper.connections, tokenkeeper.accounts, tokenkeeper.history, tokenkeeper.installs, tokenkeeper.alerts,
         tokenkeeper.refreshes_by_minute, tokenkeeper.refresh_counters, tokenkeeper.provider,
         tokenkeeper.connection_counts;
INSERT INTO tokenkeeper.provider DEFAULT VALUES;
INSERT INTO tokenkeeper.connection_counts DEFAULT VALUES;
"""

OpenPage = Callable[..., Page]
expect.set_options(timeout=TIMEOUT_MS)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """One for all browser tests. Not for the session: while Playwright runs, asyncio.run fails in this thread."""
    executable = find_chromium()
    if executable is None:
        pytest.skip(f"browser tests need Chromium: none of {', '.join(NAMES)} is on PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS, timeout=2 * TIMEOUT_MS)
        yield browser
        browser.close()


@pytest.fixture
def console_errors() -> Iterator[list[str]]:
    """What Chromium reported so far. A test that provokes an error clears the list."""
    errors: list[str] = []
    yield errors
    assert errors == []


@pytest.fixture(scope="package")
def contexts(chromium: Browser) -> Iterator[dict[str, BrowserContext]]:
    """Browser contexts by their options, each with a blank page: a new context takes a second of CPU time."""
    contexts: dict[str, BrowserContext] = {}
    yield contexts
    for context in contexts.values():
        context.close()


@pytest.fixture
def open_page(chromium: Browser, contexts: dict[str, BrowserContext], console_errors: list[str]) -> Iterator[OpenPage]:
    """A blank page in a browser context without cookies, which no other page of the test shares.

    `has_clock`: a page whose clock the test moves, and that of all such pages of the test: they share a context.
    """
    shared: dict[str, BrowserContext] = {}
    opened: list[BrowserContext] = []
    with ExitStack() as stack:

        def open_in_context(*, has_clock: bool = False, **options: Any) -> Page:
            key = repr((has_clock, sorted(options.items())))
            if has_clock and key in shared:
                return shared[key].new_page()
            if key in shared:
                context = chromium.new_context(**options)
                opened.append(context)
            else:
                if key not in contexts:
                    contexts[key] = make_lasting_context(chromium, has_clock=has_clock, **options)
                context = shared[key] = contexts[key]
            context.set_default_timeout(TIMEOUT_MS)
            stack.enter_context(recording_console_errors(context, console_errors))
            return context.new_page()

        yield open_in_context
    for context in opened:
        context.close()
    for context in shared.values():
        for page in context.pages[1:]:
            page.close()
        context.clear_cookies()


def make_lasting_context(chromium: Browser, *, has_clock: bool, **options: Any) -> BrowserContext:
    """With a blank page, so that its renderer lasts."""
    context = chromium.new_context(**options)
    if has_clock:
        context.clock.install()
    context.new_page()
    return context


@contextmanager
def recording_console_errors(context: BrowserContext, errors: list[str]) -> Iterator[None]:
    def record(message: ConsoleMessage) -> None:
        # Chromium also reports the status 4xx of the page itself: a test that opens such a page checks it.
        is_page_itself = message.page is not None and message.location["url"] == message.page.url
        if message.type in {"error", "warning"} and not is_page_itself:
            errors.append(f"{message.location['url']}: {message.text}")

    def record_exception(error: WebError) -> None:
        errors.append(str(error.error))

    context.on("console", record)
    context.on("weberror", record_exception)
    yield
    context.remove_listener("console", record)
    context.remove_listener("weberror", record_exception)


@pytest.fixture(scope="package")
def site(databases: Databases, simulator_process: ChildProcess) -> Iterator[Site]:
    """Web alone, shared by all browser tests. Where no Redis answers, it stores an install itself."""
    with databases.create_migrated() as database_url, SimulatorControl(simulator_process.url) as simulator:
        simulator.reset(settings=True, accounts=True)
        no_redis = f"redis://127.0.0.1:{find_free_port()}/0"
        environment = product_environment(database_url, no_redis, simulator.base_url)
        with serving(environment) as url:
            yield Site(url, environment["OPERATOR_PASSWORD"], database_url)


@pytest.fixture
def sql(site: Site) -> Iterator[SqlFixture]:
    """The superuser's access to the database of `site`, which is empty at first."""
    with open_sql(site.database_url) as sql:
        sql.rows(EMPTY_TABLES)
        yield sql


@pytest.fixture
def connections(site: Site, sql: SqlFixture) -> Iterator[ConnectionFixture]:
    with open_connections(site.database_url, sql) as connections:
        yield connections


@pytest.fixture
def admin(site: Site, sql: SqlFixture, open_page: OpenPage) -> AdminBrowser:
    return AdminBrowser(site.url, site.password, open_page)
