"""Who asks too often is told to wait, and nobody else is."""

import pytest
from flask import Flask, request
from structlog.testing import capture_logs

from tests.unit.web.test_basic import basic
from web.security.rate_limits import HANDSHAKE_RATE, WRONG_PASSWORD_RATE, Rate, RateLimiter, client_address


class Tick:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def tick():
    return Tick()


def test_a_bucket_gives_its_burst_and_then_what_flows_in(tick):
    buckets = RateLimiter("x", Rate(3, 0.5), tick)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 2]
    tick.now = 1.0
    assert buckets.take("a") == 1
    tick.now = 2.0
    assert [buckets.take("a"), buckets.take("a")] == [0, 2]
    tick.now = 1000.0
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 2]


def test_looking_takes_nothing(tick):
    buckets = RateLimiter("x", Rate(1, 1), tick)
    assert [buckets.wait_seconds("a"), buckets.wait_seconds("a"), buckets.take("a"), buckets.wait_seconds("a")] == [
        0,
        0,
        0,
        1,
    ]


def test_each_address_has_its_own(tick):
    buckets = RateLimiter("x", Rate(1, 1), tick)
    assert [buckets.take("a"), buckets.take("b"), buckets.take("a")] == [0, 0, 1]


def test_a_million_addresses_do_not_fill_the_memory(tick):
    buckets = RateLimiter("x", Rate(1, 1), tick, max_addresses=10)
    for number in range(1000):
        buckets.take(str(number))
    assert len(buckets) == 10
    assert buckets.take("999") == 1


def test_a_flood_is_one_line_in_the_log_and_the_next_one_another(tick):
    buckets = RateLimiter("x", Rate(2, 1), tick)
    with capture_logs() as logs:
        for _ in range(50):
            buckets.take("a")
        tick.now = 60.0
        for _ in range(50):
            buckets.take("a")
    assert [(line["limit"], line["address"]) for line in logs] == [("x", "a")] * 2


@pytest.mark.parametrize(
    ("proxies", "forwarded", "peer", "address"),
    [
        (0, "9.9.9.9", "1.2.3.4", "1.2.3.4"),
        (1, "9.9.9.9", "1.2.3.4", "9.9.9.9"),
        (1, "6.6.6.6, 9.9.9.9", "1.2.3.4", "9.9.9.9"),
        (2, "6.6.6.6, 9.9.9.9,10.0.0.1", "1.2.3.4", "9.9.9.9"),
        (2, "9.9.9.9", "1.2.3.4", "1.2.3.4"),
        (1, "", "1.2.3.4", ""),
        (1, "x" * 5000, "1.2.3.4", "x" * 45),
        (0, "", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        (0, "", "::ffff:1.2.3.4", "1.2.3.4"),
        (0, "", "", ""),
    ],
)
def test_who_asks(proxies, forwarded, peer, address):
    headers = {"X-Forwarded-For": forwarded} if forwarded or proxies else {}
    with Flask(__name__).test_request_context(headers=headers, environ_base={"REMOTE_ADDR": peer}):
        assert client_address(request) == address


def ask(site, path, times, **options):
    return [site.visit(path, **options) for _ in range(times)]


@pytest.mark.parametrize("path", ["/install", "/oauth/callback?state=x&code=y"])
def test_a_flood_of_handshakes_is_told_to_wait(site, path):
    answers = ask(site, path, HANDSHAKE_RATE.burst + 1)
    last = answers[-1]
    assert {answer.status_code for answer in answers[: HANDSHAKE_RATE.burst]} <= {302, 400}
    assert last.status_code == 429
    assert int(last.headers["Retry-After"]) >= 1
    assert "Wait a few seconds" in last.text
    assert site.visit(path, environ_overrides={"REMOTE_ADDR": "5.6.7.8"}).status_code != 429
    assert site.visit("/").status_code == 200


def test_a_code_that_had_to_wait_is_not_spent(site):
    state = site.state()
    ask(site, "/oauth/callback?state=x&code=y", HANDSHAKE_RATE.burst + 1)
    assert site.callback("good", state).status_code == 429
    assert site.hubspot.exchanged == []


def test_after_some_wrong_passwords_not_even_the_right_one_is_looked_at(site):
    wrong = ask(site, "/operator", WRONG_PASSWORD_RATE.burst, headers=basic(password="guess"))
    assert {answer.status_code for answer in wrong} == {401}
    for password in ({}, {"password": "guess"}):
        held = site.visit("/operator", headers=basic(**password))
        assert held.status_code == 429
        assert 1 <= int(held.headers["Retry-After"]) <= 6
        assert "Wait a few seconds" in held.text
    assert site.visit("/operator", headers=basic(), environ_overrides={"REMOTE_ADDR": "5.6.7.8"}).status_code == 503
    assert site.visit("/operator").status_code == 401


@pytest.mark.parametrize("header", ["Bearer x", "Basic", "Basic !!!", "x"])
def test_what_is_no_password_at_all_is_no_guess(site, header):
    assert {answer.status_code for answer in ask(site, "/operator", 30, headers={"Authorization": header})} == {401}


def test_the_right_password_may_be_given_any_number_of_times(site):
    assert {answer.status_code for answer in ask(site, "/metrics", 100, headers=basic())} == {503}


def test_no_address_means_no_way_around_it(site):
    """Without the setting, what a client says of itself is not read."""
    for number in range(HANDSHAKE_RATE.burst + 1):
        answer = site.visit("/install", headers={"X-Forwarded-For": f"7.7.{number // 250}.{number % 250}"})
    assert answer.status_code == 429
