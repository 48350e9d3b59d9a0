"""The operator's pages need the password, and reveal nothing without it."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.unit.web.conftest import PASSWORD, Site
from web.security.basic_auth import BasicAuth
from web.security.rate_limits import WRONG_PASSWORD_RATE, RateLimiter

PAGES = ["/operator", "/connections", "/connections/62515", "/connections/62515/disconnect", "/metrics"]
ACTIONS = [
    "/connections/62515/refresh",
    "/connections/62515/disconnect",
    "/operator/revocations/confirm",
    "/operator/revocations/dismiss",
]
ROUTES = [
    *(("GET", path) for path in PAGES),
    *(("HEAD", path) for path in PAGES),
    *(("POST", path) for path in ACTIONS),
]


def basic(user="operator", password=PASSWORD):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_the_password_every_route_is_401(site, method, path):
    response = site.browser.open(path, method=method)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Basic realm="tokenkeeper", charset="UTF-8"'
    assert method == "HEAD" or "OPERATOR_PASSWORD" in response.text


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_with_the_password_no_route_is_401(site, method, path):
    """PostgreSQL is down here, and the forms lack their CSRF token."""
    response = site.browser.open(path, method=method, headers=basic())
    assert response.status_code == (403 if method == "POST" else 503)


@pytest.mark.parametrize("hub_id", ["1", "0", "x", "9" * 400])
def test_without_the_password_no_response_reveals_whether_an_account_exists(site, hub_id):
    assert site.browser.get(f"/connections/{hub_id}").status_code == 401


@pytest.mark.parametrize("path", PAGES)
def test_options_requests_reveal_no_methods(site, path):
    if path != "/metrics":
        assert site.browser.open(path, method="OPTIONS").status_code == 405


@pytest.mark.parametrize(
    "header",
    [
        basic(password=PASSWORD + "x"),
        basic(password=PASSWORD[:-1]),
        basic(password=""),
        basic(user="Operator"),
        basic(user="operator:"),
        basic(user=""),
        {"Authorization": f"Bearer {PASSWORD}"},
        {"Authorization": "Basic"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic é"},
        {"Authorization": "Basic " + "A" * 20_000},
        {"Authorization": 'Digest username="operator", uri="/'},
    ],
)
def test_a_wrong_password_is_refused_and_logged_without_its_value(site, header):
    with capture_logs() as logs:
        assert site.browser.get("/operator", headers=header).status_code == 401
    assert [line["event"] for line in logs] == ["wrong password"]
    assert PASSWORD[:-1] not in str(logs)


def test_a_password_may_have_non_ascii_characters(site):
    view = BasicAuth({"operator": "pässwörd ☂"}, RateLimiter("", WRONG_PASSWORD_RATE)).require(lambda: "in")
    with site.app.test_request_context(headers=basic(password="pässwörd ☂")):
        assert view() == "in"


def test_the_metrics_password_opens_the_metrics_and_nothing_else():
    site = Site(metrics_password="a-scrapers-own-password")
    scraper = basic("metrics", "a-scrapers-own-password")
    assert site.visit("/metrics", headers=scraper).status_code == 503  # PostgreSQL is down here
    assert {site.visit(path, headers=scraper).status_code for path in PAGES if path != "/metrics"} == {401}
    assert site.visit("/metrics", headers=basic()).status_code == 503
    assert site.visit("/metrics", headers=basic("metrics", PASSWORD)).status_code == 401


def test_without_a_metrics_password_the_operators_is_that_of_user_metrics_too(site):
    assert site.visit("/metrics", headers=basic("metrics", PASSWORD)).status_code == 503
    assert site.visit("/operator", headers=basic("metrics", PASSWORD)).status_code == 401


@settings(max_examples=100, deadline=None)
@given(header=st.binary(max_size=80), path=st.sampled_from(PAGES))
def test_no_authorization_header_is_a_server_error(site, header, path):
    for text in (header.decode("latin-1"), "Basic " + base64.b64encode(header).decode()):
        environ = {"HTTP_AUTHORIZATION": text}
        assert site.app.test_client().get(path, environ_overrides=environ).status_code in {401, 429}
