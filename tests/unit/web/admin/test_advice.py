"""For every state of a connection there is something to do, or the statement that nothing is."""

import pytest

from shared.domain.brake import HELD_REASON
from shared.domain.connection import Status
from shared.domain.provider import Condition, Provider
from tests.support.builders import START
from tests.unit.web.admin.report_builders import make_connection_row
from web.admin.advice import STATUS_DESCRIPTIONS, advise


def advise_on(condition=Condition.OK, **changes):
    return advise(make_connection_row(**changes), Provider(condition, START))


@pytest.mark.parametrize("status", [Status.REVOKED, Status.DISCONNECTED])
def test_an_ended_connection_shows_the_install_link_for_the_customer(status):
    assert advise_on(status=status).shows_install_link
    assert "customer" in advise_on(status=status).text


def test_a_revoked_connection_has_the_same_advice_while_hubspot_is_down():
    assert advise_on(Condition.UNAVAILABLE, status=Status.REVOKED) == advise_on(status=Status.REVOKED)


@pytest.mark.parametrize("error", ["BAD_CLIENT_SECRET (HTTP 400)", "invalid_client (HTTP 401)", "no_client_secret"])
def test_a_refusal_of_the_app_names_its_settings(error):
    assert "HUBSPOT_CLIENT_SECRET" in advise_on(last_error=error, failures=1).text
    assert "HUBSPOT_CLIENT_SECRET" in advise_on(Condition.APP_REJECTED).text


def test_a_suspect_connection_needs_nothing_yet():
    advice = advise_on(status=Status.SUSPECT, last_error="BAD_REFRESH_TOKEN (HTTP 400)", failures=1)
    assert advice.title == "Nothing yet"
    assert not advice.shows_install_link


def test_a_connection_held_by_the_brake_is_decided_on_the_overview():
    advice = advise_on(status=Status.SUSPECT, status_reason=HELD_REASON, last_error="BAD_HUB (HTTP 400)")
    assert "overview" in advice.title


def test_a_refresh_token_of_another_account_asks_for_a_correct_import():
    advice = advise_on(status=Status.SUSPECT, last_error="another_hub (HTTP 200)", failures=2)
    assert advice.title == "Correct the import"


def test_rejected_scopes_of_one_account_ask_for_a_new_consent_and_not_for_other_settings():
    advice = advise_on(last_error="BAD_SCOPES (HTTP 403)", failures=2)
    assert (advice.title, advice.shows_install_link) == ("Ask the customer to install the app again", True)


def test_a_missing_encryption_key_names_its_setting():
    assert "TOKEN_KEYS" in advise_on(last_error="decryption_failed", failures=9).text


def test_an_unknown_refusal_asks_for_hubspots_support_after_five_failures():
    assert "HubSpot" not in advise_on(last_error="NEW_WORD (HTTP 400)", failures=1).title
    assert "correlation id" in advise_on(last_error="NEW_WORD (HTTP 400)", failures=5).text


@pytest.mark.parametrize("condition", [Condition.UNAVAILABLE, Condition.THROTTLED])
def test_an_unavailable_hubspot_needs_nothing(condition):
    assert advise_on(condition, failures=3, last_error="timeout").title == "Nothing"


def test_what_happens_without_the_operator_is_described():
    assert "automatically" in advise_on(failures=1, last_error="timeout").text
    assert "how long the move takes" in advise_on(failures=1, last_error="account_migrating (HTTP 477)").text
    assert "first token" in advise_on(expires_at=None).text
    assert "well before" in advise_on().text


def test_every_status_has_a_description():
    assert set(STATUS_DESCRIPTIONS) == set(Status)
