"""The handshake over HTTP, with the simulator as HubSpot: every way it can end, and that nothing is stored then."""

import base64
import json
from contextlib import ExitStack

import pytest
import redis

from sandbox.simulator.control import DEMO_CLIENT_SECRET
from shared.token_cipher import TokenCipher
from tests.support.http_server import serving
from tests.support.polling import until
from tests.support.visitor import Visitor, code_in, state_in

HUB = 62515


@pytest.fixture
def settings(environment, request):
    """A test's parameter changes some."""
    return environment(**getattr(request, "param", {}))


@pytest.fixture
def visitors(settings, simulator):
    """A function that returns a new browser."""
    with serving(settings) as url, ExitStack() as stack:
        yield lambda: stack.enter_context(Visitor(url, simulator))


@pytest.fixture
def visitor(visitors):
    return visitors()


@pytest.fixture
def count_connections(connect):
    def count():
        with connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM tokenkeeper.connections")
            return cursor.fetchone()[0]

    return count


@pytest.fixture
def nothing_is_stored(count_connections, settings):
    """A function that asserts it, for PostgreSQL and the queue."""

    def check():
        with redis.Redis.from_url(settings["REDIS_URL"]) as client:
            assert not client.llen("tokenkeeper.interactive")
        assert count_connections() == 0
        return True

    return check


def test_an_install_is_queued_encrypted_and_its_page_waits(visitor, settings):
    def install():
        """Its message and page. None where a busy machine took longer than the queue has, or than the page waits."""
        path = visitor.install(HUB)
        messages = [each for each in read_messages(settings) if path.rpartition("/")[2].encode() in each]
        page, status = visitor.get(path), visitor.status(path)
        return (*messages, page) if messages and status == {"state": "storing", "hub_id": HUB} else None

    message, page = until(install)
    assert page.status_code == 200
    assert "Connecting account 62515" in page.text
    install = TokenCipher([settings["TOKEN_KEYS"]]).decrypt_install(visitor.cookie("tk_grant_"))
    assert install.hub_id == HUB
    for secret in (install.refresh_token, settings["HUBSPOT_CLIENT_SECRET"]):
        assert secret not in page.text
        assert secret.encode() not in message


def read_messages(settings):
    with redis.Redis.from_url(settings["REDIS_URL"]) as client:
        envelopes = client.lrange("tokenkeeper.interactive", 0, -1)
    return [envelope + base64.b64decode(json.loads(envelope)["body"]) for envelope in envelopes]


def test_a_denied_consent_gets_an_error_page(visitor, nothing_is_stored):
    response = visitor.get(visitor.simulator.deny(visitor.press_connect()))
    assert response.status_code == 403
    assert "did not allow" in response.text
    assert nothing_is_stored()


def test_a_preselected_hub_is_in_the_url_of_the_consent_page(visitor):
    address = visitor.press_connect(hub_id=HUB)
    assert f"/oauth/{HUB}/authorize" in address
    assert "scope=oauth%20crm.objects.contacts.read" in address


def test_a_state_of_another_browser_gets_an_error_page(visitor, visitors, nothing_is_stored):
    back = visitor.allow(HUB)
    response = visitors().get(back)
    assert response.status_code == 403
    assert "other browser" in response.text
    assert nothing_is_stored()


def test_a_changed_state_gets_an_error_page(visitor, nothing_is_stored):
    back = visitor.allow(HUB)
    state = state_in(back)
    response = visitor.get(back.replace(state, state[:-5] + "AAAAA"))
    assert response.status_code == 400
    assert nothing_is_stored()


def test_without_a_state_the_handshake_begins_again_and_succeeds(visitor, simulator):
    code = code_in(visitor.allow(HUB))
    response = visitor.get(f"/oauth/callback?code={code}")
    assert response.status_code == 302
    assert visitor.get(simulator.allow(response.headers["Location"], HUB)).status_code == 303


def test_a_missing_code_gets_an_error_page(visitor, nothing_is_stored):
    response = visitor.get(f"/oauth/callback?state={state_in(visitor.press_connect())}")
    assert response.status_code == 400
    assert nothing_is_stored()


def test_a_used_code_is_refused_in_another_browser(visitor, visitors):
    back = visitor.allow(HUB)
    assert visitor.get(back).status_code == 303
    other = visitors()
    state = state_in(other.press_connect())
    response = other.get(f"/oauth/callback?code={code_in(back)}&state={state}")
    assert response.status_code == 400
    assert "cannot be used again" in response.text


def test_a_reload_exchanges_the_code_once(visitor, simulator):
    back = visitor.allow(HUB)
    first, again = visitor.get(back), visitor.get(back)
    assert again.status_code == 303
    assert again.headers["Location"] == first.headers["Location"]
    assert simulator.get_stats()["by_hub"][str(HUB)]["exchanges"] == 1


def test_an_expired_code_gets_an_error_page(visitor, simulator, nothing_is_stored):
    simulator.change_settings(code_lifetime=0.001)
    response = visitor.get(visitor.allow(HUB))
    assert response.status_code == 400
    assert "too old" in response.text
    assert nothing_is_stored()


def test_a_wrong_client_secret_gets_an_error_page(visitor, simulator, nothing_is_stored):
    simulator.change_settings(client_secrets=["other-secret"])
    response = visitor.get(visitor.allow(HUB))
    assert response.status_code == 502
    assert "not set up correctly" in response.text
    assert DEMO_CLIENT_SECRET not in response.text
    assert nothing_is_stored()


@pytest.mark.parametrize(
    ("fault", "options", "status"),
    [
        ("503", {}, 502),
        ("html_503", {}, 502),
        ("html_200", {}, 502),
        ("empty_200", {}, 502),
        ("huge", {}, 502),
        ("wrong_types", {}, 502),
        ("reset", {}, 502),
        ("429", {"retry_after": 9}, 503),
        ("unknown_refusal", {}, 502),
    ],
)
def test_an_error_of_hubspot_gets_an_error_page_with_a_link_to_start_again(
    visitor, fault, options, status, nothing_is_stored
):
    check_error_page(visitor, fault, options, status)
    assert nothing_is_stored()


@pytest.mark.parametrize("settings", [{"HTTP_TIMEOUT_SECONDS": "1"}], indirect=True, ids=["a second"])
def test_a_late_answer_of_hubspot_gets_an_error_page_with_a_link_to_start_again(visitor, nothing_is_stored):
    check_error_page(visitor, "slow", {"seconds": 30}, 504)
    assert nothing_is_stored()


def check_error_page(visitor, fault, options, status):
    visitor.simulator.add_fault(fault, where="token", **options)
    back = visitor.allow(HUB)
    response = visitor.get(back)
    assert response.status_code == status
    assert 'href="/install"' in response.text
    assert code_in(back) not in response.text


def test_two_tabs_connect_two_accounts(visitor):
    one, two = visitor.allow(1), visitor.allow(2)
    assert visitor.get(two).status_code == 303
    assert visitor.get(one).status_code == 303


def test_another_browser_does_not_see_the_page_of_an_install(visitor, visitors):
    path = visitor.install(HUB)
    other = visitors()
    assert other.get(path).status_code == 404
    assert other.get(f"{path}/status").status_code == 404


def test_the_newer_of_two_installs_wins_where_its_host_has_a_clock_that_is_behind(environment, simulator, connect):
    settings = environment(REDIS_URL="redis://127.0.0.1:1/0")  # so that web stores them itself
    tokens = []
    for seconds in (0, -240):
        with serving(settings, clock_ahead_seconds=seconds) as url, Visitor(url, simulator) as visitor:
            visitor.wait(visitor.install(HUB))
        with connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT access_token FROM hubspot.tokens")
            tokens += [token for (token,) in cursor.fetchall()]
    assert len(set(tokens)) == 2, "the second install was dropped as older"
    assert simulator.check_tokens([tokens[1]])[0].is_live
