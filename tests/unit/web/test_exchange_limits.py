"""Invented codes cost their sender: they wait in the browser, and leave room for the codes of other people."""

import threading

import pytest

from shared.domain.errors import CodeRejected, TemporarilyUnavailable
from tests.support.builders import HUB, grant
from web.oauth.exchange_limits import (
    MAX_EXCHANGES,
    MAX_REMEMBERED_CODES,
    MAX_UNTRUSTED_EXCHANGES,
    REJECTED_CODE_RATE,
    TRUSTED_FROM_CODES,
    ExchangeLimits,
    ExchangeRefused,
)

REJECTED = CodeRejected("BAD_AUTH_CODE", http_status=400)


@pytest.fixture
def clock():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    return Clock()


@pytest.fixture
def limits(clock):
    return ExchangeLimits(clock, double_click_seconds=0.0)


def reject_codes(limits, network, count):
    for number in range(count):
        with limits.admit(network, f"{network}/{number}") as attempt:
            attempt.is_rejected = True


def refusal_of(limits, network, handshake_id="one more"):
    with pytest.raises(ExchangeRefused) as refusal, limits.admit(network, handshake_id):
        pass
    return refusal.value


def test_exchanges_at_once_are_limited_and_the_next_one_may_begin_when_one_has_ended(limits):
    admitted = [limits.admit(f"network {number}", str(number)) for number in range(MAX_EXCHANGES)]
    for one in admitted:
        one.__enter__()
    assert not refusal_of(limits, "another network").is_allowance_spent
    admitted[0].__exit__(None, None, None)
    with limits.admit("another network", "one more"):
        pass


def test_a_network_whose_codes_were_rejected_gets_a_small_part_of_the_exchanges(limits):
    enough = REJECTED_CODE_RATE.burst - TRUSTED_FROM_CODES + 1
    reject_codes(limits, "a", enough)
    reject_codes(limits, "b", enough)
    with limits.admit("a", "x"):
        assert MAX_UNTRUSTED_EXCHANGES == 1
        refusal_of(limits, "b")
        with limits.admit("c", "y") as attempt:
            assert attempt.is_trusted


def test_after_its_allowance_of_rejected_codes_a_network_has_one_a_minute(limits, clock):
    reject_codes(limits, "a", REJECTED_CODE_RATE.burst)
    refusal = refusal_of(limits, "a")
    assert refusal.is_allowance_spent
    assert refusal.wait_seconds == 60
    clock.now = 60.0
    with limits.admit("a", "x"):
        pass
    with limits.admit("b", "y"):
        pass


def test_a_handshake_has_one_exchange_at_once(limits):
    with limits.admit("a", "x"):
        refusal_of(limits, "a", "x")


def test_an_exchange_that_raises_is_no_longer_in_flight(limits):
    with pytest.raises(KeyError), limits.admit("a", "x"):
        raise KeyError
    with limits.admit("a", "x"):
        pass


def test_the_number_of_remembered_codes_is_limited(limits):
    for number in range(MAX_REMEMBERED_CODES + 10):
        limits.remember(str(number), HUB)
    assert limits.find_exchanged("", "9") is None
    assert limits.find_exchanged("", str(MAX_REMEMBERED_CODES)) == HUB


def test_a_rejected_code_ends_its_handshake(site):
    state = site.state()
    site.hubspot.exchange_error = REJECTED
    first = site.callback("invented", state)
    again = site.callback("another", state)
    assert [first.status_code, again.status_code] == [400, 400]
    assert site.hubspot.exchanged == ["invented"]


def test_an_address_with_many_rejected_codes_waits_in_the_browser_and_hubspot_is_not_asked(site):
    site.hubspot.exchange_error = REJECTED
    for number in range(REJECTED_CODE_RATE.burst):
        assert site.callback(f"invented-{number}").status_code == 400
    response = site.callback("one-more")
    assert response.status_code == 429
    assert "continues by itself" in response.text
    assert 1 <= int(response.headers["Refresh"]) <= 60
    assert "one-more" not in response.text + str(response.headers)
    assert len(site.hubspot.exchanged) == REJECTED_CODE_RATE.burst
    site.hubspot.exchange_error = None
    site.hubspot.grants["good"] = grant()
    other = {"REMOTE_ADDR": "5.6.7.8"}
    query = {"code": "good", "state": site.state()}
    assert site.visit("/oauth/callback", query_string=query, environ_overrides=other).status_code == 303


def test_an_outage_of_hubspot_costs_no_allowance(site):
    site.hubspot.exchange_error = TemporarilyUnavailable("timeout")
    for number in range(REJECTED_CODE_RATE.burst + 1):
        assert site.callback(f"code-{number}").status_code == 504
    site.hubspot.exchange_error = None
    assert site.callback("good").status_code == 303


def test_while_its_exchange_is_in_flight_a_code_waits_in_the_browser(site):
    state = site.state()
    responses = []
    real = site.hubspot.exchange

    def exchange_during_another_request(code, granted_at, redirect_uri):
        if not responses:
            responses.append(None)  # a second request of the same code arrives meanwhile
            responses[0] = site.callback(state=state)
        return real(code, granted_at, redirect_uri)

    site.hubspot.exchange = exchange_during_another_request
    first = site.callback(state=state)
    assert first.status_code == 303
    assert responses[0].status_code == 503
    assert responses[0].headers["Refresh"] == "3"
    assert site.hubspot.exchanged == ["the-code"]


def test_a_double_click_waits_for_the_exchange_of_the_first_click():
    limits = ExchangeLimits(lambda: 0.0, double_click_seconds=60.0)
    found = []
    with limits.admit("a", "x"):
        second = threading.Thread(target=lambda: found.append(limits.find_exchanged("x", "the-install")))
        second.start()
        limits.remember("the-install", HUB)
    second.join(30)
    assert found == [HUB]


def test_with_the_worker_down_the_second_of_two_clicks_gets_the_page_that_waits(site):
    """The first response, with its cookies, never reaches the browser; nothing is stored yet."""
    state = site.state()
    first = site.callback(state=state)
    for cookie in list(site.browser._cookies.values()):
        if cookie.key != "tk_browser":
            site.browser.delete_cookie(cookie.key)
    again = site.visit(f"/oauth/callback?code=the-code&state={state}")
    assert (again.status_code, again.headers["Location"]) == (303, first.headers["Location"])
    assert "Connecting account" in site.visit(again.headers["Location"]).text
    assert site.hubspot.exchanged == ["the-code"]


def test_the_second_of_two_clicks_in_another_process_is_told_nothing_that_is_not_known(site):
    """The other process knows nothing of the first click, and the worker has not stored it: the page looks again."""
    state = site.state()
    site.hubspot.exchange_error = REJECTED
    response = site.callback("used-by-the-other-process", state)
    assert response.status_code == 400
    assert "may be connected already" in response.text
    assert "nothing" not in response.text.lower()
    assert response.headers["Refresh"] == "2"
