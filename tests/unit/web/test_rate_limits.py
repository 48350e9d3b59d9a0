"""An address that sends too many requests gets 429 with Retry-After; other addresses do not."""

import pytest
from flask import request
from structlog.testing import capture_logs

from tests.unit.web.conftest import Site
from tests.unit.web.test_basic_auth import basic
from web.security.rate_limits import HANDSHAKE_RATE, WRONG_PASSWORD_RATE, Rate, RateLimiter, client_address


class ManualClock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return ManualClock()


def test_a_bucket_holds_its_burst_and_refills_over_time(clock):
    limiter = RateLimiter("x", Rate(3, 0.5), clock)
    assert [limiter.take("a") for _ in range(4)] == [0, 0, 0, 2]
    clock.now = 1.0
    assert limiter.take("a") == 1
    clock.now = 2.0
    assert [limiter.take("a"), limiter.take("a")] == [0, 2]
    clock.now = 1000.0
    assert [limiter.take("a") for _ in range(4)] == [0, 0, 0, 2]


def test_wait_seconds_takes_no_token(clock):
    limiter = RateLimiter("x", Rate(1, 1), clock)
    assert [limiter.wait_seconds("a"), limiter.wait_seconds("a"), limiter.take("a"), limiter.wait_seconds("a")] == [
        0,
        0,
        0,
        1,
    ]


def test_each_address_has_a_bucket_of_its_own(clock):
    limiter = RateLimiter("x", Rate(1, 1), clock)
    assert [limiter.take("a"), limiter.take("b"), limiter.take("a")] == [0, 0, 1]


def test_the_number_of_addresses_in_memory_is_limited(clock):
    limiter = RateLimiter("x", Rate(1, 1), clock, max_addresses=10)
    for number in range(1000):
        limiter.take(str(number))
    assert len(limiter) == 10
    assert limiter.take("999") == 1


def test_each_flood_is_one_line_in_the_log(clock):
    limiter = RateLimiter("x", Rate(2, 1), clock)
    with capture_logs() as logs:
        for _ in range(50):
            limiter.take("a")
        clock.now = 60.0
        for _ in range(50):
            limiter.take("a")
    assert [(line["limit"], line["address"]) for line in logs] == [("x", "a")] * 2


@pytest.mark.parametrize(
    ("proxies", "forwarded", "peer", "address"),
    [
        (0, "9.9.9.9", "1.2.3.4", "1.2.3.4"),
        (1, "9.9.9.9", "1.2.3.4", "9.9.9.9"),
        (1, "6.6.6.6, 9.9.9.9", "1.2.3.4", "9.9.9.9"),
        (2, "6.6.6.6, 9.9.9.9,10.0.0.1", "1.2.3.4", "9.9.9.9"),
        (2, "9.9.9.9", "1.2.3.4", "1.2.3.4"),
        (1, "", "1.2.3.4", "1.2.3.4"),
        (1, None, "1.2.3.4", "1.2.3.4"),
        (1, 'invented, "never closed, 9.9.9.9', "1.2.3.4", "1.2.3.4"),
        (1, '"invented", 9.9.9.9', "1.2.3.4", "9.9.9.9"),
        (1, "x" * 5000, "1.2.3.4", "1.2.3.4"),
        (1, "unknown", "1.2.3.4", "1.2.3.4"),
        (1, "9.9.9.9:40001", "1.2.3.4", "9.9.9.9"),
        (1, "[2001:db8:1:2::9]:40001", "1.2.3.4", "2001:db8:1:2::/64"),
        (1, "[2001:db8:1:2::9]", "1.2.3.4", "2001:db8:1:2::/64"),
        (1, "2001:db8:1:2::9", "1.2.3.4", "2001:db8:1:2::/64"),
        (2, "9.9.9.9:1, 10.0.0.1:2", "1.2.3.4", "9.9.9.9"),
        (1, "9.9.9.9:x", "1.2.3.4", "1.2.3.4"),
        (0, None, "fe80::1%eth0", "fe80::/64"),
        (0, None, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        (0, None, "::ffff:1.2.3.4", "1.2.3.4"),
        (0, None, "", ""),
    ],
)
def test_the_client_address_with_and_without_proxies(proxies, forwarded, peer, address):
    site = Site(trusted_proxies=proxies)
    site.app.add_url_rule("/address", view_func=lambda: client_address(request))
    headers = {"X-Forwarded-For": forwarded} if forwarded is not None else {}
    assert site.visit("/address", headers=headers, environ_base={"REMOTE_ADDR": peer}).text == address


def visit_often(site, path, times, **options):
    return [site.visit(path, **options) for _ in range(times)]


@pytest.mark.parametrize("path", ["/install", "/oauth/callback?state=x&code=y"])
def test_a_flood_of_handshakes_gets_429_from_that_address_only(site, path):
    responses = visit_often(site, path, HANDSHAKE_RATE.burst + 1)
    last = responses[-1]
    assert {response.status_code for response in responses[: HANDSHAKE_RATE.burst]} <= {302, 400}
    assert last.status_code == 429
    assert int(last.headers["Retry-After"]) >= 1
    assert "Wait a few seconds" in last.text
    assert site.visit(path, environ_overrides={"REMOTE_ADDR": "5.6.7.8"}).status_code != 429
    assert site.visit("/").status_code == 200


def test_a_rate_limited_callback_does_not_use_up_the_code(site):
    state = site.state()
    visit_often(site, "/oauth/callback?state=x&code=y", HANDSHAKE_RATE.burst + 1)
    assert site.callback("good", state).status_code == 429
    assert site.hubspot.exchanged == []


def test_after_ten_wrong_passwords_even_the_right_one_gets_429(site):
    wrong = visit_often(site, "/operator", WRONG_PASSWORD_RATE.burst, headers=basic(password="guess"))
    assert {response.status_code for response in wrong} == {401}
    for password in ({}, {"password": "guess"}):
        response = site.visit("/operator", headers=basic(**password))
        assert response.status_code == 429
        assert 1 <= int(response.headers["Retry-After"]) <= 6
        assert "Wait a few seconds" in response.text
    assert site.visit("/operator", headers=basic(), environ_overrides={"REMOTE_ADDR": "5.6.7.8"}).status_code == 503
    assert site.visit("/operator").status_code == 401


@pytest.mark.parametrize("header", ["Bearer x", "Basic", "Basic !!!", "x"])
def test_a_header_without_a_password_is_no_guess(site, header):
    assert {
        response.status_code for response in visit_often(site, "/operator", 30, headers={"Authorization": header})
    } == {401}


def test_the_right_password_is_not_limited(site):
    assert {response.status_code for response in visit_often(site, "/metrics", 100, headers=basic())} == {503}


def test_without_trusted_proxies_x_forwarded_for_is_ignored(site):
    for number in range(HANDSHAKE_RATE.burst + 1):
        response = site.visit("/install", headers={"X-Forwarded-For": f"7.7.{number // 250}.{number % 250}"})
    assert response.status_code == 429
