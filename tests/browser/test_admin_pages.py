"""The operator's pages in a browser, with JavaScript and without: their use, their updates and their protection."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.keyboard import assert_tab_order, press, tab_to
from tests.browser.sites import NO_SCRIPT, AdminBrowser, account_links, expect_heading
from tests.support import database_states
from tests.support.stores import ConnectionFixture, SqlFixture

pytestmark = pytest.mark.browser

with_and_without_script = pytest.mark.parametrize("options", [{}, NO_SCRIPT], ids=["script", "no_script"])
#: live.js fetches a page again after 5 seconds, and after 10 where the last fetch failed.
UPDATE_MS, RETRY_MS = 5_001, 10_001


# --- the overview ---


@with_and_without_script
def test_the_overview_shows_counts_charts_and_links(
    admin: AdminBrowser, connections: ConnectionFixture, sql: SqlFixture, options: dict[str, Any]
) -> None:
    database_states.fill_healthy(connections, sql)
    for hub_id in (1, 2):
        connections.install(hub_id)
    connections.stores.results.save([connections.make_revocation(connections.claim_one(1))])
    connections.stores.results.save([connections.make_failure(connections.claim_one(2))])
    summary_before = summarize_refreshes(sql)
    page = admin.open(**options)
    expect_heading(page, "1 connection is revoked.")
    expect(page.locator(".tile .number")).to_have_text(["61", "0", "1", "0"])
    expect(page.get_by_text("1 whose last refresh failed")).to_be_visible()
    # A step of five minutes may have ended since.
    either = f"{re.escape(summary_before)}|{re.escape(summarize_refreshes(sql))}"
    expect(page.locator("#activity > p")).to_have_text(re.compile(f"^({either})$"))
    chart = page.get_by_role("img", name="Refreshes and failures, in steps of five minutes")
    bars = chart.locator("rect.refreshed")
    expect(bars.nth(70)).to_be_visible()
    assert bars.count() in (71, 72), "none yet of a step that has begun since"
    page.get_by_text("The same as a table").click()
    table_rows = page.get_by_role("table", name="Refreshes and failures").get_by_role("row")
    expect(table_rows).to_have_count(1 + 72)
    page.get_by_role("link", name="revoked").click()
    expect(account_links(page)).to_have_text(["1"])


def summarize_refreshes(sql: SqlFixture) -> str:
    refreshed, failed = sql.rows(
        "SELECT sum(refreshed), sum(failed) FROM tokenkeeper.refreshes_by_minute"
        " WHERE minute >= date_bin('5 minutes', now(), to_timestamp(0)) - interval '355 minutes'"
    )[0]
    return f"In the last 6 h, {refreshed:,} refreshes succeeded and {failed:,} failed."


@with_and_without_script
@pytest.mark.parametrize(
    ("button", "notice", "counts"),
    [
        ("Dismiss: bring them back", "are active and due again, and the brake is off.", ["14", "0", "0", "1"]),
        ("Confirm: revoke them", "are revoked now, and the brake is off.", ["2", "0", "12", "1"]),
    ],
    ids=["dismiss", "confirm"],
)
def test_the_revocations_held_by_the_brake_are_dismissed_or_confirmed(
    admin: AdminBrowser,
    connections: ConnectionFixture,
    *,
    options: dict[str, Any],
    button: str,
    notice: str,
    counts: list[str],
) -> None:
    database_states.fill_brake_on(connections, connections.sql)
    page = admin.open(**options)
    expect_heading(page, "2 connections are held by the brake.")
    page.get_by_role("button", name=button).click()
    expect(page.get_by_role("status").filter(has_text=notice)).to_be_visible()
    expect(page.get_by_role("heading", name="The revocation brake is on")).to_have_count(0)
    expect(page.locator(".tile .number")).to_have_text(counts)


# --- the list ---


@with_and_without_script
def test_a_connection_among_hundreds_is_found_by_paging_and_by_search(
    admin: AdminBrowser, connections: ConnectionFixture, options: dict[str, Any]
) -> None:
    connections.import_due(220)
    connections.stores.save_account_info(217, "needle.example", "ann@needle.example")
    page = admin.open("/connections", **options)
    accounts = account_links(page)
    for first in range(1, 201, 50):
        expect(accounts.first).to_have_text(str(first))
        expect(accounts).to_have_count(50)
        page.get_by_role("link", name="Next page").click()
    expect(accounts).to_have_text([str(number) for number in range(201, 221)])
    expect(page.get_by_role("link", name="Next page")).to_have_count(0)
    page.get_by_role("link", name="Previous page").click()
    expect(accounts.first).to_have_text("151")
    search(page, "21")
    expect(accounts).to_have_text(["21", *(str(number) for number in range(210, 220))])
    search(page, "ANN@needle")
    expect(accounts).to_have_text(["217"])
    accounts.click()
    expect_heading(page, "needle.example")


@with_and_without_script
def test_the_list_is_filtered_and_sorted(
    admin: AdminBrowser, connections: ConnectionFixture, options: dict[str, Any]
) -> None:
    for hub_id, domain in ((1, "zoo.example"), (2, "bakery.example"), (3, "alp.example")):
        connections.install(hub_id)
        connections.stores.save_account_info(hub_id, domain, None)
    connections.stores.results.save([connections.make_revocation(connections.claim_one(2))])
    connections.stores.results.save([connections.make_failure(connections.claim_one(3))])
    page = admin.open("/connections", **options)
    expect(account_links(page)).to_have_text(["1", "2", "3"])
    page.get_by_role("link", name="Domain").click()
    expect(account_links(page)).to_have_text(["3", "2", "1"])
    expect(page.get_by_role("columnheader", name="Domain")).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("link", name="active (2)").click()
    expect(account_links(page)).to_have_text(["3", "1"])
    search(page, "zoo")
    expect(account_links(page)).to_have_text(["1"])
    page.get_by_role("link", name="revoked").click()
    expect(page.get_by_text("No connection that is revoked matches “zoo”.")).to_be_visible()
    page.get_by_role("link", name="Show all connections").click()
    page.get_by_role("link", name="Failures").click()
    expect(account_links(page)).to_have_text(["3"])


def search(page: Page, text: str) -> None:
    page.get_by_role("searchbox").fill(text)
    page.get_by_role("button", name="Search").click()


# --- one connection ---


@with_and_without_script
def test_the_link_of_a_revoked_connection_leads_the_customer_to_install_again(
    admin: AdminBrowser, connections: ConnectionFixture, open_page: OpenPage, options: dict[str, Any]
) -> None:
    connections.install(777)
    connections.stores.results.save([connections.make_revocation(connections.claim_one(777))])
    page = admin.open("/connections/777", **options)
    expect(page.get_by_role("heading", name="Ask the customer to install the app again")).to_be_visible()
    expect(page.locator(".history .event")).to_contain_text(["Revoked", "Installed"])
    customer = open_page(**options)
    customer.goto(page.get_by_label("Link for the customer").input_value())
    customer.get_by_role("button", name="Connect app").click()
    expect(customer.get_by_role("heading", level=1)).to_have_text(re.compile("777 is connected"))
    page.reload()
    expect(page.locator("#head .badge")).to_have_text("active")


# --- live updates ---


def test_open_pages_are_updated_without_a_reload(
    admin: AdminBrowser, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    database_states.fill_healthy(connections, sql)
    pages = overview, rows, one = [admin.new_page(has_clock=True) for _ in range(3)]
    for page, path in zip(pages, ("/operator", "/connections", "/connections/62515"), strict=True):
        page.goto(path)
        page.evaluate("document.wasNotReloaded = true")
    expect_heading(overview, "All 60 connections have a valid token.")
    expect(one.get_by_text("SELECT access_token")).to_be_visible()
    one.get_by_text("Account number").select_text()
    rows.get_by_role("searchbox").fill("typed so far")
    connections.stores.results.save([connections.make_revocation(connections.claim_one(62515))])
    overview.clock.run_for(UPDATE_MS)  # the clock of all three
    expect_heading(overview, "1 connection is revoked.")
    expect(overview.locator(".tile .number")).to_have_text(["59", "0", "1", "0"])
    expect(rows.get_by_role("row", name="62515").locator(".badge")).to_have_text("revoked")
    expect(one.locator("#head .badge")).to_have_text("revoked")
    expect(one.get_by_label("Link for the customer")).to_be_visible()
    expect(one.get_by_text("SELECT access_token")).to_have_count(0)
    assert one.evaluate("String(getSelection())") == "Account number"
    expect(rows.get_by_role("searchbox")).to_have_value("typed so far")
    assert all(page.evaluate("document.wasNotReloaded") for page in pages)


def test_the_result_of_an_action_is_removed_once_the_page_shows_another_state(
    admin: AdminBrowser, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    """A time alone is no other state."""
    connections.install()
    page = admin.new_page(has_clock=True)
    page.goto("/connections/62515")
    page.get_by_role("button", name="Refresh now").click()
    notice = page.get_by_text("Due now; the next sweep refreshes it.")
    expect(notice).to_be_visible()
    sql.rows("UPDATE tokenkeeper.connections SET expires_at = expires_at + interval '2 days'")
    page.clock.run_for(UPDATE_MS)
    expect(page.locator("#facts")).to_contain_text("(in 2 d)")
    expect(notice).to_be_visible()
    connections.stores.refresh_requests.apply()
    page.clock.run_for(UPDATE_MS)
    expect(notice).to_have_count(0)


def test_a_page_says_that_it_gets_no_answer_and_recovers(admin: AdminBrowser, console_errors: list[str]) -> None:
    page = admin.new_page(has_clock=True)
    page.goto("/operator")
    indicator = page.locator("#live")
    expect(indicator).to_have_text("Live.")
    page.context.set_offline(True)
    try:
        page.clock.run_for(UPDATE_MS)
        expect(indicator).to_have_text("Not live: no answer at the moment. Trying again in 10 s.")
    finally:
        page.context.set_offline(False)
    page.clock.run_for(RETRY_MS)
    expect(indicator).to_have_text("Live.")
    console_errors.clear()  # caused by being offline


# --- the keyboard ---


@pytest.mark.parametrize("path", ["/operator", "/connections", "/connections/1", "/connections/13/disconnect"])
def test_the_tab_key_reaches_everything_in_order_with_a_visible_focus(
    admin: AdminBrowser, connections: ConnectionFixture, sql: SqlFixture, path: str
) -> None:
    database_states.fill_brake_on(connections, sql)
    database_states.fill_refresh_history(sql)
    assert_tab_order(admin.open(path))


def test_a_connection_is_found_and_disconnected_by_the_keyboard_alone(
    admin: AdminBrowser, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    """Through the menu and the search to a connection, and to its disconnect."""
    for hub_id in (62515, 777):
        connections.install(hub_id)
    page = admin.open("/connections")
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
    assert sql.read_served_token(777) is None
    assert sql.read_served_token(62515) is not None


# --- the password ---


def test_a_page_shows_nothing_without_the_password(
    admin: AdminBrowser, open_page: OpenPage, connections: ConnectionFixture
) -> None:
    connections.install()
    page = open_page(base_url=admin.url, http_credentials={"username": "operator", "password": "wrong"})
    for path in ("/operator", "/connections", "/connections/62515", "/connections/7", "/connections/62515/disconnect"):
        response = page.goto(path)
        assert response is not None
        assert response.status == 401
        assert response.header_value("www-authenticate") == 'Basic realm="tokenkeeper", charset="UTF-8"'
        expect_heading(page, "This page requires the operator's password")
        assert "62515" not in page.locator("main").inner_text()
