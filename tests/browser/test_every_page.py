"""Every page, in every state that it has: by axe-core's rules, light and dark, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, expect

from sandbox.child_processes import ChildProcess
from sandbox.ports import find_free_port
from sandbox.simulator.control import SimulatorControl
from shared.db.core.engine import make_engine as connect_engine
from tests.browser.conftest import OpenPage
from tests.browser.desk import Desk
from tests.support import database_states
from tests.support.databases import Databases
from tests.support.environment import product_environment
from tests.support.http_server import serving
from tests.support.stores import ConnectionFixture, SqlFixture, Stores

pytestmark = pytest.mark.browser

DESK, PHONE, SMALLEST = (1280, 800), (375, 740), (320, 568)
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RULES = {"runOnly": {"type": "tag", "values": TAGS}, "resultTypes": ["violations"]}
#: What else than its colours should be different in the dark?
COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast"]}, "resultTypes": ["violations"]}
#: State of the database, address, and the page's first heading.
OPERATORS = [
    ("nobody", "/operator", "Nothing is refreshed."),
    ("healthy", "/operator", "All 60 connections are fresh."),
    ("troubled", "/operator", "2 connections are held by the brake."),
    ("nobody", "/connections", "Connections"),
    ("healthy", "/connections", "Connections"),
    ("healthy", "/connections?q=shop-1&sort=domain", "Connections"),
    ("healthy", "/connections?q=nobody", "Connections"),
    ("troubled", "/connections", "Connections"),
    ("troubled", "/connections?sort=failures", "Connections"),
    ("troubled", "/connections?status=disconnected", "Connections"),
    ("healthy", "/connections/62515", "shop-00.example"),
    ("healthy", "/connections/62515?notice=ended", "shop-00.example"),
    ("troubled", f"/connections/{database_states.REVOKED}", f"Account {database_states.REVOKED}"),
    ("troubled", f"/connections/{database_states.HELD}", f"Account {database_states.HELD}"),
    ("troubled", f"/connections/{database_states.FAILING}", f"shop-{database_states.FAILING}.example"),
    ("troubled", f"/connections/{database_states.DISCONNECTED}", f"shop-{database_states.DISCONNECTED}.example"),
    ("troubled", f"/connections/{database_states.IMPORTED}", f"Account {database_states.IMPORTED}"),
    ("troubled", f"/connections/{database_states.LONG_NAMED}", database_states.LONG),
    ("troubled", f"/connections/{database_states.BIGGEST}", f"shop-{database_states.BIGGEST}.example"),
    ("healthy", "/connections/62515/disconnect", "Disconnect shop-00.example?"),
    ("troubled", f"/connections/{database_states.LONG_NAMED}/disconnect", f"Disconnect {database_states.LONG}?"),
    ("troubled", f"/connections/{database_states.DISCONNECTED}/disconnect", "shop-22.example is disconnected already"),
    ("nobody", "/connections/7", "There is no such connection"),
    ("nobody", "/connections?sort=x", "This address is not valid"),
    ("unreachable", "/operator", "PostgreSQL does not answer"),
]
PEOPLES = [
    ("/", "Connect your HubSpot account"),
    ("/nowhere", "There is no such page"),
    ("/install?hub_id=x", "That is not a HubSpot account number"),
    ("/oauth/callback?error=access_denied&state=x", "This link is damaged"),
]


@dataclass(frozen=True, slots=True)
class Site:
    url: str
    password: str
    database_url: str


Sites = Mapping[str, Site]


@pytest.fixture(scope="module")
def sites(
    databases: Databases, redis_server: Callable[[int], str], simulator_process: ChildProcess
) -> Iterator[Mapping[str, Site]]:
    """For each state of the database, a web of its own."""
    with ExitStack() as stack, SimulatorControl(simulator_process.url) as simulator:
        simulator.reset(settings=True, accounts=True)
        urls = {"unreachable": f"postgresql://nobody@127.0.0.1:{find_free_port()}/nowhere"}
        for state, fill in database_states.STATES.items():
            urls[state] = stack.enter_context(databases.migrated())
            filled(urls[state], fill)
        found = {}
        for state, database_url in urls.items():
            settings = product_environment(database_url, redis_server(15), simulator.base_url)
            home = stack.enter_context(serving(settings))
            found[state] = Site(home, settings["OPERATOR_PASSWORD"], database_url)
        yield found


def filled(database_url: str, fill: Callable[[ConnectionFixture, SqlFixture], None]) -> None:
    engine = connect_engine(database_url)
    with connected(database_url) as sql:
        fill(ConnectionFixture(Stores(engine, lease_seconds=60), sql), sql)
    engine.dispose()


@contextmanager
def connected(database_url: str, *, autocommit: bool = True) -> Iterator[SqlFixture]:
    connection = psycopg2.connect(database_url)
    connection.autocommit = autocommit
    try:
        yield SqlFixture(connection)
    finally:
        connection.close()


def check(page: Page) -> None:
    """By axe-core's rules, and without a scroll bar below; every complaint in one failure."""
    page.evaluate(AXE_SCRIPT)  # Chromium runs it past our Content-Security-Policy
    found = []
    for width, height in (DESK, PHONE, SMALLEST):
        page.set_viewport_size({"width": width, "height": height})
        wide = page.evaluate("document.scrollingElement.scrollWidth")
        found += [f"{wide} px wide in a window of {width}"] * (wide > width)
        for scheme, rules in (("light", RULES), ("dark", COLOURS)) if width != SMALLEST[0] else ():
            page.emulate_media(color_scheme=scheme)
            broken = page.evaluate("rules => axe.run(rules)", rules)["violations"]
            found += [complaint(rule, node, scheme, width) for rule in broken for node in rule["nodes"]]
    assert not found, "\n".join(found)


def complaint(rule: dict[str, Any], node: dict[str, Any], scheme: str, width: int) -> str:
    return f"{scheme}, {width} px: {rule['id']}: {node['html'][:200]}\n  {node['failureSummary']}"


def the_heading(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(text)


@pytest.mark.parametrize(("at", "path", "heading"), OPERATORS, ids=[f"{at} {path}" for at, path, _ in OPERATORS])
def test_an_operators_page(sites: Sites, open_page: OpenPage, at: str, path: str, heading: str) -> None:
    page = Desk(sites[at].url, sites[at].password, open_page).sit_down(path)
    the_heading(page, heading)
    check(page)


@pytest.mark.parametrize(("path", "heading"), PEOPLES, ids=[path for path, _ in PEOPLES])
def test_a_page_for_everybody(sites: Sites, open_page: OpenPage, path: str, heading: str) -> None:
    page = open_page()
    page.goto(sites["nobody"].url + path)
    the_heading(page, heading)
    check(page)


def test_the_page_of_a_wrong_password(sites: Sites, open_page: OpenPage) -> None:
    page = Desk(sites["nobody"].url, "wrong", open_page).sit_down()
    the_heading(page, "This page is the operator's")
    check(page)


def test_the_pages_of_an_install(sites: Sites, open_page: OpenPage) -> None:
    """It has to wait, as a table is locked at first; and its domain stays unknown, as no worker runs."""
    site, page = sites["nobody"], open_page()
    page.goto(f"{site.url}/install?hub_id=62515")
    the_heading(page, "An app wants to connect to your HubSpot account")
    check(page)
    with connected(site.database_url, autocommit=False) as lock:
        lock.rows("LOCK TABLE tokenkeeper.installs IN ACCESS EXCLUSIVE MODE")
        page.get_by_role("button", name="Connect app").click()
        the_heading(page, "Connecting account 62515")
        check(page)
    the_heading(page, "Account 62515 is connected")
    check(page)
    with connected(site.database_url) as sql:
        sql.rows("UPDATE tokenkeeper.accounts SET hub_domain = %s WHERE hub_id = 62515", database_states.LONG)
        page.reload()
        the_heading(page, f"{database_states.LONG} is connected")
        check(page)
        sql.rows("DELETE FROM tokenkeeper.connections")


def test_the_page_of_a_denied_install(sites: Sites, open_page: OpenPage) -> None:
    page = open_page()
    page.goto(f"{sites['nobody'].url}/install")
    page.get_by_role("button", name="Deny").click()
    the_heading(page, "You did not allow the connection")
    check(page)
