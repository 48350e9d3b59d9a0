"""An operator at work in a browser, with JavaScript and without."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage, desk_of
from tests.browser.desk import NO_SCRIPT, Desk, account_links, headline
from tests.journeys.world import World
from tests.support import database_states
from tests.support.polling import until
from tests.support.stores import ConnectionFixture, SqlFixture

pytestmark = pytest.mark.browser

both = pytest.mark.parametrize("options", [{}, NO_SCRIPT], ids=["script", "no_script"])


# --- the overview ---


@both
def test_the_overview_shows_how_all_is_doing(
    desk: Desk, connections: ConnectionFixture, sql: SqlFixture, options: dict[str, Any]
) -> None:
    database_states.healthy(connections, sql)
    for hub_id in (1, 2):
        connections.install(hub_id)
    connections.stores.results.save([connections.revoked(connections.claim_one(1))])
    connections.stores.results.save([connections.failed(connections.claim_one(2))])
    page = desk.sit_down(**options)
    headline(page, "1 connection is revoked.")
    tiles = page.locator(".tile .number")
    expect(tiles).to_have_text(["61", "0", "1", "0"])
    expect(page.get_by_text("1 whose last refresh failed")).to_be_visible()
    refreshed, failed = sql.rows(
        "SELECT sum(refreshed), sum(failed) FROM tokenkeeper.refreshes_by_minute"
        " WHERE minute >= date_bin('5 minutes', now(), to_timestamp(0)) - interval '355 minutes'"
    )[0]
    told = f"In the last 6 h, {refreshed:,} refreshes succeeded and {failed:,} failed."
    expect(page.locator("#activity > p")).to_have_text(told)
    chart = page.get_by_role("img", name="Refreshes and failures, in steps of five minutes")
    expect(chart.locator("rect.refreshed")).to_have_count(72)
    page.get_by_text("The same as a table").click()
    numbers = page.get_by_role("table", name="Refreshes and failures").get_by_role("row")
    expect(numbers).to_have_count(1 + 72)
    page.get_by_role("link", name="revoked").click()
    expect(account_links(page)).to_have_text(["1"])


# --- the list ---


@both
def test_among_hundreds_one_is_found_by_paging_and_by_search(
    desk: Desk, connections: ConnectionFixture, options: dict[str, Any]
) -> None:
    connections.many_due(320)
    connections.stores.account_info.save(317, "needle.example", "ann@needle.example")
    page = desk.sit_down("/connections", **options)
    accounts = account_links(page)
    for first in range(1, 301, 50):
        expect(accounts.first).to_have_text(str(first))
        expect(accounts).to_have_count(50)
        page.get_by_role("link", name="Next page").click()
    expect(accounts).to_have_text([str(number) for number in range(301, 321)])
    expect(page.get_by_role("link", name="Next page")).to_have_count(0)
    page.get_by_role("link", name="Previous page").click()
    expect(accounts.first).to_have_text("251")
    seek(page, "31")
    expect(accounts).to_have_text(["31", *(str(number) for number in range(310, 320))])
    seek(page, "ANN@needle")
    expect(accounts).to_have_text(["317"])
    accounts.click()
    headline(page, "needle.example")


@both
def test_it_is_filtered_and_sorted(desk: Desk, connections: ConnectionFixture, options: dict[str, Any]) -> None:
    for hub_id, domain in ((1, "zoo.example"), (2, "bakery.example"), (3, "alp.example")):
        connections.install(hub_id)
        connections.stores.account_info.save(hub_id, domain, None)
    connections.stores.results.save([connections.revoked(connections.claim_one(2))])
    connections.stores.results.save([connections.failed(connections.claim_one(3))])
    page = desk.sit_down("/connections", **options)
    expect(account_links(page)).to_have_text(["1", "2", "3"])
    page.get_by_role("link", name="Domain").click()
    expect(account_links(page)).to_have_text(["3", "2", "1"])
    expect(page.get_by_role("columnheader", name="Domain")).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("link", name="active (2)").click()
    expect(account_links(page)).to_have_text(["3", "1"])
    seek(page, "zoo")
    expect(account_links(page)).to_have_text(["1"])
    page.get_by_role("link", name="revoked (1)").click()
    expect(page.get_by_text("No connection that is revoked matches “zoo”.")).to_be_visible()
    page.get_by_role("link", name="Show all connections").click()
    page.get_by_role("link", name="Failures").click()
    expect(account_links(page)).to_have_text(["3"])


def seek(page: Page, text: str) -> None:
    page.get_by_role("searchbox").fill(text)
    page.get_by_role("button", name="Search").click()


# --- one connection ---


@both
def test_a_revoked_one_leads_to_the_link_that_mends_it(
    desk: Desk, connections: ConnectionFixture, open_page: OpenPage, options: dict[str, Any]
) -> None:
    connections.install(777)
    connections.stores.results.save([connections.revoked(connections.claim_one(777))])
    page = desk.sit_down("/connections/777", **options)
    expect(page.get_by_role("heading", name="Ask the customer to install the app again")).to_be_visible()
    expect(page.locator(".history .event")).to_contain_text(["Revoked", "Installed"])
    customer = open_page(**options)
    customer.goto(page.get_by_label("Link for the customer").input_value())
    customer.get_by_role("button", name="Connect app").click()
    expect(customer.get_by_role("heading", level=1)).to_have_text(re.compile("777 is connected"))
    page.reload()
    expect(page.locator("#head .badge")).to_have_text("active")


# --- the brake ---


@both
@pytest.mark.parametrize(
    "decision",
    [
        ("Dismiss: bring them back", "are active and due again, and the brake is off.", ["14", "0", "0", "1"]),
        ("Confirm: revoke them", "are revoked now, and the brake is off.", ["2", "0", "12", "1"]),
    ],
    ids=["dismiss", "confirm"],
)
def test_the_brake_is_decided_upon(
    desk: Desk,
    connections: ConnectionFixture,
    sql: SqlFixture,
    options: dict[str, Any],
    decision: tuple[str, str, list[str]],
) -> None:
    button, notice, counts = decision
    database_states.braked(connections, sql)
    page = desk.sit_down(**options)
    headline(page, "2 connections are held by the brake.")
    page.get_by_role("button", name=button).click()
    expect(page.get_by_role("status").filter(has_text=notice)).to_be_visible()
    expect(page.get_by_role("heading", name="The revocation brake is on")).to_have_count(0)
    expect(page.locator(".tile .number")).to_have_text(counts)


# --- who may not ---


@pytest.mark.parametrize(
    "path", ["/operator", "/connections", "/connections/62515", "/connections/7", "/connections/62515/disconnect"]
)
def test_without_the_password_nothing_is_told(
    desk: Desk, open_page: OpenPage, connections: ConnectionFixture, path: str
) -> None:
    connections.install()
    stranger = open_page(http_credentials={"username": "operator", "password": "wrong"})
    answer = stranger.goto(desk.url + path)
    assert answer is not None
    assert answer.status == 401
    assert answer.header_value("www-authenticate") == 'Basic realm="tokenkeeper", charset="UTF-8"'
    headline(stranger, "This page is the operator's")
    assert "62515" not in stranger.locator("main").inner_text()


# --- with worker, beat and HubSpot ---


@both
def test_refresh_now_brings_another_token(standing: World, open_page: OpenPage, options: dict[str, Any]) -> None:
    world = World(standing.product, standing.simulator, standing.sql, 777 + len(options))
    token = world.connected()
    page = desk_of(world, open_page).sit_down(f"/connections/{world.hub}", **options)
    page.get_by_role("button", name="Refresh now").click()
    expect(page.get_by_role("status").filter(has_text="Due now")).to_be_visible()
    fresh = until(lambda: (now := world.token()) != token and now)
    assert world.live(fresh)
    assert token not in page.content()
    assert fresh not in page.content()


@both
def test_disconnect_asks_and_then_ends_it_here_and_at_hubspot(
    standing: World, open_page: OpenPage, options: dict[str, Any]
) -> None:
    world = World(standing.product, standing.simulator, standing.sql, 787 + len(options))
    token = world.connected()
    page = desk_of(world, open_page).sit_down(f"/connections/{world.hub}", **options)
    page.get_by_role("link", name="Disconnect…").click()
    page.get_by_role("link", name="Cancel").click()
    assert world.token() == token
    page.get_by_role("link", name="Disconnect…").click()
    page.get_by_role("button", name="Disconnect").click()
    expect(page.get_by_role("status").filter(has_text="Disconnected.")).to_be_visible()
    assert world.token() is None
    expect(page.locator("#head .badge")).to_have_text("disconnected")
    until(lambda: not world.live(token))
    assert uninstalled(world, open_page)


def uninstalled(world: World, open_page: OpenPage) -> bool:
    """By HubSpot's own list of who has the app."""
    page = open_page()
    page.goto(world.simulator.base_url)
    return page.get_by_text(f"· {world.hub}").count() == 0 or "not connected" in str(
        page.locator("form.account", has_text=f"· {world.hub}").inner_text()
    )
