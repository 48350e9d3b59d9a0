"""Accounts are connected for customers in a browser: by the product of examples/, and from HubSpot's Marketplace.

Each with every server up, and with Redis, PostgreSQL or both down meanwhile. HubSpot's pages are of another site than
ours, and this Chromium blocks third-party cookies, as more and more browsers do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from sandbox.child_processes import ChildProcess
from sandbox.embedded import EmbeddedPostgres, EmbeddedValkey
from sandbox.ports import find_free_port
from sandbox.simulator.control import SimulatorControl
from tests.browser.conftest import OpenPage
from tests.browser.keyboard import assert_tab_order, press, tab_to
from tests.browser.sites import expect_heading, open_sql
from tests.browser.test_install import choose_account
from tests.support.environment import ROOT, SHORT_WAITS, inherited_environment, product_environment
from tests.support.polling import until
from tests.support.postgres import make_migrated_postgres, running
from tests.support.product import Product, url_responds
from tests.support.stores import SqlFixture

pytestmark = pytest.mark.browser

KEY = "a-key-of-32-random-characters-or-more"
OUTAGES = ("none", "redis", "postgres", "both")
SET_COOKIE = "() => { document.cookie = 'probe=1; SameSite=None; Secure'; return document.cookie; }"
ADD_FRAME = """address => {
  const frame = document.createElement("iframe");
  frame.src = address;
  document.body.append(frame);
}"""


@dataclass
class World:
    """The whole product, its servers, HubSpot, and the product of our own that uses it."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    product: Product
    simulator: SimulatorControl
    product_url: str  #: of the example
    url: str

    @contextmanager
    def outage(self, which: str) -> Iterator[None]:
        servers = [self.valkey] * (which in {"redis", "both"}) + [self.postgres] * (which in {"postgres", "both"})
        for server in servers:
            server.stop()
        try:
            yield
        finally:
            for server in servers:
                server.start()

    def customer(self, hub_id: int) -> str | None:
        """Of a connection with a token that works; fails where there is none."""
        with open_sql(self.postgres.url()) as sql:
            assert until(lambda: _read_customers(sql, hub_id)), f"account {hub_id} is not connected"
            return _read_customers(sql, hub_id)[0][0]


def _read_customers(sql: SqlFixture, hub_id: int) -> list[tuple[str | None]]:
    return sql.rows("SELECT customer FROM hubspot.tokens WHERE hub_id = %s", hub_id)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def world(simulator_process: ChildProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("customers")
    product_port = find_free_port()
    product_url = f"http://localhost:{product_port}"
    with running(make_migrated_postgres) as postgres, SimulatorControl(simulator_process.url) as simulator:
        simulator.reset(settings=True, accounts=True)
        valkey = EmbeddedValkey(folder / "valkey", durable=False)
        valkey.start()
        links = {"CONNECT_LINK_KEYS": KEY, "RETURN_TO_ORIGINS": product_url}
        environment = product_environment(
            postgres.url(),
            valkey.url(),
            simulator.base_url,
            MARKETPLACE_SIGN_IN_URL=f"{product_url}/hubspot/sign-in",
            **links,
            **SHORT_WAITS,
        )
        product = Product(environment, folder)
        try:
            web = product.web("--access-logfile=-")
            product.worker()
            url = web.url.replace("127.0.0.1", "localhost")
            example = start_example(folder, product_port, url, postgres.url())
            yield World(postgres, valkey, product, simulator, product_url, url)
        finally:
            example.stop()
            product.stop()
            valkey.stop()


def start_example(folder: Path, port: int, tokenkeeper_url: str, database_url: str) -> ChildProcess:
    database = urlsplit(database_url)
    environment = inherited_environment() | {
        "TOKENKEEPER_URL": tokenkeeper_url,
        "CONNECT_LINK_KEY": KEY,
        "PRODUCT_URL": f"http://localhost:{port}",
        "PGHOST": database.hostname or "",
        "PGPORT": str(database.port),
        "PGUSER": database.username or "",
        "PGPASSWORD": database.password or "",
        "PGDATABASE": database.path.removeprefix("/"),
    }
    application = str(ROOT / "examples" / "product" / "app.py")
    argv = [sys.executable, "-m", "flask", "--app", application, "run", "--port", str(port)]
    process = ChildProcess("example", argv, environment, folder / "example.log", url=f"http://127.0.0.1:{port}")
    return process.wait_until(url_responds("/acme"))


@pytest.mark.parametrize("outage", OUTAGES)
def test_accounts_are_connected_for_customers_from_the_product_and_from_the_marketplace(
    world: World, open_page: OpenPage, outage: str
) -> None:
    """The outage begins while the person reads the page of the link, and ends once all have gone as far as they can."""
    number = OUTAGES.index(outage)
    from_product, from_listing, signed_in = 7100 + number, 7200 + number, 7300 + number
    pages = [open_page()]
    pages += [pages[0].context.new_page() for _ in range(2)]
    open_link(world, pages[0])
    with world.outage(outage):
        # 1. Our product's customer, by a link.
        pages[0].get_by_role("link", name="Continue to HubSpot").click()
        choose_account(pages[0], from_product)
        # 2. An install from the Marketplace, without and with a sign-in to our product.
        begin_in_marketplace(world, pages[1], from_listing, "Without partner sign-in", return_query="wizard=7")
        begin_in_marketplace(world, pages[2], signed_in, "With partner sign-in")
        tab = sign_in_and_allow(pages[2])
        # 3. How far they come while servers are down.
        if outage in {"postgres", "both"}:
            expect_heading(pages[0], f"Connecting account {from_product}")
        for page, hub_id in ((pages[1], from_listing), (tab, signed_in)):
            expect_frame(page, f"Connecting account {hub_id}" if outage == "both" else "The app is installed")
    # 4. And in the end.
    expect_back_in_product(world, pages[0], from_product)
    expect_installed(world, pages[1], from_listing)
    expect_installed(world, tab, signed_in)
    assert [world.customer(hub) for hub in (from_product, from_listing, signed_in)] == ["acme", None, "acme"]


def test_each_customer_of_the_example_gets_their_own_account(world: World, open_page: OpenPage) -> None:
    page = open_page()
    page.goto(f"{world.product_url}/globex")
    expect(page.locator("p")).to_have_text("not connected")
    page.get_by_role("link", name="Connect HubSpot").click()
    button = page.get_by_role("link", name="Continue to HubSpot")
    assert_tab_order(page)
    page.reload()
    tab_to(page, button)
    press(page, "Enter")
    choose_account(page, 7001)
    page.wait_for_url(f"{world.product_url}/globex?**")
    expect(page.locator("p")).to_have_text("connected: 7001")
    assert world.customer(7001) == "globex"


def test_no_log_names_a_customer_or_contains_a_link(world: World, open_page: OpenPage) -> None:
    page = open_page()
    page.goto(f"{world.product_url}/globex/connect")
    page.get_by_role("link", name="Continue to HubSpot").click()
    choose_account(page, 7002)
    page.wait_for_url(f"{world.product_url}/globex?**")

    def read_logs() -> str:
        return "".join(process.output() for process in world.product.running)

    until(lambda: '"GET /connect/' in read_logs() and "7002" in read_logs())  # the worker may log it after the commit
    logs = read_logs()
    assert "globex" not in logs.lower()
    assert "eyJ" not in logs, "the beginning of every JWT and of its claims"


def test_a_person_who_denies_comes_back_to_the_example_and_can_try_again(world: World, open_page: OpenPage) -> None:
    page = open_page()
    page.goto(f"{world.product_url}/acme/connect")
    page.get_by_role("link", name="Continue to HubSpot").click()
    page.get_by_role("button", name="Deny").click()
    page.wait_for_url(f"{world.product_url}/acme?status=denied**")


def test_a_frame_of_another_site_has_no_cookies(world: World, open_page: OpenPage) -> None:
    """Otherwise the tests above would not show that the Marketplace's frames need none."""
    page = open_page()
    page.goto(f"{world.product_url}/acme")
    assert page.evaluate(SET_COOKIE) == "probe=1"
    page.goto(f"{world.simulator.base_url}/marketplace")
    page.evaluate(ADD_FRAME, f"{world.product_url}/acme")
    assert page.frame_locator("iframe").get_by_role("heading").evaluate(SET_COOKIE) == ""


def open_link(world: World, page: Page) -> None:
    page.goto(f"{world.product_url}/acme/connect")
    expect_heading(page, "Connect HubSpot for Acme Ltd")
    expect(page.locator("main")).to_contain_text(world.product_url)


def expect_back_in_product(world: World, page: Page, hub_id: int) -> None:
    page.wait_for_url(f"{world.product_url}/acme?**")
    query = parse_qs(urlsplit(page.url).query)
    assert (query["status"], query["customer"], query["hub_id"]) == (["connected"], ["acme"], [str(hub_id)])
    expect(page.locator("p")).to_contain_text(str(hub_id))


def sign_in_and_allow(page: Page) -> Page:
    """The tab in which HubSpot opens the app's sign-in, and then asks for consent."""
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Sign in to the app").click()
    opened.value.get_by_role("button", name="Connect app").click()
    return opened.value


def expect_frame(page: Page, heading: str) -> None:
    expect(page.frame_locator("iframe").get_by_role("heading", level=1)).to_have_text(heading)


def begin_in_marketplace(world: World, page: Page, hub_id: int, flow: str, *, return_query: str = "") -> None:
    """Chooses the account and the kind of listing on HubSpot's page, and installs."""
    page.goto(f"{world.simulator.base_url}/marketplace")
    page.get_by_label("install URL, where it is not").fill(f"{world.url}/marketplace")
    # The page lists accounts that exist already: any other number will do.
    page.locator("input[name=hub_id]").first.evaluate(
        "(radio, hub) => { radio.value = hub; radio.checked = true }", str(hub_id)
    )
    page.get_by_label(flow).check()
    page.get_by_label("query of returnUrl").fill(return_query)
    page.get_by_role("button", name="Install app").click()


def expect_installed(world: World, page: Page, hub_id: int) -> None:
    """HubSpot's page in the frame says so, and HubSpot has seen the browser come back in it."""
    expect_frame(page, "The app is installed")
    (install,) = [
        each for each in world.simulator.list_marketplace_installs() if each["installation"]["hub_id"] == hub_id
    ]
    assert install["is_complete"]
    assert install["visits"][-1]["fetch_dest"] == "iframe"
