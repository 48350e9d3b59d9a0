"""A state is good for fifteen minutes, for one browser, and only as we wrote it."""

from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import START
from web.oauth.install_cookie import InstallCookie, InstallCookieSigner
from web.oauth.state import (
    MAX_CLOCK_SKEW,
    STATE_LIFETIME,
    StateExpired,
    StateInvalid,
    StateOfAnotherBrowser,
    StateRejected,
    States,
)

STATES = States("a-secret-key-for-tests")


def test_a_fresh_state_is_good_for_its_browser():
    state = STATES.issue("browser", START)
    assert STATES.check(state, "browser", START)


def test_two_states_of_one_browser_are_two_handshakes():
    one, two = (STATES.check(STATES.issue("browser", START), "browser", START) for _ in range(2))
    assert one != two


def test_it_is_good_to_its_last_second_and_no_longer():
    state = STATES.issue("browser", START)
    assert STATES.check(state, "browser", START + STATE_LIFETIME)
    with pytest.raises(StateExpired):
        STATES.check(state, "browser", START + STATE_LIFETIME + timedelta(seconds=1))


def test_one_from_the_future_is_refused_beyond_what_clocks_differ():
    state = STATES.issue("browser", START)
    assert STATES.check(state, "browser", START - MAX_CLOCK_SKEW)
    with pytest.raises(StateExpired):
        STATES.check(state, "browser", START - MAX_CLOCK_SKEW - timedelta(seconds=1))


@pytest.mark.parametrize("browser", [None, "", "another"])
def test_another_browser_is_refused(browser):
    with pytest.raises(StateOfAnotherBrowser):
        STATES.check(STATES.issue("browser", START), browser, START)


def test_it_does_not_tell_what_the_browser_is_known_by():
    assert "browser-id" not in STATES.issue("browser-id", START)


def test_another_secret_key_signs_other_states():
    with pytest.raises(StateInvalid):
        States("another-secret-key").check(STATES.issue("browser", START), "browser", START)


def test_a_ticket_is_no_state_and_a_state_is_no_ticket():
    tickets = InstallCookieSigner("a-secret-key-for-tests")
    with pytest.raises(StateInvalid):
        STATES.check(tickets.sign(InstallCookie("id", 1, 0.0)), "browser", START)
    assert tickets.verify(STATES.issue("browser", START), "id") is None


def test_one_changed_letter_anywhere_is_noticed():
    state = STATES.issue("browser", START)
    for place in range(len(state) - 1):  # of the last letter, base64 leaves some bits unused
        changed = state[:place] + ("A" if state[place] != "A" else "B") + state[place + 1 :]
        with pytest.raises(StateInvalid):
            STATES.check(changed, "browser", START)


@given(st.text())
def test_whatever_comes_back_is_refused_without_a_stumble(text):
    with pytest.raises(StateRejected):
        STATES.check(text, "browser", START)


def test_the_same_handshake_and_code_are_the_same_install():
    assert STATES.install_id("handshake", "code") == STATES.install_id("handshake", "code")
    assert UUID(STATES.install_id("handshake", "code")).version == 4


def test_another_code_or_handshake_or_key_is_another_install():
    ids = {
        STATES.install_id("handshake", "code"),
        STATES.install_id("handshake", "code2"),
        STATES.install_id("handshake2", "code"),
        States("another-secret-key").install_id("handshake", "code"),
    }
    assert len(ids) == 4
