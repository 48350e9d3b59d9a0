"""The cookie of an install opens its page only, and says when the grant is submitted again."""

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

SIGNER = InstallCookieSigner("a-secret-key-for-tests")
NEW = InstallCookie("the-install", 62515, START.timestamp())


def after(seconds):
    return START + timedelta(seconds=seconds)


def test_a_signed_cookie_is_verified_to_the_same_values():
    assert SIGNER.verify(SIGNER.sign(NEW), "the-install") == NEW


def test_a_cookie_is_not_valid_for_another_install():
    assert SIGNER.verify(SIGNER.sign(NEW), "another") is None


@given(st.text())
def test_any_other_text_is_no_cookie(text):
    assert SIGNER.verify(text, "the-install") is None


def test_a_grant_that_was_never_accepted_is_submitted_at_once():
    assert NEW.should_resubmit(START, postgres_answers=False)


def test_an_accepted_grant_is_submitted_again_after_three_seconds():
    accepted = NEW.mark_submitted(START, is_accepted=True)
    assert not accepted.should_resubmit(after(RESUBMIT_SECONDS - 0.1), postgres_answers=True)
    assert accepted.should_resubmit(after(RESUBMIT_SECONDS), postgres_answers=True)


def test_while_postgres_is_down_a_queued_grant_is_submitted_again_after_thirty_seconds():
    accepted = NEW.mark_submitted(START, is_accepted=True)
    assert not accepted.should_resubmit(after(RESUBMIT_QUEUED_SECONDS - 1), postgres_answers=False)
    assert accepted.should_resubmit(after(RESUBMIT_QUEUED_SECONDS), postgres_answers=False)


def test_a_refused_grant_is_submitted_again_after_three_seconds():
    refused = NEW.mark_submitted(START, is_accepted=False)
    assert not refused.should_resubmit(after(RESUBMIT_SECONDS - 0.1), postgres_answers=False)
    assert refused.should_resubmit(after(RESUBMIT_SECONDS), postgres_answers=False)


def test_a_grant_counts_as_lost_after_five_minutes():
    assert not NEW.is_lost(after(LOST_AFTER_SECONDS))
    assert NEW.is_lost(after(LOST_AFTER_SECONDS + 1))
