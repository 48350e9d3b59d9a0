"""Several apps on one site: each begins, exchanges and stores for itself; one callback serves all."""

from urllib.parse import parse_qs, urlsplit

import pytest

from shared.domain.errors import InvalidClient
from shared.settings.hubspot_app import HubSpotApp
from tests.support.builders import grant
from tests.support.hubspot import ScriptedHubSpot
from tests.unit.web.conftest import Site

REDIRECT_URI = "https://connect.example/oauth/callback"


def make_site(**apps):
    """A site with these apps: each keyword is a name, and its value the fields of HubSpotApp that are not the usual."""
    usual = {"redirect_uri": REDIRECT_URI, "scopes": ("oauth",)}
    return Site(
        redirect_uri=REDIRECT_URI,
        apps={name: HubSpotApp(name, client_id=f"id-of-{name}", **{**usual, **but}) for name, but in apps.items()},
        clients={name: ScriptedHubSpot(client_id=f"id-of-{name}") for name in apps},
    )


@pytest.fixture
def two():
    return make_site(acme={}, users={"is_user_level": True})


def decrypt_queued(site):
    return [site.cipher.decrypt_install(message.ciphertext) for message in site.queue.messages]


def client_id(response):
    return parse_qs(urlsplit(response.headers["Location"]).query)["client_id"][0]


def test_install_sends_to_hubspot_with_the_app_that_is_named(two):
    for name in ("acme", "users"):
        response = two.visit(f"/install?app={name}&hub_id=7")
        assert response.status_code == 302
        assert client_id(response) == f"id-of-{name}"
        assert urlsplit(response.headers["Location"]).path == "/oauth/7/authorize"


@pytest.mark.parametrize("query", ["app=other", "app=Acme", "app=acme&app=users", "app=%00", "app=../acme"])
def test_an_unknown_app_gets_a_page_and_nothing_happens(two, query):
    response = two.visit(f"/install?{query}")
    assert response.status_code == 404
    assert "There is no such app here" in response.text
    assert "Location" not in response.headers
    assert not response.headers.getlist("Set-Cookie")


def test_without_a_name_the_page_lets_the_person_choose_and_keeps_the_account(two):
    for url in ("/install?hub_id=62515", "/install?hub_id=62515&app="):
        response = two.visit(url)
        assert response.status_code == 200
        assert 'href="/install?app=acme&amp;hub_id=62515"' in response.text
        assert 'href="/install?app=users&amp;hub_id=62515"' in response.text


def test_the_front_page_offers_each_app_by_name(two):
    text = two.visit("/").text
    assert 'href="/install?app=acme"' in text
    assert "Connect users</a>" in text
    assert text.count("It acts as you: with your own permissions") == 1


def test_the_app_named_default_needs_no_name():
    site = make_site(first={}, default={})
    assert client_id(site.visit("/install")) == "id-of-default"
    assert 'href="/install?app=first"' in site.visit("/").text


def test_the_only_app_needs_no_name_whatever_it_is_called():
    site = make_site(acme={})
    assert client_id(site.visit("/install")) == "id-of-acme"
    assert client_id(site.visit("/install?app=acme")) == "id-of-acme"
    assert 'href="/install"' in site.visit("/").text


def test_the_state_says_whose_code_it_is_and_only_that_apps_client_exchanges_it(two):
    state = two.state("/install?app=users")
    two.clients["users"].grants["the-code"] = grant(hub_id=7, user_id=42)
    response = two.visit("/oauth/callback", query_string={"code": "the-code", "state": state})
    assert response.status_code == 303
    assert two.clients["acme"].exchanged == []
    [install] = decrypt_queued(two)
    assert (install.app, install.hub_id, install.user_id, install.needs_user_id) == ("users", 7, 42, False)


def test_a_user_level_install_whose_user_hubspot_did_not_say_is_marked(two):
    for name, needs_user_id in (("users", True), ("acme", False)):
        two.clients[name].grants[name] = grant(hub_id=7)
        state = two.state(f"/install?app={name}")
        two.visit("/oauth/callback", query_string={"code": name, "state": state})
        install = decrypt_queued(two).pop()
        assert (install.app, install.user_id, install.needs_user_id) == (name, None, needs_user_id)


def test_a_state_of_one_app_is_not_one_of_another(two):
    """The app is inside the signature: a callback cannot be turned to another app."""
    state = two.state("/install?app=users")
    two.clients["acme"].grants["the-code"] = grant(hub_id=7)
    response = two.visit("/oauth/callback", query_string={"code": "the-code", "state": state, "app": "acme"})
    assert response.status_code == 400
    assert two.clients["acme"].exchanged == []
    assert two.clients["users"].exchanged == ["the-code"]


def test_an_app_that_was_taken_away_during_the_handshake_gets_a_page(two):
    state = two.state("/install?app=users")
    without = make_site(acme={})
    without.browser._cookies = two.browser._cookies
    response = without.visit("/oauth/callback", query_string={"code": "the-code", "state": state})
    assert response.status_code == 404
    assert "There is no such app here" in response.text


def test_a_page_that_says_start_again_starts_with_the_same_app(two):
    two.clients["users"].exchange_error = InvalidClient("BAD_CLIENT_SECRET", http_status=400)
    state = two.state("/install?app=users")
    response = two.visit("/oauth/callback", query_string={"code": "the-code", "state": state})
    assert 'href="/install?app=users"' in response.text
    denied = two.visit("/oauth/callback", query_string={"error": "access_denied", "state": state})
    assert 'href="/install?app=users"' in denied.text


def test_the_page_of_an_install_knows_its_app_also_by_the_browsers_copy_alone(two):
    state = two.state("/install?app=users")
    two.clients["users"].grants["the-code"] = grant(hub_id=7, user_id=42)
    page = two.visit("/oauth/callback", query_string={"code": "the-code", "state": state}).headers["Location"]
    two.store_queued()
    two.installs.status = "revoked"
    assert 'href="/install?hub_id=7&amp;app=users"' in two.visit(page).text


def test_a_code_without_a_state_lets_the_person_choose_the_app(two):
    response = two.visit("/oauth/callback?code=from-a-marketplace")
    assert response.status_code == 200
    assert "Connect acme</a>" in response.text
    assert all(client.exchanged == [] for client in two.clients.values())


def test_with_hosts_of_their_own_a_handshake_begins_at_the_host_of_its_app():
    site = make_site(a={}, b={"redirect_uri": "https://b.example/oauth/callback"})
    front_page = site.visit("/").text
    assert 'href="https://connect.example/install?app=a"' in front_page
    assert 'href="https://b.example/install?app=b"' in front_page

    moved = site.visit("/install?app=b&hub_id=7")
    assert moved.headers["Location"] == "https://b.example/install?app=b&hub_id=7&moved=1"
    assert client_id(site.visit("/install?app=b&moved=1")) == "id-of-b", "no loop where a proxy replaces the host"
    assert client_id(site.browser.get("/install?app=b", base_url="https://b.example")) == "id-of-b"
    assert client_id(site.browser.get("/install?app=b", base_url="http://10.0.0.7:8000")) == "id-of-b"


def test_forms_may_lead_to_the_hosts_of_all_apps():
    site = make_site(a={}, b={"redirect_uri": "https://b.example/oauth/callback"})
    policy = site.visit("/").headers["Content-Security-Policy"]
    assert "form-action 'self' https://connect.example https://b.example https://app.hubspot.com" in policy


def test_apps_are_served_below_their_common_path():
    uri = "https://connect.example/keeper/oauth/callback"
    site = make_site(a={"redirect_uri": uri}, b={"redirect_uri": uri})
    assert 'href="/keeper/install?app=b"' in site.visit("/keeper/").text
