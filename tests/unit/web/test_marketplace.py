"""HubSpot's Marketplace, both kinds: what each request is answered with, and to whom the connection belongs."""

from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.support.builders import HUB, grant
from tests.unit.web.conftest import HTTPS_REDIRECT_URI, Site
from tests.unit.web.test_connect_page import KEY, make_link, two_apps

SIGN_IN = "https://app.example/hubspot?from=marketplace"
RETURN_URL = "https://app-eu1.hubspot.com/marketplace/wizard"
INSTALL_URL = "https://connect.example/marketplace"


@pytest.fixture
def site():
    return Site(redirect_uri=HTTPS_REDIRECT_URI, connect_link_keys=(KEY,))


@pytest.fixture
def sign_in_site():
    return Site(redirect_uri=HTTPS_REDIRECT_URI, connect_link_keys=(KEY,), marketplace_sign_in_url=SIGN_IN)


def send(site, path="/marketplace", **parameters):
    """A request of HubSpot's; the code in it can be exchanged."""
    if "code" in parameters:
        site.hubspot.grants.setdefault(parameters["code"], grant())
    return site.visit(path, query_string=parameters)


def send_again(site, **parameters):
    """The code in it was exchanged already."""
    return site.visit("/marketplace", query_string=parameters)


def read_location(response):
    assert response.status_code == 303, response.text
    url = urlsplit(response.headers["Location"])
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    return f"{url.scheme}://{url.netloc}{url.path}", query


def sign_in(site, link=None, return_url=RETURN_URL):
    """Our product signs the person in and sends the browser back with a link. The state that HubSpot gets."""
    where, query = read_location(send(site, step="authorize", returnUrl=return_url))
    assert where == "https://app.example/hubspot"
    assert query["from"] == "marketplace"
    back = urlsplit(query["continue"])
    assert f"{back.scheme}://{back.netloc}{back.path}" == INSTALL_URL
    response = site.visit(f"{back.path}?{back.query}&{urlencode({'link': link or make_link(return_to=None)})}")
    where, query = read_location(response)
    assert where == return_url.partition("?")[0]
    return query["state"]


def finalize(site, state, code="the-code", **parameters):
    """In a frame: without cookies."""
    return send(site.other_browser(), step="finalize", code=code, state=state, returnUrl=RETURN_URL, **parameters)


def claimed_customers(site):
    site.store_queued()
    return {hub: row.customer_claim and row.customer_claim.customer for hub, row in site.installs.rows.items()}


@pytest.mark.parametrize("path", ["/marketplace", "/marketplace/default", "/oauth/callback"])
def test_without_sign_in_the_connection_has_no_customer_and_the_browser_goes_back(site, path):
    response = send(site, path, code="the-code", returnUrl=RETURN_URL)
    assert response.headers["Location"] == RETURN_URL
    assert response.status_code == 303
    assert not response.headers.getlist("Set-Cookie")
    assert claimed_customers(site) == {HUB: None}
    expected = HTTPS_REDIRECT_URI if path == "/oauth/callback" else f"https://connect.example{path}"
    assert site.hubspot.redirect_uris == [expected]


def test_a_session_of_the_browser_does_not_claim_a_code_without_a_state(site):
    """Anyone can send a person here with a code of their own account: that it is a customer's browser says nothing."""
    site.visit(f"/connect/{make_link()}")
    send(site, code="the-code", returnUrl=RETURN_URL)
    assert claimed_customers(site) == {HUB: None}


def test_with_sign_in_the_connection_belongs_to_the_customer_of_the_link(sign_in_site):
    response = finalize(sign_in_site, sign_in(sign_in_site))
    assert response.headers["Location"] == RETURN_URL
    assert not response.headers.getlist("Set-Cookie")
    assert claimed_customers(sign_in_site) == {HUB: "acme"}


def test_the_customer_is_in_no_address_that_hubspot_sees(sign_in_site):
    state = sign_in(sign_in_site, make_link(customer="the-customer", return_to=None))
    assert "customer" not in state
    assert "dGhlLWN1c3R" not in state


def test_a_return_url_with_a_query_keeps_it(sign_in_site):
    where = f"{RETURN_URL}?app=1&b=%20c"
    response = send(sign_in_site, code="the-code", returnUrl=where)
    assert response.headers["Location"] == where
    assert sign_in(sign_in_site, return_url=where)


def test_without_a_sign_in_page_the_state_comes_at_once_and_the_connection_has_no_customer(site):
    where, query = read_location(send(site, step="authorize", returnUrl=RETURN_URL))
    assert where == RETURN_URL
    assert finalize(site, query["state"]).headers["Location"] == RETURN_URL
    assert claimed_customers(site) == {HUB: None}


def test_a_link_that_another_site_brings_is_confirmed_by_a_person_first(sign_in_site):
    """Without the proof that this browser came from our product's sign-in page."""
    link = make_link(return_to=None, name="Evil Corporation")
    response = send(sign_in_site, step="authorize", returnUrl=RETURN_URL, link=link)
    assert response.status_code == 200
    assert "Evil Corporation" in response.text
    assert f"{RETURN_URL}?state=" in response.text
    assert response.headers["X-Frame-Options"] == "DENY"

    _, query = read_location(send(sign_in_site, step="authorize", returnUrl=RETURN_URL))
    proof = parse_qs(urlsplit(query["continue"]).query)["signed_in"][0]
    stolen = {"step": "authorize", "returnUrl": RETURN_URL, "link": link, "signed_in": proof}
    assert send(sign_in_site.other_browser(), **stolen).status_code == 200
    assert send(sign_in_site, **{**stolen, "returnUrl": f"{RETURN_URL}?other"}).status_code == 200
    assert send(sign_in_site, **stolen).status_code == 303


@pytest.mark.parametrize("claims", [{"exp": 1}, {"customer": ""}, {"app": "other"}])
def test_a_link_that_is_not_valid_gets_a_page_and_no_state(sign_in_site, claims):
    response = send(sign_in_site, step="authorize", returnUrl=RETURN_URL, link=make_link(return_to=None, **claims))
    assert 400 <= response.status_code < 500
    assert "Location" not in response.headers


def test_a_link_of_another_app_gets_a_page_and_no_state():
    site = Site(redirect_uri=HTTPS_REDIRECT_URI, connect_link_keys=(KEY,), **two_apps())
    link = make_link(app="b", return_to=None)
    response = send(site, "/marketplace/a", step="authorize", returnUrl=RETURN_URL, link=link)
    assert response.status_code == 400
    assert "Location" not in response.headers


def test_a_state_works_once(sign_in_site):
    state = sign_in(sign_in_site)
    assert finalize(sign_in_site, state).status_code == 303
    response = finalize(sign_in_site, state, code="another-code")
    assert response.status_code == 400
    assert "Location" not in response.headers
    assert sign_in_site.hubspot.exchanged == ["the-code"]


def test_the_same_request_twice_has_the_same_answer_and_exchanges_the_code_once(sign_in_site):
    state = sign_in(sign_in_site)
    assert [finalize(sign_in_site, state).headers["Location"] for _ in range(2)] == [RETURN_URL] * 2
    assert [send(sign_in_site, code="code-2", returnUrl=RETURN_URL).headers["Location"] for _ in range(2)] == [
        RETURN_URL
    ] * 2
    assert sign_in_site.hubspot.exchanged == ["the-code", "code-2"]


def test_the_same_request_at_another_process_has_the_same_answer(site):
    send(site, code="the-code", returnUrl=RETURN_URL)
    site.store_queued()
    assert send_again(site.other_process(), code="the-code", returnUrl=RETURN_URL).headers["Location"] == RETURN_URL
    assert site.queue.messages == []


def test_a_state_that_is_unknown_or_expired_gets_a_page_and_never_goes_back(sign_in_site):
    state = sign_in(sign_in_site)
    for wrong in ("invented", state[:-3], ""):
        response = finalize(sign_in_site, wrong)
        assert response.status_code == 400
        assert "Location" not in response.headers
    sign_in_site.clock.step(601)
    assert finalize(sign_in_site, state).status_code == 400
    assert sign_in_site.hubspot.exchanged == []


def test_a_cookie_of_another_browser_refuses_the_state(sign_in_site):
    state = sign_in(sign_in_site)
    other = sign_in_site.other_browser()
    other.visit("/")
    response = send(other, step="finalize", code="the-code", state=state, returnUrl=RETURN_URL)
    assert response.status_code == 403
    assert send(sign_in_site, step="finalize", code="the-code", state=state, returnUrl=RETURN_URL).status_code == 303


def test_a_state_of_one_app_does_not_finish_another_apps_install(sign_in_site):
    state = sign_in(sign_in_site)
    response = send(sign_in_site, "/marketplace/other", step="finalize", code="c", state=state, returnUrl=RETURN_URL)
    assert response.status_code == 404


@pytest.mark.parametrize(
    "url",
    [
        "https://[evil.example/",
        "https://evil.example/",
        "http://app.hubspot.com/",
        "https://app.hubspot.com@evil.example/",
        "//app.hubspot.com",
    ],
)
def test_a_hostile_return_url_is_never_followed(site, url, capsys):
    response = send(site, step="authorize", returnUrl=url)
    assert response.status_code == 400
    response = send(site, code="the-code", returnUrl=url)
    assert urlsplit(response.headers["Location"]).netloc == "app.hubspot.com"  # the handshake begins again
    assert "/oauth/authorize" in response.headers["Location"]
    assert site.hubspot.exchanged == []
    state = read_location(send(site, step="authorize", returnUrl=RETURN_URL))[1]["state"]
    site.hubspot.grants["the-code"] = grant()
    response = site.other_browser().visit(
        "/marketplace", query_string={"step": "finalize", "code": "the-code", "state": state, "returnUrl": url}
    )
    assert response.status_code == 200  # finished, on a page of our own
    assert "evil" not in response.text
    assert "a returnUrl of HubSpot's Marketplace was refused" in capsys.readouterr().out


def test_a_request_without_parameters_begins_an_ordinary_install(site):
    response = send(site)
    assert response.status_code == 302
    assert "/oauth/authorize" in response.headers["Location"]
    assert send(site, code="a-code-alone").status_code == 302
    assert send(site, code="a-code", state="a-state").status_code == 400, "as at /oauth/callback"
    assert site.hubspot.exchanged == []


def test_a_refusal_has_a_page_that_may_be_in_the_frame(site):
    response = send(site, error="access_denied", returnUrl=RETURN_URL)
    assert response.status_code == 403
    assert "You did not allow" in response.text
    assert "Location" not in response.headers


def test_an_ordinary_callback_stays_what_it_is(site):
    response = site.callback()
    assert response.status_code == 303
    assert response.headers["Location"].startswith("/installs/")
    assert response.headers["X-Frame-Options"] == "DENY"


def test_only_answers_of_the_marketplace_may_be_framed_and_only_by_hubspot(site):
    framed = send(site, step="finalize", code="c", state="wrong", returnUrl=RETURN_URL)
    policy = framed.headers["Content-Security-Policy"]
    assert "frame-ancestors https://app.hubspot.com https://app-eu1.hubspot.com" in policy
    assert "X-Frame-Options" not in framed.headers
    assert framed.headers["Referrer-Policy"] == "no-referrer"
    for path in ("/", "/install", "/marketplace", f"/connect/{make_link()}", "/healthz", "/nowhere"):
        response = site.visit(path)
        assert response.headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    unknown = site.visit("/marketplace", query_string={"error": "x", "returnUrl": "https://evil.example/"})
    assert "evil.example" not in unknown.headers["Content-Security-Policy"]


def test_with_redis_down_the_grant_is_stored_before_the_browser_goes_back(site):
    site.queue.down = True
    assert send(site, code="the-code", returnUrl=RETURN_URL).headers["Location"] == RETURN_URL
    assert HUB in site.installs.rows


def test_with_postgres_down_the_state_is_settled_when_the_install_is_stored(sign_in_site):
    state = sign_in(sign_in_site)
    sign_in_site.installs.down = sign_in_site.single_uses.down = True
    assert finalize(sign_in_site, state).headers["Location"] == RETURN_URL
    sign_in_site.installs.down = False
    assert claimed_customers(sign_in_site) == {HUB: "acme"}


def test_with_both_down_the_page_holds_the_grant_and_goes_back_once_it_is_stored(sign_in_site):
    state = sign_in(sign_in_site)
    sign_in_site.queue.down = sign_in_site.installs.down = sign_in_site.single_uses.down = True
    page = finalize(sign_in_site, state)
    assert page.status_code == 200
    assert not page.headers.getlist("Set-Cookie")
    assert "X-Frame-Options" not in page.headers
    ciphertext = page.text.partition('name="grant" value="')[2].partition('"')[0]
    address = page.text.partition('action="')[2].partition('"')[0].replace("&amp;", "&")

    def hand_in():
        browser = sign_in_site.other_browser().browser
        return browser.post(address, data={"grant": ciphertext}, base_url="https://connect.example")

    assert hand_in().status_code == 200
    sign_in_site.queue.down = sign_in_site.installs.down = False
    assert [hand_in().headers["Location"] for _ in range(2)] == [RETURN_URL] * 2
    assert claimed_customers(sign_in_site) == {HUB: "acme"}
    assert len(sign_in_site.installs.rows) == 1


def test_an_invented_grant_is_not_stored(site):
    response = site.browser.post("/marketplace", data={"grant": "invented"}, base_url="https://connect.example")
    assert response.status_code == 400
    assert site.queue.messages == []


def test_an_account_that_the_link_does_not_name_is_not_stored(sign_in_site):
    state = sign_in(sign_in_site, make_link(return_to=None, hub_id=783))
    response = finalize(sign_in_site, state)
    assert response.status_code == 409
    assert "783" in response.text
    assert sign_in_site.queue.messages == []


def test_below_a_path_the_install_url_and_the_way_back_from_sign_in_have_it():
    site = Site(
        redirect_uri="https://connect.example/hub/oauth/callback",
        connect_link_keys=(KEY,),
        marketplace_sign_in_url=SIGN_IN,
    )
    assert send(site, "/hub/marketplace", code="the-code", returnUrl=RETURN_URL).headers["Location"] == RETURN_URL
    assert site.hubspot.redirect_uris == ["https://connect.example/hub/marketplace"]
    _, query = read_location(send(site, "/hub/marketplace", step="authorize", returnUrl=RETURN_URL))
    assert query["continue"].startswith("https://connect.example/hub/marketplace?")


def test_a_head_request_uses_up_no_code(site):
    site.hubspot.grants["the-code"] = grant()
    response = site.browser.head(
        "/marketplace", query_string={"code": "the-code", "returnUrl": RETURN_URL}, base_url="https://connect.example"
    )
    assert response.status_code == 405
    assert site.hubspot.exchanged == []


def test_a_parameter_that_is_there_twice_is_refused(site):
    for name in ("code", "state", "step", "returnUrl"):
        assert site.visit(f"/marketplace?code=c&returnUrl={RETURN_URL}&{name}=a&{name}=b").status_code == 400


def test_the_log_has_the_names_of_parameters_and_no_values(site, capsys):
    send(site, code="secret-code", returnUrl=f"{RETURN_URL}?secret=1", **{"odd\nname": "x", "portalId": "62515"})
    log = capsys.readouterr().out
    assert "parameters='code,returnUrl,?,portalId'" in log or "parameters=code,returnUrl,?,portalId" in log
    assert "secret" not in log


def test_where_links_are_required_the_marketplace_still_installs(site):
    required = Site(redirect_uri=HTTPS_REDIRECT_URI, connect_link_keys=(KEY,), is_link_required=True)
    assert send(required, code="the-code", returnUrl=RETURN_URL).status_code == 303
    assert send(required).status_code == 403
