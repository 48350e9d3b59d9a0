"""A person connects an account in a browser: by mouse and by keyboard, on a phone, and while servers are down."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from sandbox.simulator.control import SimulatorControl
from shared.db.schema.migrate import migrate
from tests.browser.conftest import OpenPage
from tests.browser.keyboard import assert_tab_order, press, tab_to
from tests.browser.sites import NO_SCRIPT, PHONE, Site, expect_heading
from tests.support.http_server import serving

pytestmark = pytest.mark.browser

IS_CONNECTED = re.compile("is connected")


def choose_account(page: Page, hub_id: int) -> None:
    """Choose the account on HubSpot's consent page."""
    page.get_by_label("or type any other hub id").fill(str(hub_id))
    page.get_by_role("button", name="Connect app").click()


def expect_connected(page: Page, hub_id: int) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(IS_CONNECTED)
    expect(page.locator("dl")).to_contain_text(str(hub_id))


def test_an_account_is_connected_by_the_keyboard_alone(site: Site, open_page: OpenPage) -> None:
    page = open_page()
    page.goto(site.url)
    assert_tab_order(page)
    page.reload()
    tab_to(page, page.get_by_role("link", name="Connect to HubSpot"))
    press(page, "Enter")
    tab_to(page, page.get_by_label("or type any other hub id"))
    page.keyboard.type("783")
    tab_to(page, page.get_by_role("button", name="Connect app"))
    press(page, "Enter")
    expect_connected(page, 783)
    assert_tab_order(page)


def test_the_account_number_form_connects_that_account(site: Site, open_page: OpenPage) -> None:
    page = open_page()
    page.goto(site.url)
    page.get_by_text("I know my account's number").click()
    page.get_by_label("HubSpot account number").fill("62515")
    page.get_by_role("button", name="Connect this account").click()
    page.get_by_role("button", name="Connect app").click()
    expect_connected(page, 62515)


def test_after_a_denial_the_install_can_be_started_again(site: Site, open_page: OpenPage) -> None:
    page = open_page(**PHONE)
    page.goto(f"{site.url}/install")
    page.get_by_role("button", name="Deny").click()
    expect_heading(page, "You did not allow the connection")
    page.get_by_role("link", name="Start again").click()
    choose_account(page, 778)
    expect_connected(page, 778)


def test_a_reload_and_the_back_button_break_no_install(site: Site, open_page: OpenPage) -> None:
    page = open_page()
    page.goto(f"{site.url}/install")
    choose_account(page, 779)
    expect_connected(page, 779)
    page.reload()
    expect_connected(page, 779)
    page.go_back()
    choose_account(page, 780)
    expect_connected(page, 780)


def test_a_double_click_on_the_consent_page_connects_the_account(site: Site, open_page: OpenPage) -> None:
    page = open_page()
    page.goto(f"{site.url}/install")
    page.get_by_label("or type any other hub id").fill("781")
    page.get_by_role("button", name="Connect app").dblclick()
    expect_connected(page, 781)


def test_the_waiting_page_survives_an_outage_of_postgres_and_redis(
    environment: Any, own_postgres: Any, own_valkey: Any, simulator: SimulatorControl, open_page: OpenPage
) -> None:
    """With JavaScript the page asks for the status, without it the page reloads itself: both until it is stored."""
    migrate(own_postgres.url())
    with serving(environment(DATABASE_URL=own_postgres.url(), REDIS_URL=own_valkey.url())) as url:
        own_postgres.stop()
        own_valkey.stop()
        with_script, without_script = open_page(), open_page(**NO_SCRIPT)
        for page, hub_id in ((with_script, 790), (without_script, 791)):
            page.goto(f"{url}/install")
            choose_account(page, hub_id)
            expect_heading(page, f"Connecting account {hub_id}")
        for _ in range(2):
            with with_script.expect_response(re.compile("/status$")):
                pass
        with without_script.expect_event("load"):
            pass
        expect_heading(with_script, "Connecting account 790")
        expect_heading(without_script, "Connecting account 791")
        own_valkey.start()
        own_postgres.start()
        expect_connected(with_script, 790)
        expect_connected(without_script, 791)
