"""A form is accepted only from a page of this site that was served to the same browser not too long ago."""

import re

import pytest

from tests.unit.web.test_basic_auth import basic
from web.security.csrf import CsrfTokens

ACTION = "/operator/revocations/dismiss"


@pytest.fixture
def token(site):
    """Issued by hand: PostgreSQL is down here, so no page with a form can be shown."""
    site.visit("/")
    browser = site.browser.get_cookie("tk_browser").value
    return CsrfTokens("a-secret-key-for-tests", None, site.clock).issue(browser)


def send_form(site, token, browser=None, **headers):
    data = {} if token is None else {"csrf_token": token}
    return (browser or site.browser).post(
        ACTION, data=data, headers={**basic(), **headers}, base_url="http://localhost:5000"
    )


def test_a_form_with_its_token_is_accepted(site, token):
    response = send_form(site, token)
    assert response.status_code == 303
    assert response.headers["Location"] == "/operator?notice=no_brake"


@pytest.mark.parametrize("wrong_token", [None, "", "x", "x.y", "é", "\x00", "a" * 9000])
def test_a_form_without_a_valid_token_is_refused_with_a_link_back(site, token, wrong_token):
    response = send_form(site, wrong_token)
    assert response.status_code == 403
    assert "Nothing was changed" in response.text
    assert re.search(r'href="/operator">Back to the overview', response.text)


def test_a_token_changed_in_one_character_is_refused(site, token):
    assert send_form(site, token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1]).status_code == 403


def test_a_token_of_another_browser_is_refused(site, token):
    other = site.other_browser()
    other.visit("/")
    assert send_form(site, token, browser=other.browser).status_code == 403
    assert send_form(site, token, browser=site.app.test_client()).status_code == 403


def test_a_token_of_another_purpose_is_refused(site, token):
    assert send_form(site, site.state()).status_code == 403


def test_a_token_expires_after_twelve_to_thirteen_hours(site, token):
    site.clock.step(12 * 3600)
    assert send_form(site, token).status_code == 303
    site.clock.step(2 * 3600)
    assert send_form(site, token).status_code == 403


def test_a_page_that_is_reloaded_within_the_hour_has_the_same_token(site):
    csrf = CsrfTokens("a-secret-key-for-tests", None, site.clock)
    first = csrf.issue("a-browser")
    site.clock.step(5)
    assert csrf.issue("a-browser") == first


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "none"}, 303),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://localhost:5000"}, 303),
        ({"Origin": "null"}, 303),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:5001"}, 403),
        ({"Origin": "http://[::1"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 303),
    ],
)
def test_a_form_that_the_browser_marks_as_cross_site_is_refused(site, token, headers, status):
    assert send_form(site, token, **headers).status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        # nginx and HAProxy without a rule for Host, Apache, Caddy, Traefik, and the operator within the own network.
        {"Host": "web:5000", "Origin": "https://connect.example"},
        {"Host": "web:5000", "Origin": "https://CONNECT.example"},
        {"Host": "web:5000", "Origin": "https://admin.internal", "X-Forwarded-Host": "admin.internal, proxy"},
        {"Host": "admin.internal:5000", "Origin": "http://admin.internal:5000"},
        {"Host": "10.0.0.5:5000", "Origin": "null"},
    ],
)
def test_a_form_is_accepted_behind_proxies_and_over_http_in_the_own_network(https_site, headers):
    """Over http the browser keeps no Secure cookie."""
    token = CsrfTokens("a-secret-key-for-tests", None, https_site.clock).issue("a-cookie-that-was-not-kept")
    response = https_site.app.test_client().post(
        ACTION, data={"csrf_token": token}, headers={**basic(), **headers}, base_url="http://web:5000"
    )
    assert response.status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "web:5000", "Origin": "https://evil.example"},
        {"Host": "web:5000", "Origin": "https://evil.example", "X-Forwarded-Host": "connect.example"},
        {"Host": "", "Origin": "https://"},
        {"Host": "connect.example", "Origin": "https://connect.example", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_form_of_another_site_is_refused_behind_proxies_too(https_site, headers):
    token = CsrfTokens("a-secret-key-for-tests", None, https_site.clock).issue("a-cookie-that-was-not-kept")
    response = https_site.app.test_client().post(ACTION, data={"csrf_token": token}, headers={**basic(), **headers})
    assert response.status_code == 403


@pytest.mark.parametrize("body", [b"\xff\xfe", b"csrf_token=%ff", b"csrf_token", b"&=&=", b"x" * 100_000])
def test_no_form_body_is_a_server_error(site, body):
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json", "é"):
        response = site.browser.post(ACTION, data=body, content_type=kind, headers=basic())
        assert response.status_code in {400, 403, 413}
        assert "<h1>" in response.text
