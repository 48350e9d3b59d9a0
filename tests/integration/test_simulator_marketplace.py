"""The simulator's Marketplace: it opens an app's install URL as HubSpot does, and records whether the app came back."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
import requests

from sandbox.simulator.control import DEMO_CLIENT_ID, ControlFailed
from tests.support.simulator import CALLBACK, HUB, SimulatorFixture, parse_redirect, run_simulator

INSTALL_URL = "http://localhost:5000/oauth/callback"


@pytest.fixture
def simulator() -> Iterator[SimulatorFixture]:
    with run_simulator() as fixture:
        yield fixture


def visit(simulator: SimulatorFixture, url: str, **query: str) -> requests.Response:
    """As the browser that an app redirects there; `query` is added to the URL's own."""
    headers = {"Sec-Fetch-Dest": "iframe"}
    return simulator.http.get(url, params=query or None, headers=headers, timeout=60)


def find_install(simulator: SimulatorFixture, install_id: str) -> dict[str, Any]:
    return next(each for each in simulator.control.list_marketplace_installs() if each["id"] == install_id)


class Source(HTMLParser):
    """The address in a page's frame or link of that id."""

    def __init__(self, text: str, element_id: str) -> None:
        super().__init__()
        self.address = ""
        self._id = element_id
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id") == self._id:
            self.address = given.get("src") or given.get("href") or ""


@pytest.mark.parametrize("query", ["", "wizard=7&step=x"])
def test_an_install_without_sign_in_brings_a_code_and_is_complete_once_the_browser_is_back(
    simulator: SimulatorFixture, query: str
) -> None:
    start = simulator.control.start_marketplace_install(HUB, INSTALL_URL, return_query=query)
    assert start.url.partition("?")[0] == INSTALL_URL
    parameters = parse_redirect(start.url)
    assert set(parameters) == {"code", "returnUrl"}
    assert parameters["returnUrl"] == start.return_url
    assert parse_redirect(start.return_url) == parse_redirect(f"?{query}")
    assert simulator.exchange(parameters["code"], redirect_uri=INSTALL_URL).json()["hub_id"] == HUB
    assert not find_install(simulator, start.id)["is_complete"], "a loop: the app did not send the browser back"
    assert "The app is installed" in visit(simulator, start.return_url).text
    install = find_install(simulator, start.id)
    assert install["is_complete"]
    (its_visit,) = install["visits"]
    assert (its_visit["query"], its_visit["fetch_dest"]) == (parse_redirect(f"?{query}"), "iframe")


def test_an_install_with_sign_in_takes_a_state_asks_for_consent_and_finalizes(simulator: SimulatorFixture) -> None:
    start = simulator.control.start_marketplace_install(HUB, INSTALL_URL, flow="sign_in")
    assert parse_redirect(start.url) == {"step": "authorize", "returnUrl": start.return_url}
    with pytest.raises(ControlFailed, match="has not returned with a state"):
        simulator.control.answer_in_marketplace(start.id)
    assert "Connect app" in visit(simulator, start.return_url, state="the state").text
    last = parse_redirect(simulator.control.answer_in_marketplace(start.id))
    assert set(last) == {"step", "code", "state", "returnUrl"}
    assert (last["step"], last["state"]) == ("finalize", "the state")
    assert simulator.exchange(last["code"], redirect_uri=INSTALL_URL).ok
    assert not find_install(simulator, start.id)["is_complete"]
    visit(simulator, start.return_url)
    assert find_install(simulator, start.id)["is_complete"]


def test_a_declined_install_finalizes_with_an_error_and_no_code(simulator: SimulatorFixture) -> None:
    start = simulator.control.start_marketplace_install(HUB, INSTALL_URL, flow="sign_in")
    visit(simulator, start.return_url, state="s")
    last = parse_redirect(simulator.control.answer_in_marketplace(start.id, is_allowed=False))
    assert (last["error"], "code" in last) == ("access_denied", False)


def test_a_return_without_a_state_does_not_lead_to_consent(simulator: SimulatorFixture) -> None:
    start = simulator.control.start_marketplace_install(HUB, INSTALL_URL, flow="sign_in")
    page = visit(simulator, start.return_url).text
    assert "Please verify connection" in page
    assert "Connect app" not in page


def test_a_listing_can_open_the_install_url_without_any_parameter(simulator: SimulatorFixture) -> None:
    assert simulator.control.start_marketplace_install(HUB, INSTALL_URL, flow="bare").url == INSTALL_URL


def test_the_code_is_bound_to_a_registered_redirect_uri_and_belongs_to_a_user_of_a_user_level_app(
    simulator: SimulatorFixture,
) -> None:
    simulator.control.add_app("users", user_level=True, redirect_uris=[CALLBACK])
    start = simulator.control.start_marketplace_install(
        HUB, "http://localhost:5000/marketplace", client_id="users", user_id=777
    )
    grant = simulator.exchange(parse_redirect(start.url)["code"], client_id="users").json()
    assert (grant["hub_id"], grant["user_id"]) == (HUB, 777)


def test_the_pages_lead_a_person_through_both_kinds_of_install(simulator: SimulatorFixture) -> None:
    address = f"{simulator.url}/marketplace"
    form = {"client_id": DEMO_CLIENT_ID, "hub_id": str(HUB), "install_url": INSTALL_URL}
    assert "Northwind Bakery" in simulator.http.get(address, timeout=60).text
    framed = simulator.http.post(address, data=form | {"flow": "code"}, timeout=60).text
    assert "code" in parse_redirect(Source(framed, "app").address)
    whole = simulator.http.post(address, data=form | {"flow": "code", "top": "1"}, allow_redirects=False, timeout=60)
    assert whole.headers["Location"].startswith(INSTALL_URL)
    sign_in = simulator.http.post(address, data=form | {"flow": "sign_in"}, timeout=60).text
    return_url = parse_redirect(Source(sign_in, "sign-in").address)["returnUrl"]
    visit(simulator, return_url, state="s")
    finalize = simulator.http.post(return_url, data={"answer": "allow"}, timeout=60).text
    assert parse_redirect(Source(finalize, "app").address)["step"] == "finalize"
    assert "Choose an app" in simulator.http.post(address, data=form | {"flow": "other"}, timeout=60).text
    assert simulator.http.get(f"{address}/return/unknown", timeout=60).status_code == 404
