"""A person comes by a connect link: the page, HubSpot, the waiting page, and back to the product."""

from datetime import timedelta
from html.parser import HTMLParser
from urllib.parse import parse_qs, parse_qsl, urlsplit

import jwt
import pytest
from cryptography.fernet import Fernet

from shared.domain.errors import CodeRejected, InvalidClient, TemporarilyUnavailable
from shared.settings.hubspot_app import HubSpotApp
from shared.token_cipher import TokenCipher
from tests.support.builders import ACCESS_TOKEN, HUB, START
from tests.support.hubspot import ScriptedHubSpot
from tests.unit.web.conftest import HTTP_REDIRECT_URI, HTTPS_REDIRECT_URI, Site
from web.oauth.install_cookie import LOST_AFTER_SECONDS

KEY = "a-key-of-32-random-characters-or-more"
PRODUCT = "https://app.example"
RETURN_TO = f"{PRODUCT}/acme?tab=hubspot"


@pytest.fixture
def site(link_site):
    return link_site()


@pytest.fixture
def link_site():
    def make(**options):
        values = {"redirect_uri": HTTPS_REDIRECT_URI, "connect_link_keys": (KEY,), "return_to_origins": (PRODUCT,)}
        return Site(**{**values, **options})

    return make


def make_link(key=KEY, **claims):
    given = {"customer": "acme", "exp": int(START.timestamp()) + 1800, "jti": "link-1", "return_to": RETURN_TO}
    return jwt.encode({name: value for name, value in {**given, **claims}.items() if value is not None}, key)


def open_link(site, **claims):
    response = site.visit(f"/connect/{make_link(**claims)}")
    assert response.status_code == 200, response.text
    return response


class _Button(HTMLParser):
    href = ""

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "a" and values.get("class") == "button":
            assert not self.href, "there is more than one button"
            self.href = values["href"]


def find_button(response):
    parser = _Button()
    parser.feed(response.text)
    return parser.href


def go_to_hubspot(site, **claims):
    """The state in the address of the page's button."""
    return parse_qs(urlsplit(find_button(open_link(site, **claims))).query)["state"][0]


def connect(site, code="the-code", hub_id=HUB, **claims):
    """The whole way, until the grant is in the queue; the path of the waiting page."""
    response = site.callback(code, state=go_to_hubspot(site, **claims), hub_id=hub_id)
    assert response.status_code == 303, response.text
    return response.headers["Location"]


def read_return(response):
    """The address without its query, and the query's parameters."""
    assert response.status_code == 303, response.text
    url = urlsplit(response.headers["Location"])
    return f"{url.scheme}://{url.netloc}{url.path}", dict(parse_qsl(url.query))


def test_the_page_names_the_customer_and_the_product_and_one_button_leads_to_hubspot(site):
    response = open_link(site, name="Acme Ltd", hub_id=HUB)
    assert "Acme Ltd" in response.text
    assert "(acme)" in response.text
    assert PRODUCT in response.text
    assert str(HUB) in response.text
    assert find_button(response).startswith(f"https://app.hubspot.com/oauth/{HUB}/authorize?")
    assert response.headers["X-Frame-Options"] == "DENY"


def test_the_customer_is_in_no_address_and_no_cookie_after_the_page(site):
    response = open_link(site, customer="the-customer", name="The Name")
    seen = [find_button(response), *response.headers.getlist("Set-Cookie")]
    response = site.callback(state=parse_qs(urlsplit(seen[0]).query)["state"][0])
    seen += [response.headers["Location"], *response.headers.getlist("Set-Cookie")]
    assert len(seen) > 4
    for text in seen:
        assert "customer" not in text
        assert "dGhlLWN1c3RvbWVy"[:14] not in text  # in base64


def test_at_the_end_the_browser_goes_back_to_the_product(site):
    path = connect(site)
    assert site.visit(path).status_code == 200  # it waits
    site.store_queued()
    assert site.installs.rows[HUB].customer_claim.customer == "acme"
    where, values = read_return(site.visit(path))
    assert where == f"{PRODUCT}/acme"
    assert values == {
        "tab": "hubspot",
        "status": "connected",
        "customer": "acme",
        "hub_id": str(HUB),
        "app": "default",
    }


def test_without_a_way_back_our_own_page_says_that_the_account_is_connected(site):
    path = connect(site, return_to=None)
    site.store_queued()
    response = site.visit(path)
    assert response.status_code == 200
    assert "is connected" in response.text


def test_an_account_of_another_customer_is_a_conflict(site):
    path = connect(site)
    site.store_queued()
    site.installs.customers[HUB] = "globex"
    assert read_return(site.visit(path))[1]["status"] == "conflict"
    path = connect(site, "code-2", return_to=None, jti="link-2")
    site.store_queued()
    site.installs.customers[HUB] = "globex"
    response = site.visit(path)
    assert "belongs to another customer" in response.text
    assert "globex" not in response.text


def test_the_second_account_of_a_link_is_connected_without_the_customer(site):
    path = connect(site)
    site.store_queued()
    site.installs.customers[HUB] = None
    values = read_return(site.visit(path))[1]
    assert (values["status"], values["reason"]) == ("failed", "link_spent")


@pytest.mark.parametrize(
    ("claims", "status", "heading"),
    [
        ({"exp": int(START.timestamp()) - 1}, 410, "has expired"),
        ({"key": "another-key-of-32-random-characters"}, 400, "is not valid"),
        ({"customer": ""}, 400, "was made incorrectly"),
        ({"return_to": "https://evil.example/"}, 400, "was made incorrectly"),
        ({"app": "unknown"}, 400, "was made incorrectly"),
        ({"scopes": ["crm.export"]}, 400, "was made incorrectly"),
    ],
)
def test_a_link_that_is_not_valid_gets_a_page_and_nothing_happens(site, claims, status, heading):
    response = site.visit(f"/connect/{make_link(**claims)}")
    assert response.status_code == status
    assert heading in response.text
    assert "evil" not in response.text
    assert not response.headers.getlist("Set-Cookie")


def test_a_spent_link_gets_a_page(site):
    site.single_uses.used["link", "link-1"] = "6e9d9c4e-0000-4000-8000-000000000001"
    response = site.visit(f"/connect/{make_link()}")
    assert response.status_code == 410
    assert "was used already" in response.text


def test_a_link_that_was_spent_after_its_page_was_opened_exchanges_no_code(site):
    state = go_to_hubspot(site)
    site.single_uses.used["link", "link-1"] = "6e9d9c4e-0000-4000-8000-000000000001"
    values = read_return(site.callback(state=state))[1]
    assert (values["status"], values["reason"]) == ("failed", "link_spent")
    assert site.hubspot.calls.count("exchange the-code") == 0


def test_where_it_cannot_be_asked_whether_a_link_is_spent_the_install_goes_on(site):
    site.single_uses.down = True
    assert connect(site)
    site.store_queued()
    assert site.installs.rows[HUB].customer_claim.link_id == "link-1"


def test_without_keys_there_are_no_links(link_site):
    response = link_site(connect_link_keys=()).visit(f"/connect/{make_link()}")
    assert response.status_code == 404
    assert "CONNECT_LINK_KEYS" in response.text


def test_an_older_key_is_accepted(link_site):
    site = link_site(connect_link_keys=("n" * 32, KEY))
    assert open_link(site)


def test_a_link_may_ask_for_conditional_scopes(site):
    assert "e-commerce" in find_button(open_link(site, scopes=["e-commerce"]))
    assert "e-commerce" not in find_button(open_link(site))


def test_a_person_who_says_no_goes_back_to_the_product(site):
    state = go_to_hubspot(site)
    response = site.visit("/oauth/callback", query_string={"error": "access_denied", "state": state})
    values = read_return(response)[1]
    assert (values["status"], values["reason"], values["customer"]) == ("denied", "access_denied", "acme")
    response = site.visit("/oauth/callback", query_string={"error": "server_error", "state": state})
    assert read_return(response)[1]["status"] == "failed"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CodeRejected("BAD_AUTH_CODE", http_status=400), "code_rejected"),
        (TemporarilyUnavailable("timeout"), "hubspot_timed_out"),
        (TemporarilyUnavailable("connection"), "hubspot_unavailable"),
        (InvalidClient("BAD_CLIENT_SECRET", http_status=400), "app_misconfigured"),
    ],
)
def test_an_install_that_fails_goes_back_with_the_reason(site, error, reason):
    state = go_to_hubspot(site)
    site.hubspot.exchange_error = error
    response = site.callback(state=state)
    if "Refresh" in response.headers:  # it looks first whether another request has stored the install
        site.monotonic += 60
        response = site.callback(state=state)
    values = read_return(response)[1]
    assert (values["status"], values["reason"]) == ("failed", reason)


def test_a_state_that_has_expired_goes_back_too(site):
    state = go_to_hubspot(site)
    site.clock.step(16 * 60)
    assert read_return(site.callback(state=state))[1]["reason"] == "expired"


def test_another_browser_gets_a_page_and_is_sent_nowhere(site):
    state = go_to_hubspot(site)
    response = site.other_browser().callback(state=state)
    assert response.status_code == 403
    assert "another browser" in response.text


def test_an_account_that_the_link_does_not_name_is_uninstalled_again_and_nothing_is_stored(site):
    state = go_to_hubspot(site, hub_id=783)
    values = read_return(site.callback(state=state, hub_id=HUB))[1]
    assert values["status"] == "wrong_account"
    assert site.queue.messages == []
    assert site.installs.rows == {}
    assert [call for call in site.hubspot.calls if call.startswith("uninstall")]


def test_where_hubspot_does_not_uninstall_the_wrong_account_the_person_is_told_to(site):
    site.hubspot.during_call = fail_to_uninstall
    state = go_to_hubspot(site, hub_id=783, return_to=None)
    assert "uninstall it there" in site.callback(state=state, hub_id=HUB).text
    state = go_to_hubspot(site, hub_id=783, jti="link-2", return_to=None)
    assert "uninstall it there" in site.callback("code-2", state=state, hub_id=HUB, access_token=None).text
    assert [call for call in site.hubspot.calls if call.startswith("uninstall")] == [f"uninstall {ACCESS_TOKEN}"]


def fail_to_uninstall():
    raise TemporarilyUnavailable("timeout")


@pytest.mark.parametrize("is_down", [False, True])
def test_an_account_that_was_connected_before_is_not_uninstalled(site, is_down):
    """Nor is one of which that cannot be asked."""
    path = connect(site, return_to=None)
    site.store_queued()
    site.visit(path)
    site.installs.down = is_down
    state = go_to_hubspot(site, hub_id=783, jti="link-2", return_to=None)
    response = site.callback("code-2", state=state, hub_id=HUB)
    assert response.status_code == 409
    assert "783" in response.text
    assert ("uninstall it there" if is_down else "was connected before and stays so") in response.text
    assert not [call for call in site.hubspot.calls if call.startswith("uninstall")]


def test_with_both_servers_down_the_cookie_carries_the_customer_and_the_way_back(site):
    site.queue.down = site.installs.down = site.single_uses.down = True
    path = connect(site)
    assert site.visit(path).status_code == 200
    site.queue.down = site.installs.down = site.single_uses.down = False
    site.clock.step(10)
    assert site.visit(path).status_code in {200, 303}
    site.store_queued()
    assert site.installs.rows[HUB].customer_claim.customer == "acme"
    assert read_return(site.visit(path))[1]["status"] == "connected"


def test_the_longest_customer_and_way_back_fit_into_the_cookies(site):
    site.queue.down = site.installs.down = site.single_uses.down = True
    state = go_to_hubspot(
        site, customer="\U0001f600" * 200, name="ü" * 200, return_to=f"{PRODUCT}/{'a' * 990}", jti="j" * 128
    )
    response = site.callback(state=state, refresh_token="r" * 512)
    assert response.status_code == 303
    headers = response.headers.getlist("Set-Cookie")
    assert all(len(header) <= 4096 for header in headers)
    assert any("grant_" in header for header in headers)
    assert any("link_" in header for header in headers)


def test_where_links_are_required_an_install_without_one_is_refused(link_site):
    site = link_site(is_link_required=True)
    response = site.visit("/install")
    assert response.status_code == 403
    assert "start in the product" in response.text
    assert site.visit("/oauth/callback", query_string={"code": "c"}).status_code == 403
    home = site.visit("/")
    assert home.status_code == 200
    assert "Connect to HubSpot" not in home.text
    assert connect(site)


def test_a_link_below_a_path_and_with_a_slash_at_its_end(link_site):
    site = link_site(redirect_uri="https://connect.example/hub/oauth/callback")
    assert site.visit(f"/hub/connect/{make_link()}").status_code == 200
    assert site.visit(f"/connect/{make_link()}").status_code == 200  # the proxy has removed the path


def two_apps():
    """Each with its own host: options of Site."""
    names = ("a", "b")
    return {
        "apps": {name: HubSpotApp(name, redirect_uri=f"https://{name}.example/oauth/callback") for name in names},
        "clients": {name: ScriptedHubSpot(client_id=name) for name in names},
    }


def test_the_page_is_at_the_host_of_the_app_that_the_link_names(link_site):
    two = {
        name: HubSpotApp(name, client_id=name, redirect_uri=f"https://{name}.example/oauth/callback")
        for name in ("a", "b")
    }
    site = link_site(apps=two, clients={name: ScriptedHubSpot(client_id=name) for name in two})
    link = make_link(app="b")
    moved = site.browser.get(f"/connect/{link}", base_url="https://a.example")
    assert moved.headers["Location"] == f"https://b.example/connect/{link}?moved=1"


def test_a_link_whose_state_no_key_decrypts_any_more_is_not_followed(site):
    """The install would lose its customer."""
    state = go_to_hubspot(site)
    other = site.other_process(cipher=TokenCipher([Fernet.generate_key().decode()]))
    assert other.callback(state=state).status_code == 400
    assert site.hubspot.exchanged == []


def test_an_install_by_a_link_that_is_lost_goes_back_with_the_reason(link_site):
    site = link_site(redirect_uri=HTTP_REDIRECT_URI)
    path = connect(site)
    site.queue.messages.clear()
    site.browser.delete_cookie(site.cookie_name("grant", path))
    site.clock.step(LOST_AFTER_SECONDS + 1)
    values = read_return(site.visit(path))[1]
    assert (values["status"], values["reason"]) == ("failed", "not_stored")


def test_a_double_click_that_another_process_answers_still_knows_the_link(site):
    state = go_to_hubspot(site)
    first = site.callback(state=state)
    site.store_queued()
    site.lose_cookies()
    other = site.other_process()
    again = other.visit(f"/oauth/callback?code=the-code&state={state}")
    assert again.headers["Location"] == first.headers["Location"]
    assert read_return(other.visit(again.headers["Location"]))[1]["status"] == "connected"


def test_a_second_tab_with_another_link_does_not_mix_the_customers(site):
    first, second = go_to_hubspot(site), go_to_hubspot(site, customer="globex", jti="link-2")
    site.callback("code-2", state=second, hub_id=784)
    site.callback("code-1", state=first, hub_id=783)
    site.store_queued()
    assert site.installs.rows[783].customer_claim.customer == "acme"
    assert site.installs.rows[784].customer_claim.customer == "globex"


def test_a_link_expires_by_the_time_of_the_page_alone(site):
    """A grant that comes shortly after the end of the link's life is the link's."""
    state = go_to_hubspot(site, exp=int(START.timestamp()) + 60)
    site.clock.step(timedelta(minutes=5).total_seconds())
    assert site.callback(state=state).status_code == 303
