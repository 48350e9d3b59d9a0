"""For each way in which a connection can stand there is one thing to do, or the promise that nothing is."""

import pytest

from shared.domain import brake
from shared.domain.connection import Status
from shared.domain.provider import Condition, Provider
from shared.hubspot.response_parsing import BY_STATUS, ERROR_CLASSIFICATION
from tests.support.builders import START
from tests.unit.web.seen import connection
from web.admin import error_descriptions
from web.admin.advice import PROVIDER, STATUS, advice

WELL = Provider(since=START)
HUBSPOTS = [word for word, error in ERROR_CLASSIFICATION.items() if error.__name__ != "CodeRejected"]


def of(condition=None, **but):
    return advice(connection(**but), WELL if condition is None else Provider(condition, START))


@pytest.mark.parametrize("status", [Status.REVOKED, Status.DISCONNECTED])
def test_one_that_has_ended_comes_back_by_the_customers_link(status):
    assert of(status=status).link
    assert "customer" in of(status=status).text


def test_a_revoked_one_needs_its_customer_even_while_hubspot_is_down():
    assert of(Condition.UNAVAILABLE, status=Status.REVOKED) == of(status=Status.REVOKED)


@pytest.mark.parametrize("code", ["BAD_CLIENT_SECRET (HTTP 400)", "invalid_client (HTTP 401)", "no_client_secret"])
def test_a_refusal_of_our_app_leads_to_its_settings(code):
    assert "HUBSPOT_CLIENT_SECRET" in of(last_error=code, failures=1).text
    assert "HUBSPOT_CLIENT_SECRET" in of(Condition.APP_REJECTED).text


def test_a_suspect_one_needs_nothing_yet():
    said = of(status=Status.SUSPECT, last_error="BAD_REFRESH_TOKEN (HTTP 400)", failures=1)
    assert said.title == "Nothing yet"
    assert not said.link


def test_one_that_the_brake_holds_is_decided_with_the_others():
    assert (
        "overview" in of(status=Status.SUSPECT, status_reason=brake.HELD_REASON, last_error="BAD_HUB (HTTP 400)").title
    )


def test_a_wrong_line_of_an_import_is_named():
    assert of(status=Status.SUSPECT, last_error="another_hub (HTTP 200)", failures=2).title == "Correct the import"


def test_a_missing_key_is_to_be_put_back():
    assert "TOKEN_KEYS" in of(last_error="sealed_with_unknown_key", failures=9).text


def test_an_unknown_refusal_is_worth_a_question_only_once_it_is_stubborn():
    assert "HubSpot" not in of(last_error="NEW_WORD (HTTP 400)", failures=1).title
    assert "correlation id" in of(last_error="NEW_WORD (HTTP 400)", failures=5).text


@pytest.mark.parametrize("condition", [Condition.UNAVAILABLE, Condition.THROTTLED])
def test_while_hubspot_is_unwell_there_is_nothing_to_do(condition):
    assert of(condition, failures=3, last_error="timeout").title == "Nothing"


def test_what_goes_on_by_itself_is_said_to():
    assert "by itself" in of(failures=1, last_error="timeout").text
    assert "how long the move takes" in of(failures=1, last_error="portal_moving (HTTP 477)").text
    assert "first token" in of(expires_at=None).text
    assert "well before" in of().text


def test_every_state_has_words():
    assert set(STATUS) == set(Status)
    assert set(PROVIDER) == set(Condition)


@pytest.mark.parametrize("code", [*HUBSPOTS, *(word for _, word in BY_STATUS.values())])
def test_every_word_that_hubspot_is_known_to_say_is_explained(code):
    assert error_descriptions.in_words(code) != error_descriptions.MEANING["unrecognised"]
    assert error_descriptions.in_words(f"{code} (HTTP 400)") == error_descriptions.in_words(code)


@pytest.mark.parametrize("error", ["", "NEW", "two words", "x" * 5000, "\x00", "BAD_HUB (HTTP 4000)"])
def test_whatever_else_is_there_is_a_refusal_that_we_do_not_know(error):
    assert error_descriptions.in_words(error) == "HubSpot refused, in words that we do not know"
