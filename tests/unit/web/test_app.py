"""Every response: its headers, and a readable page for every error."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

import web

PATHS = [
    "/",
    "/install",
    "/oauth/callback",
    "/nowhere",
    "/installs/x",
    "/healthz",
    "/static/style.css",
    "/operator",
    "/connections/1",
    "/operator/nowhere",
]


@pytest.mark.parametrize("path", PATHS)
def test_every_response_has_the_security_headers(site, path):
    headers = site.visit(path).headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "Strict-Transport-Security" not in headers


def test_over_https_responses_have_strict_transport_security(https_site):
    assert "max-age" in https_site.visit("/").headers["Strict-Transport-Security"]


def test_forms_may_be_redirected_to_hubspots_regional_hosts(site):
    policy = site.visit("/").headers["Content-Security-Policy"]
    assert "form-action 'self' http://localhost:5000 https://app.hubspot.com https://*.hubspot.com" in policy


def test_no_template_has_inline_script_or_style():
    pages = list((Path(web.__file__).parent / "templates").rglob("*.html"))
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*src=)", text), page.name
        assert "|safe" not in text, page.name


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("POST", "/", 405), ("DELETE", "/install", 405), ("POST", "/oauth/callback", 405)],
)
def test_a_wrong_path_or_method_gets_an_error_page(site, method, path, status):
    response = site.browser.open(path, method=method)
    assert response.status_code == status
    assert "<h1>" in response.text
    if status == 405:
        assert "GET" in response.headers["Allow"]


def test_a_large_body_is_refused(site):
    assert site.browser.post("/", data=b"x" * 100_000).status_code in {405, 413}


def test_an_unexpected_exception_shows_no_traceback_and_logs_no_values(site):
    site.hubspot.authorize_url = None
    with capture_logs() as logs:
        response = site.visit("/install")
    assert response.status_code == 500
    assert "our fault" in response.text
    assert "Traceback" not in response.text
    [line] = logs
    assert line["error"] == "TypeError"
    assert any("handshake.py" in frame for frame in line["where"])


@pytest.mark.parametrize("host", ["evil.example", "", "a b", "[::1", "x" * 3000, "localhost:99999", "é"])
def test_redirects_do_not_depend_on_the_host_header(site, host):
    response = site.browser.get("/install", headers={"Host": host})
    assert response.status_code in {302, 400}
    assert "evil.example" not in str(response.headers)


@pytest.mark.parametrize("path", ["/static//style.css", "/connections//1", "/static/../style.css"])
def test_a_path_with_double_slashes_is_not_redirected(site, path):
    response = site.browser.open(path="/", environ_overrides={"PATH_INFO": path})
    assert (response.status_code, response.headers.get("Location")) in {(404, None), (401, None)}


any_text = st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1"))


@settings(max_examples=150, deadline=None)
@given(
    path=st.sampled_from(
        ["/", "/install", "/oauth/callback", "/installs/", "/installs/6e9d9c4e-0000-4000-8000-000000000000/status"]
    )
    | any_text.map(lambda text: text.replace("?", "")),  # the test client wants the query apart
    query=st.dictionaries(st.sampled_from(["state", "code", "error", "hub_id", "x"]), st.lists(any_text, max_size=2)),
    cookies=st.dictionaries(
        st.sampled_from(["tk_browser", "tk_install_6e9d9c4e0000", "tk_grant_6e9d9c4e0000", "tk_used", "x"]),
        st.text('abc"\\;=%é ', max_size=40),
    ),
)
def test_no_request_of_a_browser_is_a_server_error(site, path, query, cookies):
    browser = site.app.test_client(use_cookies=False)
    header = "; ".join(f"{name}={value}" for name, value in cookies.items()).encode().decode("latin-1")
    response = browser.get("/" + path.lstrip("/"), query_string=query, headers={"Cookie": header})
    assert response.status_code < 500


@settings(max_examples=60, deadline=None)
@given(query=st.binary(max_size=80), cookie=st.binary(max_size=80))
def test_raw_bytes_in_query_and_cookie_are_no_server_error(site, query, cookie):
    environ = {"QUERY_STRING": query.decode("latin-1"), "HTTP_COOKIE": cookie.decode("latin-1")}
    for path in ("/install", "/oauth/callback", "/installs/6e9d9c4e-0000-4000-8000-000000000000"):
        response = site.app.test_client(use_cookies=False).get(path, environ_overrides=environ)
        assert response.status_code < 500
