"""One refresh: what each answer of HubSpot makes of the connection."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from cryptography.fernet import Fernet

from shared.db.core.clock import DatabaseClock
from shared.domain.connection import Status
from shared.domain.errors import InvalidClient, InvalidGrant, NoAccessToken, TemporarilyUnavailable, Throttled
from shared.domain.grant import Grant, Introspection
from shared.domain.identity import ConnectionIdentity
from shared.token_cipher import TokenCipher
from tests.support.builders import HUB, REFRESH_TOKEN, START, grant
from tests.support.hubspot import ScriptedHubSpot
from tests.support.refresh_attempts import (
    CALL_TIMEOUT_SECONDS,
    CIPHER,
    make_claimed_row,
    refresh_row,
)

DEAD = InvalidGrant("BAD_REFRESH_TOKEN", http_status=400)


def test_a_grant_is_kept_and_the_connection_is_active():
    attempt = refresh_row(ScriptedHubSpot(), make_claimed_row())
    assert attempt.result.transition.grant.access_token == grant().access_token
    assert attempt.result.transition.connection.status is Status.ACTIVE
    assert [outcome.error for outcome in attempt.outcomes] == [None]


def test_a_refresh_token_that_did_not_change_is_not_encrypted_again():
    assert refresh_row(ScriptedHubSpot(), make_claimed_row()).result.encrypted_refresh_token is None
    without_refresh_token = ScriptedHubSpot(grant(refresh_token=None))
    assert refresh_row(without_refresh_token, make_claimed_row()).result.encrypted_refresh_token is None


def test_a_new_refresh_token_is_encrypted_for_its_hub():
    attempt = refresh_row(ScriptedHubSpot(grant(refresh_token="rotated")), make_claimed_row())
    assert CIPHER.decrypt_refresh_token(HUB, attempt.result.encrypted_refresh_token) == "rotated"


def test_a_new_refresh_token_is_kept_where_no_usable_access_token_came_with_it():
    error = NoAccessToken("no_grant", refresh_token="rotated", hub_id=HUB, http_status=200)
    attempt = refresh_row(ScriptedHubSpot(error), make_claimed_row())
    assert CIPHER.decrypt_refresh_token(HUB, attempt.result.encrypted_refresh_token) == "rotated"
    after = attempt.result.transition.connection
    assert (after.status, after.failures, after.last_error) == (Status.ACTIVE, 1, "no_grant (HTTP 200)")
    assert after.due_at > START
    assert attempt.outcomes[0].error is error, "it is HubSpot's fault, and counts against HubSpot"


def test_without_a_usable_access_token_only_a_new_refresh_token_of_this_account_is_kept():
    for token, hub_id, code in ((REFRESH_TOKEN, HUB, "no_grant"), ("rotated", HUB + 1, "another_hub")):
        error = NoAccessToken("no_grant", refresh_token=token, hub_id=hub_id, http_status=200)
        attempt = refresh_row(ScriptedHubSpot(error), make_claimed_row())
        assert attempt.result.encrypted_refresh_token is None
        assert attempt.outcomes[0].error.code == code


def test_a_row_whose_lease_ends_within_a_call_is_released_without_a_call():
    hubspot = ScriptedHubSpot()
    attempt = refresh_row(hubspot, make_claimed_row(lease_seconds=CALL_TIMEOUT_SECONDS))
    assert (attempt.result, attempt.outcomes, hubspot.calls) == (None, (), [])


def test_introspection_is_asked_before_a_connection_is_revoked():
    hubspot = ScriptedHubSpot(DEAD)
    attempt = refresh_row(hubspot, make_claimed_row())
    assert hubspot.calls == ["refresh", "introspect"]
    assert hubspot.introspected == [("refresh_token", REFRESH_TOKEN)]
    assert attempt.result.transition.connection.status is Status.REVOKED


def test_a_connection_stays_active_where_introspection_calls_its_token_active():
    attempt = refresh_row(ScriptedHubSpot(DEAD, Introspection(active=True)), make_claimed_row())
    assert attempt.result.transition.connection.status is Status.ACTIVE


@pytest.mark.parametrize("error", [TemporarilyUnavailable("timeout"), InvalidClient("BAD_CLIENT_ID"), Throttled("429")])
def test_a_connection_becomes_suspect_where_introspection_does_not_answer(error):
    attempt = refresh_row(ScriptedHubSpot(DEAD, error), make_claimed_row())
    assert attempt.result.transition.connection.status is Status.SUSPECT
    assert [outcome.error for outcome in attempt.outcomes] == [DEAD, error]


@dataclass
class SlowHubSpot(ScriptedHubSpot):
    """When it has answered a refresh, the lease would not outlast another call."""

    clock: DatabaseClock = field(default_factory=DatabaseClock)

    def refresh(self, refresh_token: str, granted_at: datetime) -> Grant:
        self.clock.set(START + timedelta(seconds=45))
        return super().refresh(refresh_token, granted_at)


def test_introspection_waits_for_the_next_attempt_where_the_lease_would_not_outlast_it():
    hubspot = SlowHubSpot(DEAD)
    hubspot.clock.set(START)
    attempt = refresh_row(hubspot, make_claimed_row(), hubspot.clock)
    assert hubspot.calls == ["refresh"]
    assert attempt.result.transition.connection.status is Status.SUSPECT


def test_a_wrong_client_secret_of_our_app_revokes_no_connection():
    hubspot = ScriptedHubSpot(InvalidClient("BAD_CLIENT_SECRET"))
    attempt = refresh_row(hubspot, make_claimed_row())
    assert hubspot.calls == ["refresh"]
    assert attempt.result.transition.connection.status is Status.ACTIVE


def test_a_grant_of_another_account_is_not_stored():
    hubspot = ScriptedHubSpot(grant(hub_id=HUB + 1))
    attempt = refresh_row(hubspot, make_claimed_row())
    assert hubspot.calls == ["refresh"]  # introspection could not change what follows
    assert attempt.result.transition.grant is None
    assert attempt.result.transition.connection.status is Status.SUSPECT
    assert "another_hub" in attempt.result.transition.connection.status_reason


@pytest.mark.parametrize(
    ("user_id", "named", "is_stored"), [(7, 7, True), (7, None, True), (7, 8, False), (None, 8, True)]
)
def test_a_grant_of_another_user_of_a_user_level_app_is_not_stored(user_id, named, is_stored):
    row = make_claimed_row(identity=ConnectionIdentity("seats", HUB, user_id))
    attempt = refresh_row(ScriptedHubSpot(grant(user_id=named)), row)
    assert (attempt.result.transition.grant is not None) is is_stored
    assert is_stored or "another_user" in attempt.result.transition.connection.status_reason


def test_a_grant_without_a_hub_id_is_stored():
    attempt = refresh_row(ScriptedHubSpot(grant(hub_id=None)), make_claimed_row())
    assert attempt.result.transition.grant is not None


def test_a_refresh_token_that_cannot_be_decrypted_is_not_sent_and_the_connection_stays_active():
    hubspot = ScriptedHubSpot()
    other_key = TokenCipher([Fernet.generate_key().decode()])
    encrypted = other_key.encrypt_refresh_token(HUB, REFRESH_TOKEN)
    attempt = refresh_row(hubspot, make_claimed_row(encrypted_refresh_token=encrypted))
    assert hubspot.calls == []
    assert attempt.result.transition.connection.status is Status.ACTIVE
    assert attempt.result.transition.connection.last_error == "decryption_failed"


@pytest.mark.parametrize(("failures", "is_first"), [(0, True), (1, False)])
def test_only_the_first_attempt_of_a_streak_counts_for_hubspots_state(failures, is_first):
    attempt = refresh_row(ScriptedHubSpot(TemporarilyUnavailable("timeout")), make_claimed_row(failures=failures))
    assert [outcome.is_first_attempt for outcome in attempt.outcomes] == [is_first]


def test_a_refusal_like_the_last_one_is_marked_as_repeated():
    hubspot = ScriptedHubSpot(InvalidClient("BAD_CLIENT_ID"))
    assert refresh_row(hubspot, make_claimed_row(last_error="BAD_CLIENT_ID")).outcomes[0].is_repeat
    assert not refresh_row(hubspot, make_claimed_row()).outcomes[0].is_repeat


def test_the_repr_of_an_attempt_shows_no_token():
    text = repr(refresh_row(ScriptedHubSpot(grant(refresh_token="rotated")), make_claimed_row()))
    assert not any(secret in text for secret in (REFRESH_TOKEN, "rotated", grant().access_token))
