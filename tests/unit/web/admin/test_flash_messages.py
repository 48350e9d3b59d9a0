"""The result of an action is shown by a code in the address; only known codes show a text."""

import pytest

from shared.db.refresh.requests import RefreshRequestOutcome
from web.admin.flash_messages import TEXTS, FlashMessage, find_text


def test_every_message_has_a_text():
    assert set(TEXTS) == set(FlashMessage)


@pytest.mark.parametrize(
    "outcome", [each for each in RefreshRequestOutcome if each is not RefreshRequestOutcome.UNKNOWN]
)
def test_every_outcome_of_refresh_now_has_a_message(outcome):
    assert find_text(outcome.value)


@pytest.mark.parametrize("code", [None, "", "x", "<b>", "unknown"])
def test_an_unknown_code_shows_nothing(code):
    assert find_text(code) == ""
