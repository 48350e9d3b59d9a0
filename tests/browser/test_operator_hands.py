"""An operator's pages under the hands: they follow what happens, and the keyboard alone is enough."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.desk import Desk, account_links, headline
from tests.browser.keyboard import press, tab_to, tour
from tests.support import database_states
from tests.support.stores import ConnectionFixture, SqlFixture

pytestmark = pytest.mark.browser

# --- live ---


def test_pages_follow_what_happens_without_a_reload(
    desk: Desk, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    database_states.healthy(connections, sql)
    overview, rows, one = (desk.sit_down(path) for path in ("/operator", "/connections", "/connections/62515"))
    headline(overview, "All 60 connections are fresh.")
    one.get_by_text("SELECT access_token").select_text()
    rows.get_by_role("searchbox").fill("typed so far")
    for page in (overview, rows, one):
        page.evaluate("document.stayed = true")
    connections.stores.results.save([connections.revoked(connections.claim_one(62515))])
    headline(overview, "1 connection is revoked.")
    expect(overview.locator(".tile .number")).to_have_text(["59", "0", "1", "0"])
    expect(rows.get_by_role("row", name="62515").locator(".badge")).to_have_text("revoked")
    expect(one.locator("#head .badge")).to_have_text("revoked")
    expect(one.get_by_label("Link for the customer")).to_be_visible()
    assert "SELECT access_token" in one.evaluate("String(getSelection())")
    expect(rows.get_by_role("searchbox")).to_have_value("typed so far")
    assert all(page.evaluate("document.stayed") for page in (overview, rows, one))


def test_a_page_that_hears_nothing_says_so_and_comes_back(desk: Desk, complaints: list[str]) -> None:
    page = desk.browser()
    page.clock.install()
    page.goto("/operator")
    note = page.locator("#live")
    expect(note).to_have_text("Live.")
    page.context.set_offline(True)
    page.clock.run_for(5_001)
    expect(note).to_have_text("Not live: no answer at the moment. Trying again in 10 s.")
    page.context.set_offline(False)
    page.clock.run_for(10_001)
    expect(note).to_have_text("Live.")
    complaints.clear()  # of having been offline


# --- the keyboard ---


@pytest.mark.parametrize("path", ["/operator", "/connections", "/connections/1", "/connections/13/disconnect"])
def test_the_tab_key_reaches_everything_in_order_and_one_sees_where_it_is(
    desk: Desk, connections: ConnectionFixture, sql: SqlFixture, path: str
) -> None:
    database_states.braked(connections, sql)
    database_states.busy(sql)
    tour(desk.sit_down(path))


def test_the_keyboard_is_enough(desk: Desk, connections: ConnectionFixture, sql: SqlFixture) -> None:
    """Past the menu, into the search, to a connection, and to its end."""
    for hub_id in (62515, 777):
        connections.install(hub_id)
    page = desk.sit_down("/connections")
    press(page, "Tab", "Enter", "Tab")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("777")
    press(page, "Enter")
    expect(account_links(page)).to_have_text(["777"])
    tab_to(page, account_links(page))
    press(page, "Enter")
    tab_to(page, page.get_by_role("link", name="Disconnect…"))
    press(page, "Enter")
    tab_to(page, page.get_by_role("button", name="Disconnect"))
    press(page, "Enter")
    expect(page.get_by_role("status").filter(has_text="Disconnected.")).to_be_visible()
    assert sql.served(777) is None
    assert sql.served(62515) is not None
