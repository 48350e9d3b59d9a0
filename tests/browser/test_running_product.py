"""The pages in a browser while the whole product runs: web, worker and beat, against the simulator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from sandbox.child_processes import ChildProcess
from sandbox.embedded import EmbeddedValkey
from sandbox.simulator.control import SimulatorControl
from tests.browser.conftest import OpenPage
from tests.browser.sites import DARK, NO_SCRIPT, PHONE, AdminBrowser, expect_heading, open_sql
from tests.browser.test_install import IS_CONNECTED, choose_account
from tests.support.databases import Databases
from tests.support.deployment import Deployment
from tests.support.environment import SHORT_WAITS, product_environment
from tests.support.polling import until
from tests.support.product import Product

pytestmark = pytest.mark.browser

with_and_without_script = pytest.mark.parametrize("options", [{}, NO_SCRIPT], ids=["script", "no_script"])


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path_factory.mktemp("valkey"), durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def web_alone(
    databases: Databases,
    valkey: EmbeddedValkey,
    simulator_process: ChildProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """Web, until a test starts the worker and beat too. Shared by the tests of this file: a start takes seconds."""
    with (
        databases.create_migrated() as database_url,
        SimulatorControl(simulator_process.url) as simulator,
        open_sql(database_url) as sql,
    ):
        simulator.reset(settings=True, accounts=True)
        environment = product_environment(
            databases.as_worker(database_url),
            valkey.url(),
            simulator.base_url,
            WEB_DATABASE_URL=databases.as_web(database_url),
            **SHORT_WAITS,
        )
        product = Product(environment, tmp_path_factory.mktemp("running-product"))
        try:
            product.web()
            yield Deployment(product, simulator, sql)
        finally:
            for process in product.running:
                process.kill()


@pytest.fixture
def running(web_alone: Deployment) -> Deployment:
    """With web, worker and beat. They keep running for the tests after this one."""
    if not is_worker_running(web_alone):
        web_alone.start(web=False)
    return web_alone


def is_worker_running(world: Deployment) -> bool:
    return any(process.status is None for process in world.processes_named("worker"))


def for_hub(running: Deployment, hub_id: int) -> Deployment:
    return Deployment(running.product, running.simulator, running.sql, hub_id)


def open_connection(world: Deployment, open_page: OpenPage, **options: Any) -> Any:
    admin = AdminBrowser(world.url, world.product.environment["OPERATOR_PASSWORD"], open_page)
    return admin.open(f"/connections/{world.hub}", **options)


def test_an_install_during_an_outage_of_redis_and_the_worker_gets_its_accounts_name_later(
    web_alone: Deployment, valkey: EmbeddedValkey, open_page: OpenPage
) -> None:
    """Web stores it at once. The page shows the name without a reload, once a worker runs again."""
    world = for_hub(web_alone, 791)
    world.simulator.change_account(791, name="Acme Ltd", account_type="SANDBOX", hublet="eu1")
    for process in (*world.processes_named("worker"), *world.processes_named("beat")):
        process.kill()
    valkey.stop()
    page = open_page()
    page.goto(f"{world.url}/install")
    choose_account(page, 791)
    expect_heading(page, "Account 791 is connected")
    token = world.token()
    assert token is not None
    assert world.are_live(token)
    page.evaluate("document.wasNotReloaded = true")
    valkey.start()
    world.start(web=False)
    expect_heading(page, "Acme Ltd is connected")
    expect(page.locator("#account")).to_have_text("Acme Ltd, sandbox, EU")
    assert page.evaluate("document.wasNotReloaded")


@pytest.mark.parametrize(
    ("hub_id", "options"),
    [(777, {}), (776, {**NO_SCRIPT, **PHONE, **DARK})],
    ids=["desktop", "no_script_on_a_dark_phone"],
)
def test_an_account_is_connected_by_clicking(
    running: Deployment, open_page: OpenPage, hub_id: int, options: dict[str, Any]
) -> None:
    world, page = for_hub(running, hub_id), open_page(**options)
    page.goto(world.url)
    page.get_by_role("link", name="Connect to HubSpot").click()
    choose_account(page, hub_id)
    expect(page.get_by_role("heading")).to_have_text(IS_CONNECTED)
    facts = page.locator("dl")
    expect(facts).to_contain_text(str(hub_id))
    expect(facts).to_contain_text("Read contacts")
    expect(facts).not_to_contain_text("asking HubSpot")
    token = world.token()
    assert token is not None
    assert world.are_live(token)


@with_and_without_script
def test_refresh_now_fetches_another_token(running: Deployment, open_page: OpenPage, options: dict[str, Any]) -> None:
    world = for_hub(running, 797 + len(options))
    old_token = world.connect()
    page = open_connection(world, open_page, **options)
    page.get_by_role("button", name="Refresh now").click()
    expect(page.get_by_role("status").filter(has_text="Due now")).to_be_visible()
    new_token = until(lambda: (token := world.token()) != old_token and token)
    assert world.are_live(new_token)
    assert old_token not in page.content()
    assert new_token not in page.content()


@with_and_without_script
def test_disconnect_asks_first_and_then_ends_the_connection_here_and_at_hubspot(
    running: Deployment, open_page: OpenPage, options: dict[str, Any]
) -> None:
    world = for_hub(running, 787 + len(options))
    token = world.connect()
    page = open_connection(world, open_page, **options)
    page.get_by_role("link", name="Disconnect…").click()
    page.get_by_role("link", name="Cancel").click()
    assert world.token() == token
    page.get_by_role("link", name="Disconnect…").click()
    page.get_by_role("button", name="Disconnect").click()
    expect(page.get_by_role("status").filter(has_text="Disconnected.")).to_be_visible()
    assert world.token() is None
    expect(page.locator("#head .badge")).to_have_text("disconnected")
    until(lambda: not world.are_live(token))
    assert not is_installed_at_hubspot(world, open_page)


def is_installed_at_hubspot(world: Deployment, open_page: OpenPage) -> bool:
    """According to the simulator's list of accounts that have the app."""
    page = open_page()
    page.goto(world.simulator.base_url)
    if page.get_by_text(f"· {world.hub}").count() == 0:
        return False
    return "not connected" not in page.locator("div.account", has_text=f"· {world.hub}").inner_text()
