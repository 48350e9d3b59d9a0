"""Every page, in every state that it has, passes axe-core's rules: light and dark, on a desktop and on a phone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import jwt
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Page

from sandbox.child_processes import ChildProcess
from sandbox.ports import find_free_port
from sandbox.simulator.control import SimulatorControl
from tests.browser.conftest import TIMEOUT_MS, OpenPage, recording_console_errors
from tests.browser.sites import Site, expect_heading, open_connections, open_sql
from tests.support import database_states
from tests.support.apps_file import use_apps_file
from tests.support.databases import Databases
from tests.support.environment import product_environment
from tests.support.http_server import serving

pytestmark = pytest.mark.browser

DESKTOP, PHONE, SMALLEST = (1280, 800), (375, 740), (320, 568)
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
ALL_RULES = {"runOnly": {"type": "tag", "values": TAGS}, "resultTypes": ["violations"]}
#: The dark scheme differs in its colours only.
COLOUR_RULES = {"runOnly": {"type": "rule", "values": ["color-contrast"]}, "resultTypes": ["violations"]}
#: Marks each row of a table whose markup differs from that of a row before it in digits only.
MARK_REPEATED_ROWS = """() => document.querySelectorAll("tbody").forEach(body => {
  const known = new Set();
  for (const row of body.rows) {
    const shape = row.outerHTML.replace(/[0-9]+/g, "0");
    row.toggleAttribute("data-repeated", known.has(shape));
    known.add(shape);
  }
})"""
CHECKED_PART = {"include": [["html"]], "exclude": [["[data-repeated]"]]}
#: State of the database, address, and the page's first heading.
ADMIN_PAGES = [
    ("empty", "/operator", "Nothing is refreshed."),
    ("healthy", "/operator", "All 60 connections have a valid token."),
    ("troubled", "/operator", "2 connections are held by the brake."),
    ("empty", "/connections", "Connections"),
    ("healthy", "/connections", "Connections"),
    ("healthy", "/connections?q=shop-1&sort=domain", "Connections"),
    ("healthy", "/connections?q=unknown", "Connections"),
    ("troubled", "/connections", "Connections"),
    ("troubled", "/connections?sort=failures", "Connections"),
    ("troubled", "/connections?status=disconnected", "Connections"),
    ("healthy", "/connections/62515", "shop-00.example"),
    ("healthy", "/connections/62515?notice=ended", "shop-00.example"),
    ("troubled", f"/connections/{database_states.REVOKED_HUB}", f"Account {database_states.REVOKED_HUB}"),
    ("troubled", f"/connections/{database_states.HELD_HUB}", f"Account {database_states.HELD_HUB}"),
    ("troubled", f"/connections/{database_states.FAILING_HUB}", f"shop-{database_states.FAILING_HUB}.example"),
    (
        "troubled",
        f"/connections/{database_states.DISCONNECTED_HUB}",
        f"shop-{database_states.DISCONNECTED_HUB}.example",
    ),
    ("troubled", f"/connections/{database_states.IMPORTED_HUB}", f"Account {database_states.IMPORTED_HUB}"),
    ("troubled", f"/connections/{database_states.LONG_NAME_HUB}", database_states.LONG_ACCOUNT.name),
    ("troubled", f"/connections/{database_states.LARGEST_HUB}", f"shop-{database_states.LARGEST_HUB}.example"),
    ("healthy", "/connections/62515/disconnect", "Disconnect shop-00.example?"),
    (
        "troubled",
        f"/connections/{database_states.LONG_NAME_HUB}/disconnect",
        f"Disconnect {database_states.LONG_ACCOUNT.name}?",
    ),
    (
        "troubled",
        f"/connections/{database_states.DISCONNECTED_HUB}/disconnect",
        "shop-22.example is already disconnected",
    ),
    ("empty", "/connections/7", "There is no such connection"),
    ("empty", "/connections?sort=x", "This address is not valid"),
    ("unreachable", "/operator", "PostgreSQL does not answer"),
]
SWEPT_STATES = ("healthy", "troubled")
PUBLIC_PAGES = [
    ("/", "Connect your HubSpot account"),
    ("/nowhere", "There is no such page"),
    ("/install?hub_id=x", "That is not a HubSpot account number"),
    ("/oauth/callback?error=access_denied&state=x", "This link is damaged"),
]

LINK_SETTINGS = {
    "CONNECT_LINK_KEYS": "a-key-of-32-random-characters-or-more",
    "CONNECT_LINK_REQUIRED": "true",
    "RETURN_TO_ORIGINS": "https://app.example",
    "HUBSPOT_OPTIONAL_SCOPES": "crm.objects.deals.read",
}
LONG_NAME = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"

#: Of every site, so that one browser context may open all pages.
PASSWORD = "the-operators-password-of-every-site"

Sites = Mapping[str, Site]


@pytest.fixture(scope="module")
def sites(
    databases: Databases,
    redis_server: Callable[[int], str],
    simulator_process: ChildProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Sites]:
    """A site for each state of the database, and one whose database does not answer."""
    with ExitStack() as stack, SimulatorControl(simulator_process.url) as simulator:
        simulator.reset(settings=True, accounts=True)
        database_urls = {"unreachable": f"postgresql://user@127.0.0.1:{find_free_port()}/unreachable"}
        for state, fill in database_states.STATES.items():
            database_urls[state] = stack.enter_context(databases.create_migrated())
            with open_sql(database_urls[state]) as sql, open_connections(database_urls[state], sql) as connections:
                fill(connections, sql)
        redis_url, no_redis = redis_server(15), f"redis://127.0.0.1:{find_free_port()}/0"

        def serve(database: str, redis_url: str, apps: Mapping[str, Any] | None = None, **changes: str) -> Site:
            environment = product_environment(
                database_urls[database], redis_url, simulator.base_url, OPERATOR_PASSWORD=PASSWORD, **changes
            )
            if apps:
                environment = use_apps_file(environment, tmp_path_factory.mktemp("apps") / "apps.toml", apps)
            return Site(stack.enter_context(serving(environment)), PASSWORD, database_urls[database])

        sites = {state: serve(state, redis_url) for state in database_urls}
        apps = {
            "acme": {},
            "for_every_user": {"client_id": "another-app", "user_level": True, "optional_scopes": "files"},
        }
        sites["several apps"] = serve("empty", redis_url, apps)
        # Links work while no server does.
        sites["links"] = serve("unreachable", no_redis, **LINK_SETTINGS)
        yield sites


@pytest.fixture(scope="module")
def shared_page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(http_credentials={"username": "operator", "password": PASSWORD})
    context.set_default_timeout(TIMEOUT_MS)
    context.add_init_script(AXE_SCRIPT)
    yield context.new_page()
    context.close()


@pytest.fixture
def page(shared_page: Page, console_errors: list[str]) -> Iterator[Page]:
    """One page, without cookies, for one test after the other: to open another one takes CPU time."""
    with recording_console_errors(shared_page.context, console_errors):
        yield shared_page
    shared_page.context.clear_cookies()


def find_violations(page: Page) -> list[str]:
    """Of axe-core's rules, and pages that are wider than their window. The page has axe-core as an init script.

    Chromium runs that in spite of the Content-Security-Policy, and does not compile it again for each page.
    """
    page.evaluate(MARK_REPEATED_ROWS)
    violations = []
    for width, height in (DESKTOP, PHONE, SMALLEST):
        page.set_viewport_size({"width": width, "height": height})
        page_width = page.evaluate("document.scrollingElement.scrollWidth")
        if page_width > width:
            violations.append(f"the page is {page_width} px wide in a window of {width} px")
        if (width, height) == SMALLEST:
            continue
        for scheme, rules in (("light", ALL_RULES), ("dark", COLOUR_RULES)):
            page.emulate_media(color_scheme=scheme)
            for rule in page.evaluate("([part, rules]) => axe.run(part, rules)", [CHECKED_PART, rules])["violations"]:
                violations += [describe_violation(rule, node, scheme, width) for node in rule["nodes"]]
    return violations


def describe_violation(rule: dict[str, Any], node: dict[str, Any], scheme: str, width: int) -> str:
    return f"{scheme}, {width} px: {rule['id']}: {node['html'][:200]}\n  {node['failureSummary']}"


@pytest.mark.parametrize(
    ("database", "path", "heading"), ADMIN_PAGES, ids=[f"{database} {path}" for database, path, _ in ADMIN_PAGES]
)
def test_an_operators_page_is_accessible(sites: Sites, page: Page, database: str, path: str, heading: str) -> None:
    if database in SWEPT_STATES:
        with open_sql(sites[database].database_url) as sql:
            sql.rows("UPDATE tokenkeeper.provider SET swept_at = now()")  # half a minute later it would be overdue
    page.goto(sites[database].url + path)
    expect_heading(page, heading)
    assert find_violations(page) == []


@pytest.mark.parametrize(("path", "heading"), PUBLIC_PAGES, ids=[path for path, _ in PUBLIC_PAGES])
def test_a_public_page_is_accessible(sites: Sites, page: Page, path: str, heading: str) -> None:
    page.goto(sites["empty"].url + path)
    expect_heading(page, heading)
    assert find_violations(page) == []


@pytest.mark.parametrize("path", ["/", "/install?hub_id=62515"])
def test_the_page_that_asks_for_one_of_several_apps_is_accessible(sites: Sites, page: Page, path: str) -> None:
    page.goto(sites["several apps"].url + path)
    expect_heading(page, "Connect your HubSpot account")
    assert find_violations(page) == []
    page.get_by_text("What for_every_user will be able to do").click()
    assert find_violations(page) == []
    page.get_by_role("link", name="Connect acme").click()
    expect_heading(page, "An app wants to connect to your HubSpot account")


@pytest.mark.parametrize(
    ("claims", "heading"),
    [
        ({"name": "Acme Ltd", "return_to": "https://app.example/done"}, "Connect HubSpot for Acme Ltd"),
        ({"name": LONG_NAME, "hub_id": 62515}, f"Connect HubSpot for {LONG_NAME}"),
        ({"exp": 1}, "This link has expired"),
        ({"return_to": "https://other.example/"}, "This link was made incorrectly"),
    ],
)
def test_the_page_of_a_connect_link_is_accessible(
    sites: Sites, page: Page, claims: dict[str, Any], heading: str
) -> None:
    content = {"customer": "acme", "exp": time.time() + 600, "jti": "link-1"} | claims
    link = jwt.encode(content, LINK_SETTINGS["CONNECT_LINK_KEYS"], algorithm="HS256")
    page.goto(f"{sites['links'].url}/connect/{link}")
    expect_heading(page, heading)
    assert find_violations(page) == []


@pytest.mark.parametrize(
    ("path", "heading"),
    [
        ("/", "Connect your HubSpot account"),
        ("/install", "Please start in the product"),
        ("/marketplace?step=authorize", "HubSpot's address is not one that this site knows"),
        ("/marketplace?step=finalize&code=x&state=x", "This installation cannot be finished"),
    ],
)
def test_a_page_that_says_where_to_start_is_accessible(sites: Sites, page: Page, path: str, heading: str) -> None:
    page.goto(sites["links"].url + path)
    expect_heading(page, heading)
    assert find_violations(page) == []


def test_the_page_that_holds_a_grant_of_the_marketplace_is_accessible(
    sites: Sites, page: Page, simulator: SimulatorControl
) -> None:
    started = simulator.start_marketplace_install(62515, f"{sites['links'].url}/marketplace")
    page.goto(started.url)
    expect_heading(page, "Connecting account 62515")
    assert find_violations(page) == []


def test_an_app_that_is_not_offered_gets_an_accessible_page(sites: Sites, page: Page) -> None:
    page.goto(sites["several apps"].url + "/install?app=other")
    expect_heading(page, "There is no such app here")
    assert find_violations(page) == []


def test_the_page_for_a_wrong_password_is_accessible(sites: Sites, open_page: OpenPage) -> None:
    page = open_page(http_credentials={"username": "operator", "password": "wrong"})
    page.add_init_script(AXE_SCRIPT)
    page.goto(f"{sites['empty'].url}/operator")
    expect_heading(page, "This page requires the operator's password")
    assert find_violations(page) == []


def test_the_pages_of_an_install_are_accessible(sites: Sites, page: Page) -> None:
    """The install waits while a table is locked. Its domain stays unknown, as no worker runs."""
    site = sites["empty"]
    page.goto(f"{site.url}/install?hub_id=62515")
    expect_heading(page, "An app wants to connect to your HubSpot account")
    assert find_violations(page) == []
    with open_sql(site.database_url, autocommit=False) as lock:
        lock.rows("LOCK TABLE tokenkeeper.installs IN ACCESS EXCLUSIVE MODE")
        page.get_by_role("button", name="Connect app").click()
        expect_heading(page, "Connecting account 62515")
        assert find_violations(page) == []
    expect_heading(page, "Account 62515 is connected")
    assert find_violations(page) == []
    with open_sql(site.database_url) as sql:
        names = database_states.LONG_DOMAIN, database_states.LONG_ACCOUNT.name
        sql.rows("UPDATE tokenkeeper.accounts SET hub_domain = %s, account_name = %s", *names)
        page.reload()
        expect_heading(page, f"{database_states.LONG_ACCOUNT.name} is connected")
        assert find_violations(page) == []
        sql.rows("DELETE FROM tokenkeeper.connections")


def test_the_page_of_a_denied_install_is_accessible(sites: Sites, page: Page) -> None:
    page.goto(f"{sites['empty'].url}/install")
    page.get_by_role("button", name="Deny").click()
    expect_heading(page, "You did not allow the connection")
    assert find_violations(page) == []
