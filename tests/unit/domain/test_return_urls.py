"""A browser is redirected to addresses of our product and of HubSpot, and to no other."""

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.domain.customer import InvalidText
from shared.domain.return_urls import (
    matches_host,
    parse_host_pattern,
    parse_marketplace_return_url,
    parse_origin,
    parse_return_to,
    set_query,
)

ORIGINS = ("https://app.example", "http://localhost:3000")
HOSTS = ("app.hubspot.com", "app-*.hubspot.com")
HUBSPOT = "https://app.hubspot.com"

HOSTILE = [
    "",
    "//app.example/",
    "/done",
    "javascript:alert(1)",
    "https:app.example",
    "https:///app.example",
    "https://app.example@evil.example/",
    "https://user@app.example/",
    "https://app.example:443@evil.example/",
    "https://evil.example/https://app.example/",
    "https://app.example.evil.example/",
    "https://evil.example\\@app.example/",
    "https://app.example\\.evil.example/",
    "https://evil.example#@app.example/",
    "https://app.example%2eevil.example/",
    "https://app.example:8443/",
    "https://app.example:0/",
    "https://app.example:99999/",
    "https://[::1/",
    "https://\u0430pp.example/",
    "https://app.example/a b",
    "https://app.example/\r\nSet-Cookie: a=b",
    "https://app.example/" + "a" * 1024,
    "http://app.example/",
    "ftp://app.example/",
    "http://localhost:3001/",
    "http://127.0.0.1:3000/",
]


@pytest.mark.parametrize("url", HOSTILE)
def test_a_return_to_of_another_form_or_origin_is_refused(url):
    with pytest.raises(InvalidText):
        parse_return_to(url, ORIGINS)


@pytest.mark.parametrize("url", [each.replace("app.example", "app.hubspot.com") for each in HOSTILE])
def test_a_return_url_that_does_not_lead_to_hubspot_is_refused(url):
    with pytest.raises(InvalidText):
        parse_marketplace_return_url(url, HOSTS, HUBSPOT)


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("https://app.example", "https://app.example/"),
        ("HTTPS://APP.example:443/Done?a=B#C", "https://app.example/Done?a=B#C"),
        ("http://localhost:3000/done?x=%20", "http://localhost:3000/done?x=%20"),
    ],
)
def test_a_return_to_of_our_product_is_written_again_from_its_parts(url, written):
    assert parse_return_to(url, ORIGINS) == written


@given(st.text(alphabet=st.sampled_from("ahtps:/@.?#\\%[]0123456789exmlocg-\t\n "), max_size=60))
@example("https://app.example")
def test_whatever_is_followed_has_one_of_the_origins(text):
    try:
        url = parse_return_to(text, ORIGINS)
    except InvalidText:
        return
    parts = urlsplit(url)
    assert f"{parts.scheme}://{parts.netloc}" in ORIGINS


@pytest.mark.parametrize(
    ("url", "is_taken"),
    [
        ("https://app.hubspot.com/a?b=c", True),
        ("https://app-eu1.hubspot.com:443/a", True),
        ("https://app-na2.hubspot.com", True),
        ("https://app-.hubspot.com/", True),
        ("https://app.eu1.hubspot.com/", False),
        ("https://app-eu1.evil.hubspot.com/", False),
        ("https://app-eu1.hubspot.com.evil.example/", False),
        ("https://www.hubspot.com/", False),
        ("http://app.hubspot.com/", False),
    ],
)
def test_the_hosts_of_hubspots_return_url(url, is_taken):
    try:
        parse_marketplace_return_url(url, HOSTS, HUBSPOT)
    except InvalidText:
        assert not is_taken
    else:
        assert is_taken


def test_the_origin_of_the_consent_page_is_hubspot_too():
    simulator = "http://localhost:8090"
    assert parse_marketplace_return_url(f"{simulator}/wizard?id=1", HOSTS, simulator) == f"{simulator}/wizard?id=1"
    with pytest.raises(InvalidText):
        parse_marketplace_return_url("http://localhost:8091/", HOSTS, simulator)


@pytest.mark.parametrize("pattern", ["*", "*.com", "hub*spot.com", "https://app.hubspot.com", "app hubspot.com", "a.*"])
def test_a_pattern_cannot_stand_for_a_whole_domain(pattern):
    with pytest.raises(InvalidText):
        parse_host_pattern(pattern)
    assert parse_host_pattern("App-*.HubSpot.com") == "app-*.hubspot.com"
    assert not matches_host("appX.hubspot.com", ["app.hubspot.com"])


@pytest.mark.parametrize(
    "text", ["https://app.example/path", "https://app.example?a", "app.example", "http://10.0.0.1"]
)
def test_an_origin_has_no_path_and_is_https_or_this_machine(text):
    with pytest.raises(InvalidText):
        parse_origin(text)


def test_parameters_replace_those_of_the_same_name_and_leave_the_others_as_they_are():
    url = set_query(
        "https://app.example/done?status=old&x=%7e&flag#part", {"status": "connected", "hub_id": 7, "no": None}
    )
    assert url == "https://app.example/done?x=%7e&flag&status=connected&hub_id=7#part"
    assert parse_qs(urlsplit(set_query("https://a.example/", {"customer": "a&b=ü"})).query) == {"customer": ["a&b=ü"]}
