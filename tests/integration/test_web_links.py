"""Connect links and Marketplace installs over HTTP, with the simulator as HubSpot and a real database."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt
import pytest
import requests

from sandbox.ports import find_free_port
from sandbox.simulator.control import SimulatorControl
from tests.support.http_server import serving
from tests.support.polling import until
from tests.support.stores import SqlFixture, at_once
from tests.support.visitor import Visitor

KEY = "a-key-of-32-random-characters-or-more"
PRODUCT = "https://app.example"
HUB, OTHER_HUB = 62515, 783


@pytest.fixture
def visitors(
    environment: Callable[..., dict[str, str]], simulator: SimulatorControl
) -> Iterator[Callable[[], Visitor]]:
    """A function that returns a new browser. No Redis runs: web stores each install at once."""
    no_redis = f"redis://127.0.0.1:{find_free_port()}/0"
    links = {"CONNECT_LINK_KEYS": KEY, "RETURN_TO_ORIGINS": PRODUCT, "MARKETPLACE_SIGN_IN_URL": f"{PRODUCT}/sign-in"}
    with serving(environment(REDIS_URL=no_redis, **links)) as url, ExitStack() as stack:
        yield lambda: stack.enter_context(Visitor(url, simulator))


@pytest.fixture
def visitor(visitors: Callable[[], Visitor]) -> Visitor:
    return visitors()


def make_link(customer: str = "acme", link_id: str = "link-1", **claims: Any) -> str:
    content = {"customer": customer, "exp": int(time.time()) + 600, "jti": link_id, "return_to": f"{PRODUCT}/done"}
    return jwt.encode(content | claims, KEY, algorithm="HS256")


def allow(visitor: Visitor, link: str, hub_id: int) -> str:
    """The address that leads back from HubSpot, with code and state."""
    page = visitor.get(f"/connect/{link}")
    assert page.status_code == 200, page.text
    (button,) = re.findall(r'class="button" href="([^"]+)"', page.text)
    # The link may name an account; a person can choose another one at HubSpot.
    return visitor.simulator.allow(re.sub(r"/oauth/\d+/", "/oauth/", unescape(button)), hub_id)


def read_return(response: requests.Response) -> dict[str, str]:
    assert response.headers["Location"].startswith(f"{PRODUCT}/done?"), response.text
    return dict(parse_qsl(urlsplit(response.headers["Location"]).query))


def connect(visitor: Visitor, link: str, hub_id: int = HUB) -> dict[str, str]:
    """The whole way; what our product is told at the end."""
    return come_back(visitor, allow(visitor, link, hub_id))


def come_back(visitor: Visitor, address: str) -> dict[str, str]:
    """From HubSpot to our product."""
    response = visitor.get(address)
    path = response.headers["Location"]
    return read_return(until(lambda: find_redirect(visitor, path)) if path.startswith("/") else response)


def find_redirect(visitor: Visitor, path: str) -> requests.Response | None:
    """None: the install's page waits, for PostgreSQL did not answer in time."""
    response = visitor.get(path)
    return response if response.is_redirect else None


def read_customers(sql: SqlFixture) -> dict[int, str | None]:
    active = "SELECT hub_id, customer FROM hubspot.connections WHERE status = 'active'"
    return dict(sql.rows(active))  # type: ignore[arg-type]


def test_a_customer_is_connected_and_the_link_is_spent(visitor: Visitor, sql: SqlFixture) -> None:
    link = make_link()
    assert connect(visitor, link) == {"status": "connected", "customer": "acme", "hub_id": str(HUB), "app": "default"}
    assert read_customers(sql) == {HUB: "acme"}
    response = visitor.get(f"/connect/{link}")
    assert response.status_code == 410
    assert "was used already" in response.text


def test_an_account_of_another_customer_is_a_conflict_and_moves_by_a_link_that_may(
    visitor: Visitor, sql: SqlFixture
) -> None:
    connect(visitor, make_link())
    assert connect(visitor, make_link("globex", "link-2"))["status"] == "conflict"
    assert read_customers(sql) == {HUB: "acme"}
    assert connect(visitor, make_link("globex", "link-3", move=True))["status"] == "connected"
    assert read_customers(sql) == {HUB: "globex"}


def test_a_link_that_was_used_in_another_tab_connects_no_second_account(visitor: Visitor, sql: SqlFixture) -> None:
    link = make_link()
    first, second = allow(visitor, link, HUB), allow(visitor, link, OTHER_HUB)
    assert come_back(visitor, first)["status"] == "connected"
    told = read_return(visitor.get(second))
    assert (told["status"], told["reason"]) == ("failed", "link_spent")
    assert read_customers(sql) == {HUB: "acme"}


def test_of_two_browsers_with_one_link_at_the_same_time_one_gets_the_customer(
    visitors: Callable[[], Visitor], sql: SqlFixture
) -> None:
    link = make_link()
    hubs = (HUB, OTHER_HUB)
    browsers = [visitors() for _ in hubs]
    backs = [allow(browser, link, hub) for browser, hub in zip(browsers, hubs, strict=True)]
    at_once([lambda pair=pair: pair[0].get(pair[1]) for pair in zip(browsers, backs, strict=True)])  # type: ignore[misc]
    assert sorted(read_customers(sql).values(), key=str) in (["acme"], [None, "acme"], ["acme", None])


def test_an_account_that_the_link_does_not_name_is_uninstalled_again(
    visitor: Visitor, sql: SqlFixture, simulator: SimulatorControl
) -> None:
    told = connect(visitor, make_link(hub_id=OTHER_HUB))
    assert (told["status"], told["hub_id"]) == ("wrong_account", str(HUB))
    assert read_customers(sql) == {}
    assert simulator.uninstall(HUB) == 0, "it is still installed"


def test_an_account_that_was_connected_before_stays_installed(
    visitor: Visitor, sql: SqlFixture, simulator: SimulatorControl
) -> None:
    connect(visitor, make_link())
    told = connect(visitor, make_link("globex", "link-2", hub_id=OTHER_HUB))
    assert told["status"] == "wrong_account"
    assert read_customers(sql) == {HUB: "acme"}
    assert simulator.uninstall(HUB) == 1


@pytest.mark.parametrize("path", ["/marketplace", "/marketplace/default", "/oauth/callback"])
def test_an_install_from_the_marketplace_comes_back_and_has_no_customer(
    visitor: Visitor, sql: SqlFixture, simulator: SimulatorControl, path: str
) -> None:
    started = simulator.start_marketplace_install(HUB, visitor.url + path, return_query="wizard=7")
    response = visitor.get(started.url)
    assert response.status_code == 303, response.text
    requests.get(response.headers["Location"], timeout=60)
    assert [install["is_complete"] for install in simulator.list_marketplace_installs()] == [True]
    assert read_customers(sql) == {HUB: None}


def test_an_install_from_the_marketplace_with_sign_in_belongs_to_the_customer(
    visitors: Callable[[], Visitor], sql: SqlFixture, simulator: SimulatorControl
) -> None:
    visitor = visitors()
    started = simulator.start_marketplace_install(HUB, f"{visitor.url}/marketplace", flow="sign_in")
    sign_in = visitor.get(started.url).headers["Location"]
    back = dict(parse_qsl(urlsplit(sign_in).query))["continue"]
    response = visitor.get(f"{back}&link={make_link()}")
    assert response.status_code == 303, response.text
    requests.get(response.headers["Location"], timeout=60)
    response = visitors().get(simulator.answer_in_marketplace(started.id))  # in the frame, without cookies
    assert response.status_code == 303, response.text
    requests.get(response.headers["Location"], timeout=60)
    assert [install["is_complete"] for install in simulator.list_marketplace_installs()] == [True]
    assert read_customers(sql) == {HUB: "acme"}
    assert sql.events() == ["installed"]
