"""Render docs/images again: the pages as people see them, in the system's Chromium. `make screenshots`.

Web and the simulator run as in the browser tests, with an embedded PostgreSQL full of invented accounts. No worker
runs, so that nothing changes while the images are taken. No Redis runs either, so that web stores the install itself.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from sandbox.child_processes import ChildProcess
from sandbox.embedded import EmbeddedPostgres
from sandbox.ports import find_free_port, find_free_port_from
from shared.db.core.engine import make_engine
from shared.db.refresh.leases import RefreshResult
from shared.db.schema.migrate import migrate
from shared.domain import connection as rules
from shared.domain.account import AccountDetails
from shared.domain.errors import InvalidGrant, TemporarilyUnavailable
from shared.domain.grant import Introspection
from tests.support.chromium import ARGUMENTS, NAMES, find_chromium
from tests.support.environment import ROOT, inherited_environment, product_environment
from tests.support.http_server import serving
from tests.support.product import url_responds
from tests.support.stores import ConnectionFixture, SqlFixture, Stores

IMAGES = ROOT / "docs" / "images"
CUSTOMER_WINDOW: dict[str, Any] = {"viewport": {"width": 800, "height": 600}}
DESKTOP: dict[str, Any] = {"viewport": {"width": 1200, "height": 1130}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}
MARGIN_PIXELS = 16  #: below the last element of an image
DARK: dict[str, Any] = {"color_scheme": "dark"}

SCOPES = ("oauth", "crm.objects.contacts.read", "crm.objects.contacts.write", "crm.objects.deals.read")
INSTALLED_ACCOUNT = (62515, "northwind-bakery.example", "olive@northwind-bakery.example")
ACCOUNT_DETAILS = AccountDetails(62515, "Northwind Bakery", "STANDARD", "eu1")
FIRST_WORDS = ("alpine", "harbour", "copper", "maple", "river", "cedar", "amber", "willow")
SECOND_WORDS = ("dental", "bicycles", "books", "travel", "roasters")
USER_NAMES = ("ann", "sam", "ingrid", "wu", "olive")
REVOKED_INDEX, SUSPECT_INDEX, FAILING_INDEX, DISCONNECTED_INDEX = 5, 9, 17, 28  #: indices of accounts
#: Minutes ago: an outage of HubSpot, and the refreshes that were late because of it.
OUTAGE_MINUTES, BACKLOG_MINUTES = range(118, 131), range(114, 118)
CORRELATION_ID = "c61c656a-a842-4453-ab02-da5c045834a9"
INVALID_REFRESH_TOKEN = InvalidGrant("BAD_REFRESH_TOKEN", http_status=400, correlation_id=CORRELATION_ID)

#: One account has a history: nine days ago HubSpot did not answer for two minutes.
INSERT_HISTORY = """
INSERT INTO tokenkeeper.history (hub_id, at, event, detail) VALUES
    (%(hub)s, now() - interval '9 days 2 min', 'refresh_failed', '{"code": "server_error", "http_status": 502}'),
    (%(hub)s, now() - interval '9 days', 'recovered', '{"failures": 4}')
"""
BACKDATE_INSTALLS = """
UPDATE tokenkeeper.connections SET installed_at = now() - interval '1 day' * (2 + hub_id % 61);
UPDATE tokenkeeper.connections SET status_since = installed_at WHERE status = 'active';
UPDATE tokenkeeper.history AS h SET at = c.installed_at
  FROM tokenkeeper.connections AS c WHERE c.hub_id = h.hub_id AND event = 'installed';
UPDATE tokenkeeper.history SET at = now() - interval '187 min'
 WHERE hub_id = %(hub)s AND at > now() - interval '1 hour';
UPDATE tokenkeeper.connections SET status_since = now() - interval '187 min' WHERE hub_id = %(hub)s;
"""
INSERT_MINUTE = """
INSERT INTO tokenkeeper.refreshes_by_minute
VALUES (date_trunc('minute', now()) - make_interval(mins => %s), %s, %s)
"""
RECORD_SWEEP = """
UPDATE tokenkeeper.provider
   SET swept_at = now(), last_success_at = now() - interval '6 s', since = now() - interval '9 days'
"""


def main() -> int:
    chromium = find_chromium()
    if chromium is None:
        print(f"screenshots need Chromium: none of {', '.join(NAMES)} is on PATH", file=sys.stderr)
        return 1
    with ExitStack() as stack:
        site = stack.enter_context(run_site())
        playwright = stack.enter_context(sync_playwright())
        camera = Camera(playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS), site)
        take_install_pages(camera)
        take_admin_pages(camera)
    return 0


@dataclass(frozen=True, slots=True)
class Site:
    url: str
    password: str
    connections: ConnectionFixture
    sql: SqlFixture


@contextmanager
def run_site() -> Iterator[Site]:
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tokenkeeper-screenshots-")))
        state.chmod(0o711)  # as root, PostgreSQL's own account passes through
        database_url = stack.enter_context(run_postgres(state))
        simulator = stack.enter_context(run_simulator(state))
        settings = product_environment(
            database_url,
            f"redis://127.0.0.1:{find_free_port()}/0",
            simulator,
            # The port of the manual, where it is free: the images show it.
            HUBSPOT_REDIRECT_URI=f"http://localhost:{find_free_port_from(5000)}/oauth/callback",
            HUBSPOT_SCOPES=" ".join(SCOPES),
        )
        engine = make_engine(database_url)
        stack.callback(engine.dispose)
        connection = psycopg2.connect(database_url)
        stack.callback(connection.close)
        connection.autocommit = True
        sql = SqlFixture(connection)
        connections = ConnectionFixture(Stores(engine, lease_seconds=60), sql)
        yield Site(stack.enter_context(serving(settings)), settings["OPERATOR_PASSWORD"], connections, sql)


@contextmanager
def run_postgres(state: Path) -> Iterator[str]:
    server = EmbeddedPostgres(state, durable=False)
    server.start()
    try:
        migrate(server.url())
        yield server.url()
    finally:
        server.stop()


@contextmanager
def run_simulator(state: Path) -> Iterator[str]:
    port = find_free_port()
    argv = [sys.executable, "-m", "sandbox.simulator", "--port", str(port), "--lifetime", "1800"]
    running = ChildProcess(
        "simulator", argv, inherited_environment(), state / "simulator.log", url=f"http://localhost:{port}"
    )
    try:
        running.wait_until(url_responds("/_sim/health"))
        yield running.url
    finally:
        running.stop()


class Camera:
    def __init__(self, browser: Browser, site: Site) -> None:
        self.site = site
        self._browser = browser

    @contextmanager
    def page(self, **options: Any) -> Iterator[Page]:
        credentials = {"username": "operator", "password": self.site.password}
        context = self._browser.new_context(base_url=self.site.url, http_credentials=credentials, **options)
        yield context.new_page()
        context.close()


def take(page: Page, name: str) -> None:
    """The whole page."""
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    print(path.relative_to(ROOT))


def take_until(last: Locator, name: str) -> None:
    """The page down to the lower edge of `last`. Raises LookupError where that is not on the page."""
    page, box = last.page, last.bounding_box()
    if page.viewport_size is None or box is None:
        raise LookupError(f"{name}: the last element of the image is not on the page")
    page.set_viewport_size(
        {"width": page.viewport_size["width"], "height": round(box["y"] + box["height"]) + MARGIN_PIXELS}
    )
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path)
    print(path.relative_to(ROOT))


def take_install_pages(camera: Camera) -> None:
    hub_id, domain, user = INSTALLED_ACCOUNT
    with camera.page(**CUSTOMER_WINDOW) as page:
        page.goto("/")
        take(page, "home")
        page.get_by_role("link", name="Connect to HubSpot").click()
        take(page, "consent")
        page.get_by_role("button", name="Connect app").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(f"Account {hub_id} is connected")
        camera.site.connections.stores.save_account_info(hub_id, domain, user, ACCOUNT_DETAILS)
        expect(page.get_by_role("heading", level=1)).to_have_text(f"{ACCOUNT_DETAILS.name} is connected")
        take(page, "connected")


def take_admin_pages(camera: Camera) -> None:
    site = camera.site
    hubs = fill_database(site.connections, site.sql)
    for name, options in (("overview-light", DESKTOP), ("overview-dark", {**DESKTOP, **DARK})):
        with open_admin_page(camera, "/operator", options) as page:
            take_until(page.locator(".card", has=page.locator("#activity")), name)
    with open_admin_page(camera, "/operator", PHONE) as page:
        take_until(page.locator("#refreshing"), "phone")
    with open_admin_page(camera, "/connections", DESKTOP) as page:
        take_until(page.get_by_role("row").nth(12), "connections")
    with open_admin_page(camera, f"/connections/{hubs[REVOKED_INDEX]}", DESKTOP) as page:
        take_until(page.locator(".card", has=page.locator("#history")), "connection")


@contextmanager
def open_admin_page(camera: Camera, path: str, options: dict[str, Any]) -> Iterator[Page]:
    camera.site.sql.rows(RECORD_SWEEP)
    with camera.page(**options) as page:
        page.goto(path)
        yield page


def fill_database(connections: ConnectionFixture, sql: SqlFixture) -> list[int]:
    """40 accounts, a few of them with problems, and six hours of refreshes. Returns their hub ids."""
    hubs = [140_209 + 523_007 * index + index**2 * 7_919 % 400_000 for index in range(40)]
    for index, hub_id in enumerate(hubs):
        domain = f"{FIRST_WORDS[index % len(FIRST_WORDS)]}-{SECOND_WORDS[index % len(SECOND_WORDS)]}.example"
        connections.install(hub_id, ago=263 * index % 1000, scopes=SCOPES)
        user = f"{USER_NAMES[index * 3 % len(USER_NAMES)]}@{domain}"
        name = domain.partition(".")[0].replace("-", " ").title()
        details = AccountDetails(hub_id, name, "SANDBOX" if index % 9 == 0 else "STANDARD", "eu1")
        connections.stores.save_account_info(hub_id, domain, user, details)
    sql.rows(INSERT_HISTORY.replace("%(hub)s", str(hubs[REVOKED_INDEX])))
    connections.stores.results.save(
        [
            connections.make_failure(
                connections.claim_one(hubs[FAILING_INDEX]), TemporarilyUnavailable("server_error", http_status=502)
            )
        ]
    )
    connections.stores.results.save(
        [connections.make_failure(connections.claim_one(hubs[SUSPECT_INDEX]), INVALID_REFRESH_TOKEN)]
    )
    connections.stores.results.save([make_revocation(connections, hubs[REVOKED_INDEX])])
    connections.stores.disconnect(hubs[DISCONNECTED_INDEX])
    sql.rows(BACKDATE_INSTALLS.replace("%(hub)s", str(hubs[REVOKED_INDEX])))
    for minutes_ago in range(360):
        sql.rows(INSERT_MINUTE, minutes_ago, *count_refreshes(minutes_ago))
    return hubs


def make_revocation(connections: ConnectionFixture, hub_id: int) -> RefreshResult:
    claimed = connections.claim_one(hub_id)
    transition = rules.apply_failure(claimed.connection, INVALID_REFRESH_TOKEN, connections.stores.claims.clock.now())
    return RefreshResult(
        claimed.lease, rules.apply_introspection(transition, INVALID_REFRESH_TOKEN, Introspection(active=False))
    )


def count_refreshes(minutes_ago: int) -> tuple[int, int]:
    """Refreshed and failed in that minute: 40 accounts, each every 20 minutes; an outage two hours ago."""
    if minutes_ago in OUTAGE_MINUTES:
        return 0, 2
    refreshed = round(2 + math.sin(minutes_ago / 7) + math.sin(minutes_ago / 3) / 2)
    return refreshed + 4 * (minutes_ago in BACKLOG_MINUTES), int((minutes_ago + 1) % 97 == 0)


if __name__ == "__main__":
    sys.exit(main())
