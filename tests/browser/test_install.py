"""A person connects an account, by clicking: with and without JavaScript, on a phone, and while servers are down."""

import re
from functools import partial

import pytest
from playwright.sync_api import expect

from sandbox.ports import find_free_port
from shared.db.schema.migrate import migrate
from tests.browser.desk import NO_SCRIPT, PHONE
from tests.browser.keyboard import press, tab_to, tour
from tests.support.http_server import serving
from tests.support.product import has_printed, url_responds

pytestmark = pytest.mark.browser

DARK = {"color_scheme": "dark"}


@pytest.fixture
def whole(product):
    """Web, worker and beat as they are run; the address a person types."""
    web = product.web(wait=False)
    worker = product.worker(wait=False)
    product.beat(wait=False)
    worker.wait_until(has_printed(" ready."))
    web.wait_until(url_responds("/healthz"))
    return web.url.replace("127.0.0.1", "localhost")


@pytest.fixture
def site(environment):
    """Web alone, which is enough: where no Redis answers, it stores an install itself."""
    with serving(environment(REDIS_URL=f"redis://127.0.0.1:{find_free_port()}/0")) as url:
        yield url


@pytest.fixture
def token_of(connect):
    def read(hub_id):
        with connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT access_token FROM hubspot.tokens WHERE hub_id = %s", (hub_id,))
            return (cursor.fetchone() or [None])[0]

    return read


def choose(page, hub_id, answer="Connect app"):
    page.get_by_label("or type any other hub id").fill(str(hub_id))
    page.get_by_role("button", name=answer).click()


def test_an_account_is_connected_by_clicking(whole, open_page, shot, simulator, token_of):
    for hub_id, options in ((777, {}), (776, {**NO_SCRIPT, **PHONE, **DARK})):
        page = open_page(**options)
        connect_by_clicking(page, whole, hub_id, partial(shot, page, hub_id))
        assert simulator.check_tokens([token_of(hub_id)])[0].is_live


def connect_by_clicking(page, site, hub_id, shot):
    page.goto(site)
    shot("1-home")
    page.get_by_role("link", name="Connect to HubSpot").click()
    shot("2-consent")
    choose(page, hub_id)
    expect(page.get_by_role("heading")).to_have_text(re.compile("is connected"))
    expect(page.locator("dl")).to_contain_text(str(hub_id))
    expect(page.locator("dl")).to_contain_text("Read contacts")
    expect(page.locator("dl")).not_to_contain_text("asking HubSpot", timeout=10_000)
    shot("3-connected")


def test_an_account_is_connected_by_the_keyboard_alone(site, open_page):
    page = open_page()
    page.goto(site)
    tour(page)
    page.reload()
    tab_to(page, page.get_by_role("link", name="Connect to HubSpot"))
    press(page, "Enter")
    tab_to(page, page.get_by_label("or type any other hub id"))
    page.keyboard.type("783")
    tab_to(page, page.get_by_role("button", name="Connect app"))
    press(page, "Enter")
    expect(page.get_by_role("heading")).to_have_text(re.compile("783 is connected"))
    tour(page)


def test_the_account_number_form_leads_to_that_account(site, open_page, shot):
    page = open_page()
    page.goto(site)
    page.get_by_text("I know my account's number").click()
    page.get_by_label("HubSpot account number").fill("62515")
    shot(page, "form")
    page.get_by_role("button", name="Connect this account").click()
    page.get_by_role("button", name="Connect app").click()
    expect(page.get_by_role("heading")).to_have_text(re.compile("is connected"))
    expect(page.locator("dl")).to_contain_text("62515")


def test_a_denial_is_told_and_can_be_mended(site, open_page, shot):
    page = open_page(**PHONE)
    page.goto(f"{site}/install")
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("heading")).to_have_text("You did not allow the connection")
    shot(page, "denied")
    page.get_by_role("link", name="Start again").click()
    choose(page, 778)
    expect(page.get_by_role("heading")).to_have_text(re.compile("is connected"))


def test_reload_and_back_button_do_no_harm(site, open_page, simulator):
    page = open_page()
    page.goto(f"{site}/install")
    choose(page, 779)
    expect(page.get_by_role("heading")).to_have_text(re.compile("is connected"))
    page.reload()
    expect(page.get_by_role("heading")).to_have_text(re.compile("is connected"))
    page.go_back()
    choose(page, 780)
    expect(page.get_by_role("heading")).to_have_text(re.compile("is connected"))
    expect(page.locator("dl")).to_contain_text("780")


def test_a_double_click_connects_once(site, open_page, simulator):
    page = open_page()
    page.goto(f"{site}/install")
    page.get_by_label("or type any other hub id").fill("781")
    page.get_by_role("button", name="Connect app").dblclick()
    expect(page.get_by_role("heading")).to_have_text(re.compile("is connected"))


@pytest.fixture
def down(environment, own_postgres, own_valkey):
    """Web, whose PostgreSQL and Redis are down; call `up` to start them."""
    migrate(own_postgres.url())
    with serving(environment(DATABASE_URL=own_postgres.url(), REDIS_URL=own_valkey.url())) as url:
        own_postgres.stop()
        own_valkey.stop()
        yield url, lambda: (own_valkey.start(), own_postgres.start())


@pytest.mark.parametrize("options", [{}, NO_SCRIPT], ids=["script", "no_script"])
def test_the_page_waits_out_an_outage(down, open_page, shot, options):
    site, up = down
    page = open_page(**options)
    page.goto(f"{site}/install")
    choose(page, 790)
    expect(page.get_by_role("heading")).to_have_text("Connecting account 790")
    shot(page, "waiting")
    page.wait_for_timeout(2500)
    expect(page.get_by_role("heading")).to_have_text("Connecting account 790")
    up()
    expect(page.get_by_role("heading")).to_have_text(re.compile("is connected"), timeout=20_000)


def test_while_redis_and_the_worker_are_down_it_is_connected_and_the_domain_follows(
    product, own_valkey, open_page, token_of, simulator
):
    product.environment.update(REDIS_URL=own_valkey.url())
    web = product.web()
    own_valkey.stop()
    page = open_page()
    page.goto(f"{web.url.replace('127.0.0.1', 'localhost')}/install")
    choose(page, 791)
    expect(page.get_by_role("heading")).to_have_text("Account 791 is connected")
    assert simulator.check_tokens([token_of(791)])[0].is_live
    page.evaluate("document.stayed = true")
    own_valkey.start()
    product.worker()
    product.beat()
    expect(page.get_by_role("heading")).not_to_have_text("Account 791 is connected")
    expect(page.get_by_role("heading")).to_have_text(re.compile("is connected"))
    assert page.evaluate("document.stayed")
