"""Render docs/images anew: the pages as people see them, in the system's Chromium. `make screenshots`.

Web and the simulator run as in the browser tests, on an embedded PostgreSQL full of made-up accounts. No worker runs,
so that nothing moves while the pictures are taken; web stores the one install by itself, as where Redis is away.
"""

from __future__ import annotations

import math
import shutil
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
from shared.db.refresh.claims import RefreshResult
from shared.db.schema.migrate import migrate
from shared.domain import connection as rules
from shared.domain.errors import InvalidGrant, TemporarilyUnavailable
from shared.domain.grant import Introspection
from tests.browser.conftest import ARGUMENTS, NAMES
from tests.support.environment import ROOT, inherited_environment, product_environment
from tests.support.http_server import serving
from tests.support.product import url_responds
from tests.support.stores import ConnectionFixture, SqlFixture, Stores

IMAGES = ROOT / "docs" / "images"
PERSON: dict[str, Any] = {"viewport": {"width": 800, "height": 600}}
DESK: dict[str, Any] = {"viewport": {"width": 1200, "height": 1130}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}
MARGIN = 16  #: pixels below the last thing in a picture
DARK: dict[str, Any] = {"color_scheme": "dark"}

SCOPES = ("oauth", "crm.objects.contacts.read", "crm.objects.contacts.write", "crm.objects.deals.read")
CUSTOMER = (62515, "northwind-bakery.example", "olive@northwind-bakery.example")
FIRST = ("alpine", "harbour", "copper", "maple", "river", "cedar", "amber", "willow")
SECOND = ("dental", "bicycles", "books", "travel", "roasters")
PEOPLE = ("ann", "sam", "ingrid", "wu", "olive")
REVOKED, SUSPECT, FAILING, DISCONNECTED = 5, 9, 17, 28  #: by their place among the accounts
#: Minutes ago, of an outage of HubSpot and of what was made good after it.
OUTAGE, MADE_GOOD = range(118, 131), range(114, 118)
CORRELATION = "c61c656a-a842-4453-ab02-da5c045834a9"
DEAD = InvalidGrant("BAD_REFRESH_TOKEN", http_status=400, correlation_id=CORRELATION)

#: Nine days ago HubSpot was away for a moment; and this account has a past.
A_PAST = """
INSERT INTO tokenkeeper.history (hub_id, at, event, detail) VALUES
    (%(hub)s, now() - interval '9 days 2 min', 'refresh_failed', '{"code": "server_error", "http_status": 502}'),
    (%(hub)s, now() - interval '9 days', 'recovered', '{"failures": 4}')
"""
LONG_AGO = """
UPDATE tokenkeeper.connections SET installed_at = now() - interval '1 day' * (2 + hub_id % 61);
UPDATE tokenkeeper.connections SET status_since = installed_at WHERE status = 'active';
UPDATE tokenkeeper.history AS h SET at = c.installed_at
  FROM tokenkeeper.connections AS c WHERE c.hub_id = h.hub_id AND event = 'installed';
UPDATE tokenkeeper.history SET at = now() - interval '187 min'
 WHERE hub_id = %(hub)s AND at > now() - interval '1 hour';
UPDATE tokenkeeper.connections SET status_since = now() - interval '187 min' WHERE hub_id = %(hub)s;
"""
A_MINUTE = """
INSERT INTO tokenkeeper.refreshes_by_minute
VALUES (date_trunc('minute', now()) - make_interval(mins => %s), %s, %s)
"""
AWAKE = """
UPDATE tokenkeeper.provider
   SET swept_at = now(), last_success_at = now() - interval '6 s', since = now() - interval '9 days'
"""


def main() -> int:
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    if chromium is None:
        print(f"screenshots need Chromium: none of {', '.join(NAMES)} is on PATH", file=sys.stderr)
        return 1
    with ExitStack() as stack:
        site = stack.enter_context(sited())
        playwright = stack.enter_context(sync_playwright())
        camera = Camera(playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS), site)
        an_install(camera)
        an_operators_day(camera)
    return 0


@dataclass(frozen=True, slots=True)
class Site:
    url: str
    password: str
    connections: ConnectionFixture
    sql: SqlFixture


@contextmanager
def sited() -> Iterator[Site]:
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tokenkeeper-screenshots-")))
        state.chmod(0o711)  # as root, PostgreSQL's own account passes through
        database_url = stack.enter_context(postgres(state))
        simulator = stack.enter_context(simulated(state))
        settings = product_environment(
            database_url,
            f"redis://127.0.0.1:{find_free_port()}/0",
            simulator,
            # As in the manual, where that port is free: it is to be read in the pictures.
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
def postgres(state: Path) -> Iterator[str]:
    server = EmbeddedPostgres(state, durable=False)
    server.start()
    try:
        migrate(server.url())
        yield server.url()
    finally:
        server.stop()


@contextmanager
def simulated(state: Path) -> Iterator[str]:
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
        known = {"username": "operator", "password": self.site.password}
        context = self._browser.new_context(base_url=self.site.url, http_credentials=known, **options)
        yield context.new_page()
        context.close()


def take(page: Page, name: str) -> None:
    """The whole page."""
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    print(path.relative_to(ROOT))


def take_to(last: Locator, name: str) -> None:
    """The page down to the lower edge of `last`."""
    page, box = last.page, last.bounding_box()
    if page.viewport_size is None or box is None:
        raise LookupError(f"{name}: what it should end with is not on the page")
    page.set_viewport_size({"width": page.viewport_size["width"], "height": round(box["y"] + box["height"]) + MARGIN})
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path)
    print(path.relative_to(ROOT))


def an_install(camera: Camera) -> None:
    hub_id, domain, user = CUSTOMER
    with camera.page(**PERSON) as page:
        page.goto("/")
        take(page, "home")
        page.get_by_role("link", name="Connect to HubSpot").click()
        take(page, "consent")
        page.get_by_role("button", name="Connect app").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(f"Account {hub_id} is connected")
        camera.site.connections.stores.account_info.save(hub_id, domain, user)
        expect(page.get_by_role("heading", level=1)).to_have_text(f"{domain} is connected")
        take(page, "connected")


def an_operators_day(camera: Camera) -> None:
    site = camera.site
    hubs = furnished(site.connections, site.sql)
    for name, options in (("overview-light", DESK), ("overview-dark", {**DESK, **DARK})):
        with looked_at(camera, "/operator", options) as page:
            take_to(page.locator(".card", has=page.locator("#activity")), name)
    with looked_at(camera, "/operator", PHONE) as page:
        take_to(page.locator("#refreshing"), "phone")
    with looked_at(camera, "/connections", DESK) as page:
        take_to(page.get_by_role("row").nth(12), "connections")
    with looked_at(camera, f"/connections/{hubs[REVOKED]}", DESK) as page:
        take_to(page.locator(".card", has=page.locator("#history")), "connection")


@contextmanager
def looked_at(camera: Camera, path: str, options: dict[str, Any]) -> Iterator[Page]:
    camera.site.sql.rows(AWAKE)
    with camera.page(**options) as page:
        page.goto(path)
        yield page


def furnished(connections: ConnectionFixture, sql: SqlFixture) -> list[int]:
    """Forty accounts of which a few are in trouble, and six hours of refreshes; their hubs."""
    hubs = [140_209 + 523_007 * place + place**2 * 7_919 % 400_000 for place in range(40)]
    for place, hub_id in enumerate(hubs):
        domain = f"{FIRST[place % len(FIRST)]}-{SECOND[place % len(SECOND)]}.example"
        connections.install(hub_id, ago=263 * place % 1000, scopes=SCOPES)
        connections.stores.account_info.save(hub_id, domain, f"{PEOPLE[place * 3 % len(PEOPLE)]}@{domain}")
    sql.rows(A_PAST.replace("%(hub)s", str(hubs[REVOKED])))
    connections.stores.results.save(
        [
            connections.failed(
                connections.claim_one(hubs[FAILING]), TemporarilyUnavailable("server_error", http_status=502)
            )
        ]
    )
    connections.stores.results.save([connections.failed(connections.claim_one(hubs[SUSPECT]), DEAD)])
    connections.stores.results.save([revoked(connections, hubs[REVOKED])])
    connections.stores.disconnects.mark_and_read_tokens(hubs[DISCONNECTED])
    connections.stores.disconnects.wipe_tokens(hubs[DISCONNECTED])
    sql.rows(LONG_AGO.replace("%(hub)s", str(hubs[REVOKED])))
    for minutes_ago in range(360):
        sql.rows(A_MINUTE, minutes_ago, *activity(minutes_ago))
    return hubs


def revoked(connections: ConnectionFixture, hub_id: int) -> RefreshResult:
    claimed = connections.claim_one(hub_id)
    step = rules.apply_failure(claimed.connection, DEAD, connections.stores.claims.clock.now())
    return RefreshResult(claimed.lease, rules.apply_introspection(step, DEAD, Introspection(active=False)))


def activity(minutes_ago: int) -> tuple[int, int]:
    """Refreshed and failed: forty accounts, every twenty minutes; two hours ago HubSpot was away for a while."""
    if minutes_ago in OUTAGE:
        return 0, 2
    tide = round(2 + math.sin(minutes_ago / 7) + math.sin(minutes_ago / 3) / 2)
    return tide + 4 * (minutes_ago in MADE_GOOD), int((minutes_ago + 1) % 97 == 0)


if __name__ == "__main__":
    sys.exit(main())
