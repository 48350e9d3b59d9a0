"""A form counts only where it comes from a page of ours, shown to this very browser, not too long ago."""

import re

import pytest

from tests.unit.web.test_basic import basic
from web.security.csrf import CsrfTokens

ORDER = "/operator/revocations/dismiss"


@pytest.fixture
def token(site):
    """Of a page that this browser was shown: with PostgreSQL down there is none, so it is issued by hand."""
    site.visit("/")
    browser = site.browser.get_cookie("tk_browser").value
    return CsrfTokens("a-secret-key-for-tests", None, site.clock).issue(browser)


def press(site, token, browser=None, **headers):
    data = {} if token is None else {"csrf_token": token}
    return (browser or site.browser).post(
        ORDER, data=data, headers={**basic(), **headers}, base_url="http://localhost:5000"
    )


def test_a_form_of_ours_is_accepted(site, token):
    answer = press(site, token)
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/operator?notice=no_brake"


@pytest.mark.parametrize("forged", [None, "", "x", "x.y", "é", "\x00", "a" * 9000])
def test_without_its_token_it_is_refused_with_a_way_on(site, token, forged):
    answer = press(site, forged)
    assert answer.status_code == 403
    assert "Nothing was changed" in answer.text
    assert re.search(r'href="/operator">Back to the overview', answer.text)


def test_a_token_changed_in_one_character_is_refused(site, token):
    assert press(site, token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1]).status_code == 403


def test_a_token_of_another_browser_is_refused(site, token):
    other = site.other_browser()
    other.visit("/")
    assert press(site, token, browser=other.browser).status_code == 403
    assert press(site, token, browser=site.app.test_client()).status_code == 403


def test_a_token_of_another_purpose_is_refused(site, token):
    assert press(site, site.state()).status_code == 403


def test_a_page_left_open_over_night_is_told_so(site, token):
    site.clock.step(12 * 3600)
    assert press(site, token).status_code == 303
    site.clock.step(2 * 3600)
    assert press(site, token).status_code == 403


def test_a_page_fetched_again_has_the_same_form(site):
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
def test_a_browser_that_says_that_it_comes_from_elsewhere_is_believed(site, token, headers, status):
    assert press(site, token, **headers).status_code == status


@pytest.mark.parametrize("body", [b"\xff\xfe", b"csrf_token=%ff", b"csrf_token", b"&=&=", b"x" * 100_000])
def test_no_body_is_a_server_error(site, body):
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json", "é"):
        answer = site.browser.post(ORDER, data=body, content_type=kind, headers=basic())
        assert answer.status_code in {400, 403, 413}
        assert "<h1>" in answer.text
