"""A ticket opens one install's page and remembers how its grant was handed in."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import START
from web.oauth.install_cookie import LATER, LOST, SOON, InstallCookie, InstallCookies

TICKETS = InstallCookies("a-secret-key-for-tests")
FRESH = InstallCookie("the-install", 62515, START.timestamp())


def after(seconds):
    return START + timedelta(seconds=seconds)


def test_a_ticket_comes_back_as_it_went():
    assert TICKETS.read(TICKETS.sign(FRESH), "the-install") == FRESH


def test_a_ticket_opens_no_other_install():
    assert TICKETS.read(TICKETS.sign(FRESH), "another") is None


@given(st.text())
def test_whatever_a_browser_sends_instead_is_none(text):
    assert TICKETS.read(text, "the-install") is None


def test_a_grant_nobody_took_is_handed_in_at_once():
    assert FRESH.hand_in_again(START, postgres_answers=False)


def test_one_that_was_taken_is_given_a_moment():
    taken = FRESH.handed_in(START, kept=True)
    assert not taken.hand_in_again(after(SOON - 0.1), postgres_answers=True)
    assert taken.hand_in_again(after(SOON), postgres_answers=True)


def test_while_postgres_is_down_the_queue_is_not_filled_with_copies():
    taken = FRESH.handed_in(START, kept=True)
    assert not taken.hand_in_again(after(LATER - 1), postgres_answers=False)
    assert taken.hand_in_again(after(LATER), postgres_answers=False)


def test_one_that_was_refused_is_tried_again_soon_but_not_at_every_look():
    refused = FRESH.handed_in(START, kept=False)
    assert not refused.hand_in_again(after(SOON - 0.1), postgres_answers=False)
    assert refused.hand_in_again(after(SOON), postgres_answers=False)


def test_nothing_is_lost_before_some_minutes_have_passed():
    assert not FRESH.lost(after(LOST))
    assert FRESH.lost(after(LOST + 1))
