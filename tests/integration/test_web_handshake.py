"""The handshake over real HTTP, against the simulator: every way it can end, and that nothing is stored then."""

import base64
import json
from contextlib import ExitStack

import pytest
import redis

from sandbox.simulator.control import DEMO_CLIENT_SECRET
from shared.token_cipher import TokenCipher
from tests.support.http_server import serving
from tests.support.visitor import Visitor, code_in, state_in

HUB = 62515


@pytest.fixture
def settings(environment):
    return environment(HTTP_TIMEOUT_SECONDS="1")


@pytest.fixture
def visitors(settings, simulator):
    """Makes browsers that visit our site."""
    with serving(settings) as url, ExitStack() as stack:
        yield lambda: stack.enter_context(Visitor(url, simulator))


@pytest.fixture
def visitor(visitors):
    return visitors()


@pytest.fixture
def stored(connect):
    def count():
        with connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT (SELECT count(*) FROM tokenkeeper.connections)")
            return cursor.fetchone()[0]

    return count


@pytest.fixture
def nothing_kept(stored, settings):
    """Neither in Postgres nor on the queue."""

    def check():
        with redis.Redis.from_url(settings["REDIS_URL"]) as client:
            assert not client.llen("tokenkeeper.interactive")
        assert stored() == 0
        return True

    return check


def test_an_install_is_queued_sealed_and_dated(visitor, settings):
    path = visitor.install(HUB)
    with redis.Redis.from_url(settings["REDIS_URL"]) as client:
        [envelope] = client.lrange("tokenkeeper.interactive", 0, -1)
    message = envelope + base64.b64decode(json.loads(envelope)["body"])
    assert path.rpartition("/")[2].encode() in message
    page = visitor.get(path)
    assert page.status_code == 200
    assert "Connecting account 62515" in page.text
    assert visitor.status(path) == {"state": "storing", "hub_id": HUB}
    opened = TokenCipher([settings["TOKEN_KEYS"]]).decrypt_install(visitor.cookie("tk_grant"))
    assert opened.hub_id == HUB
    for secret in (opened.refresh_token, settings["HUBSPOT_CLIENT_SECRET"]):
        assert secret not in page.text
        assert secret.encode() not in message


def test_denied(visitor, nothing_kept):
    answer = visitor.get(visitor.simulator.deny(visitor.press_connect()))
    assert answer.status_code == 403
    assert "did not allow" in answer.text
    assert nothing_kept()


def test_a_preselected_hub_shows_in_hubspots_address(visitor):
    address = visitor.press_connect(hub_id=HUB)
    assert f"/oauth/{HUB}/authorize" in address
    assert "scope=oauth%20crm.objects.contacts.read" in address


def test_a_state_of_another_browser(visitor, visitors, nothing_kept):
    back = visitor.allow(HUB)
    answer = visitors().get(back)
    assert answer.status_code == 403
    assert "another browser" in answer.text
    assert nothing_kept()


def test_a_changed_state(visitor, nothing_kept):
    back = visitor.allow(HUB)
    state = state_in(back)
    answer = visitor.get(back.replace(state, state[:-5] + "AAAAA"))
    assert answer.status_code == 400
    assert nothing_kept()


def test_a_missing_state_restarts_and_then_works(visitor, simulator):
    code = code_in(visitor.allow(HUB))
    answer = visitor.get(f"/oauth/callback?code={code}")
    assert answer.status_code == 302
    assert visitor.get(simulator.allow(answer.headers["Location"], HUB)).status_code == 303


def test_a_missing_code(visitor, nothing_kept):
    answer = visitor.get(f"/oauth/callback?state={state_in(visitor.press_connect())}")
    assert answer.status_code == 400
    assert nothing_kept()


def test_a_code_used_before(visitor, visitors):
    back = visitor.allow(HUB)
    assert visitor.get(back).status_code == 303
    another = visitors()
    state = state_in(another.press_connect())
    answer = another.get(f"/oauth/callback?code={code_in(back)}&state={state}")
    assert answer.status_code == 400
    assert "cannot be used again" in answer.text


def test_a_reload_asks_hubspot_once(visitor, simulator):
    back = visitor.allow(HUB)
    first, again = visitor.get(back), visitor.get(back)
    assert again.status_code == 303
    assert again.headers["Location"] == first.headers["Location"]
    assert simulator.get_stats()["by_hub"][str(HUB)]["exchanges"] == 1


def test_an_expired_code(visitor, simulator, nothing_kept):
    simulator.change_settings(code_lifetime=0.001)
    answer = visitor.get(visitor.allow(HUB))
    assert answer.status_code == 400
    assert "too old" in answer.text
    assert nothing_kept()


def test_an_app_set_up_wrongly(visitor, simulator, nothing_kept):
    simulator.change_settings(client_secrets=["another-secret"])
    answer = visitor.get(visitor.allow(HUB))
    assert answer.status_code == 502
    assert "not set up correctly" in answer.text
    assert DEMO_CLIENT_SECRET not in answer.text
    assert nothing_kept()


@pytest.mark.parametrize(
    ("fault", "options", "status"),
    [
        ("503", {}, 502),
        ("html_503", {}, 502),
        ("html_200", {}, 502),
        ("empty_200", {}, 502),
        ("truncated", {}, 502),
        ("huge", {}, 502),
        ("wrong_types", {}, 502),
        ("reset", {}, 502),
        ("429", {"retry_after": 9}, 503),
        ("unknown_refusal", {}, 502),
        ("slow", {"seconds": 5}, 504),
    ],
)
def test_hubspot_out_of_order(visitor, fault, options, status, nothing_kept):
    visitor.simulator.add_fault(fault, where="token", **options)
    back = visitor.allow(HUB)
    answer = visitor.get(back)
    assert answer.status_code == status
    assert 'href="/install"' in answer.text
    assert code_in(back) not in answer.text
    assert nothing_kept()


def test_two_tabs_connect_two_accounts(visitor):
    one, two = visitor.allow(1), visitor.allow(2)
    assert visitor.get(two).status_code == 303
    assert visitor.get(one).status_code == 303


def test_another_browser_does_not_see_the_page(visitor, visitors):
    path = visitor.install(HUB)
    stranger = visitors()
    assert stranger.get(path).status_code == 404
    assert stranger.get(f"{path}/status").status_code == 404
