"""Below a path everything works, whether the proxy in front passes that path on or removes it."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest

from shared.settings.parsers import RESERVED_PATHS
from tests.support.builders import HUB, grant
from tests.unit.web.conftest import Site
from tests.unit.web.test_basic_auth import basic

PREFIX = "/apps/hub-spot"
ORIGIN = "https://connect.example"


@pytest.fixture
def prefixed_site():
    return Site(redirect_uri=f"{ORIGIN}{PREFIX}/oauth/callback")


class Proxy:
    """A browser behind a proxy that forwards the prefix, alone or besides other sites of the host."""

    def __init__(self, site, *, strips):
        self.site = site
        self.strips = strips

    def get(self, path, **options):
        assert path.startswith(PREFIX), f"{path} leads to another site"
        forwarded = path.removeprefix(PREFIX) if self.strips else path
        # The browser sees the path with the prefix, and chooses the cookies by it.
        cookies = "; ".join(
            f"{cookie.key}={cookie.value}"
            for cookie in self.site.browser._cookies.values()
            if path.startswith(cookie.path)
        )
        response = self.site.app.test_client(use_cookies=False).get(
            forwarded, base_url=ORIGIN, headers={"Cookie": cookies, **options.pop("headers", {})}, **options
        )
        self.site.browser._update_cookies_from_response("connect.example", path, response.headers.getlist("Set-Cookie"))
        return response


@pytest.fixture(params=[True, False], ids=["stripped", "passed on"])
def proxy(request, prefixed_site):
    return Proxy(prefixed_site, strips=request.param)


def links(html):
    return re.findall(r'(?:href|src|action|data-status)="([^"#]+)"', html)


def test_the_whole_handshake_works_below_the_prefix(proxy, prefixed_site):
    front = proxy.get(f"{PREFIX}/")
    start = next(link for link in links(front.text) if link.endswith("/install"))
    location = urlsplit(proxy.get(start).headers["Location"])
    query = parse_qs(location.query)
    prefixed_site.hubspot.grants["the-code"] = grant()
    back = f"{PREFIX}/oauth/callback?code=the-code&state={query['state'][0]}"
    page = proxy.get(proxy.get(back).headers["Location"])
    assert f"Connecting account {HUB}" in page.text
    status = next(link for link in links(page.text) if link.endswith("/status"))
    assert proxy.get(status).get_json() == {"state": "storing", "hub_id": HUB}
    prefixed_site.store_queued()
    assert proxy.get(status).get_json() == {"state": "connected", "hub_id": HUB}


@pytest.mark.parametrize("path", ["/", "/nowhere", "/operator", "/install?hub_id=x", "/oauth/callback?code=c&state=x"])
def test_every_link_of_a_page_leads_below_the_prefix(proxy, path):
    found = links(proxy.get(PREFIX + path).text)
    assert len(found) > 3
    assert all(link.startswith(PREFIX) for link in found), found
    for link in found:
        response = proxy.get(link)
        response.close()
        assert response.status_code in {200, 302, 401}, link


def test_the_prefix_without_a_slash_is_the_front_page(proxy):
    assert "Connect to HubSpot" in proxy.get(PREFIX).text


def test_the_operators_pages_and_monitoring_are_below_the_prefix(proxy):
    assert proxy.get(f"{PREFIX}/healthz").status_code == 200
    assert proxy.get(f"{PREFIX}/metrics", headers=basic()).status_code == 503  # PostgreSQL is down here
    assert proxy.get(f"{PREFIX}/operator").status_code == 401


def test_probes_of_the_own_network_need_no_prefix(prefixed_site):
    assert prefixed_site.visit("/healthz").status_code == 200


def test_cookies_are_of_the_prefix_alone_and_no_browser_refuses_their_names(prefixed_site, cookies):
    for name, line in cookies(prefixed_site.visit("/install")).items():
        assert name.startswith("__Secure-tk_")
        assert f"Path={PREFIX};" in f"{line};"


@pytest.mark.parametrize(
    "uri", ["http://localhost:5000/oauth/callback/", f"https://connect.example{PREFIX}/oauth/callback/"]
)
def test_a_redirect_uri_with_a_slash_at_its_end_works(uri):
    site = Site(redirect_uri=uri)
    site.hubspot.grants["c"] = grant()
    response = site.visit(urlsplit(uri).path, query_string={"code": "c", "state": site.state()})
    assert response.status_code == 303
    assert "Connecting account" in site.visit(response.headers["Location"]).text


def test_no_prefix_can_begin_with_a_page_of_web(site):
    pages = {rule.rule.split("/")[1] for rule in site.app.url_map.iter_rules()} - {""}
    assert pages <= set(RESERVED_PATHS)
