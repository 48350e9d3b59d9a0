"""A state is valid for fifteen minutes, for one browser, and unchanged."""

from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import START
from web.oauth.install_cookie import InstallCookie, InstallCookieSigner
from web.oauth.state import (
    STATE_LIFETIME,
    StateExpired,
    StateInvalid,
    StateOfAnotherBrowser,
    StateRejected,
    States,
)
from web.security.signing import MAX_CLOCK_SKEW

STATES = States("a-secret-key-for-tests")


def test_a_new_state_is_valid_for_its_browser():
    state = STATES.issue("browser", START)
    assert STATES.check(state, "browser", START)


def test_two_states_of_one_browser_are_two_handshakes():
    one, two = (STATES.check(STATES.issue("browser", START), "browser", START) for _ in range(2))
    assert one != two


def test_a_state_is_valid_to_its_last_second_and_no_longer():
    state = STATES.issue("browser", START)
    assert STATES.check(state, "browser", START + STATE_LIFETIME)
    with pytest.raises(StateExpired):
        STATES.check(state, "browser", START + STATE_LIFETIME + timedelta(seconds=1))


def test_a_state_from_the_future_is_refused_beyond_the_clock_skew():
    state = STATES.issue("browser", START)
    assert STATES.check(state, "browser", START - MAX_CLOCK_SKEW)
    with pytest.raises(StateExpired):
        STATES.check(state, "browser", START - MAX_CLOCK_SKEW - timedelta(seconds=1))


@pytest.mark.parametrize("browser", [None, "", "another"])
def test_a_state_is_refused_from_another_browser(browser):
    with pytest.raises(StateOfAnotherBrowser):
        STATES.check(STATES.issue("browser", START), browser, START)


def test_a_state_says_for_which_app_it_was_issued():
    assert STATES.check(STATES.issue("browser", START, "users"), "browser", START).app == "users"
    assert STATES.check(STATES.issue("browser", START), "browser", START).app == "default"


def test_a_state_of_the_app_default_is_one_that_the_version_before_could_read():
    """Of the states on their way at an upgrade, in both directions."""
    assert set(STATES._serializer.loads(STATES.issue("browser", START))) == {"n", "b", "t"}


def test_a_state_does_not_contain_the_browser_id():
    assert "browser-id" not in STATES.issue("browser-id", START)


def test_a_state_signed_with_another_key_is_refused():
    with pytest.raises(StateInvalid):
        States("another-secret-key").check(STATES.issue("browser", START), "browser", START)


def test_an_install_cookie_is_no_state_and_a_state_is_no_install_cookie():
    signer = InstallCookieSigner("a-secret-key-for-tests")
    with pytest.raises(StateInvalid):
        STATES.check(signer.sign(InstallCookie("id", 1, 0.0)), "browser", START)
    assert signer.verify(STATES.issue("browser", START), "id") is None


def test_a_state_with_one_changed_character_is_refused():
    state = STATES.issue("browser", START)
    for position in range(len(state) - 1):  # of the last character, base64 leaves some bits unused
        changed = state[:position] + ("A" if state[position] != "A" else "B") + state[position + 1 :]
        with pytest.raises(StateInvalid):
            STATES.check(changed, "browser", START)


@given(st.text())
def test_any_other_text_is_refused_as_a_state(text):
    with pytest.raises(StateRejected):
        STATES.check(text, "browser", START)


def test_the_same_handshake_and_code_give_the_same_install_id():
    assert STATES.install_id("handshake", "code") == STATES.install_id("handshake", "code")
    assert UUID(STATES.install_id("handshake", "code")).version == 4


def test_another_code_handshake_or_key_gives_another_install_id():
    ids = {
        STATES.install_id("handshake", "code"),
        STATES.install_id("handshake", "code2"),
        STATES.install_id("handshake2", "code"),
        States("another-secret-key").install_id("handshake", "code"),
    }
    assert len(ids) == 4
