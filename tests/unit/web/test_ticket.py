"""A ticket opens one install's page and remembers how its grant was handed in."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import START
from web.oauth.install_cookie import (
    LOST_AFTER_SECONDS,
    RESUBMIT_QUEUED_SECONDS,
    RESUBMIT_SECONDS,
    InstallCookie,
    InstallCookieSigner,
)

TICKETS = InstallCookieSigner("a-secret-key-for-tests")
FRESH = InstallCookie("the-install", 62515, START.timestamp())


def after(seconds):
    return START + timedelta(seconds=seconds)


def test_a_ticket_comes_back_as_it_went():
    assert TICKETS.verify(TICKETS.sign(FRESH), "the-install") == FRESH


def test_a_ticket_opens_no_other_install():
    assert TICKETS.verify(TICKETS.sign(FRESH), "another") is None


@given(st.text())
def test_whatever_a_browser_sends_instead_is_none(text):
    assert TICKETS.verify(text, "the-install") is None


def test_a_grant_nobody_took_is_handed_in_at_once():
    assert FRESH.should_resubmit(START, postgres_answers=False)


def test_one_that_was_taken_is_given_a_moment():
    taken = FRESH.mark_submitted(START, is_accepted=True)
    assert not taken.should_resubmit(after(RESUBMIT_SECONDS - 0.1), postgres_answers=True)
    assert taken.should_resubmit(after(RESUBMIT_SECONDS), postgres_answers=True)


def test_while_postgres_is_down_the_queue_is_not_filled_with_copies():
    taken = FRESH.mark_submitted(START, is_accepted=True)
    assert not taken.should_resubmit(after(RESUBMIT_QUEUED_SECONDS - 1), postgres_answers=False)
    assert taken.should_resubmit(after(RESUBMIT_QUEUED_SECONDS), postgres_answers=False)


def test_one_that_was_refused_is_tried_again_soon_but_not_at_every_look():
    refused = FRESH.mark_submitted(START, is_accepted=False)
    assert not refused.should_resubmit(after(RESUBMIT_SECONDS - 0.1), postgres_answers=False)
    assert refused.should_resubmit(after(RESUBMIT_SECONDS), postgres_answers=False)


def test_nothing_is_lost_before_some_minutes_have_passed():
    assert not FRESH.is_lost(after(LOST_AFTER_SECONDS))
    assert FRESH.is_lost(after(LOST_AFTER_SECONDS + 1))
