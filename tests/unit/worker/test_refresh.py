"""One refresh: what HubSpot answers, and what becomes of the connection."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from cryptography.fernet import Fernet

from shared.db.core.clock import DatabaseClock
from shared.db.refresh.claims import ClaimedConnection, Lease
from shared.domain.connection import Connection, Status
from shared.domain.errors import InvalidClient, InvalidGrant, ProviderError, TemporarilyUnavailable, Throttled
from shared.domain.grant import Grant, Introspection
from shared.domain.schedule import Schedule
from shared.token_cipher import TokenCipher
from tests.support.builders import HUB, REFRESH_TOKEN, START, grant
from worker.refresh import Refresher

CIPHER = TokenCipher([Fernet.generate_key().decode()])
DEAD = InvalidGrant("BAD_REFRESH_TOKEN", http_status=400)
CALL = 20.0


@dataclass
class ScriptedHubSpot:
    """Answers a refresh and an introspection as it is told."""

    refreshing: Grant | ProviderError = field(default_factory=grant)
    witness: Introspection | ProviderError = field(default_factory=lambda: Introspection(active=False))
    asked: list[str] = field(default_factory=list)

    def refresh(self, refresh_token: str, clock: Callable[[], datetime]) -> Grant:
        assert refresh_token == REFRESH_TOKEN
        clock()
        self.asked.append("refresh")
        if isinstance(self.refreshing, ProviderError):
            raise self.refreshing
        return self.refreshing

    def introspect(self, token: str, kind: str) -> Introspection:
        assert (token, kind) == (REFRESH_TOKEN, "refresh_token")
        self.asked.append("introspect")
        if isinstance(self.witness, ProviderError):
            raise self.witness
        return self.witness


def claimed(*, lease_seconds: float = 60.0, sealed: str | None = None, **but: object) -> ClaimedConnection:
    connection = Connection(**{"hub_id": HUB, "status": Status.ACTIVE, "life": 1800.0, **but})  # type: ignore[arg-type]
    lease = Lease(
        HUB, number=3, generation=1, until=START + timedelta(seconds=lease_seconds), claimed_status=Status.ACTIVE
    )
    return ClaimedConnection(connection, lease, sealed or CIPHER.encrypt_refresh_token(HUB, REFRESH_TOKEN))


def attempt(hubspot: ScriptedHubSpot, row: ClaimedConnection):
    clock = DatabaseClock()
    clock.set(START)
    return Refresher(hubspot, CIPHER, clock, Schedule(), CALL).attempt(row)  # type: ignore[arg-type]


def test_a_grant_becomes_the_connections_next_step():
    made = attempt(ScriptedHubSpot(), claimed())
    assert made.result.transition.grant.access_token == grant().access_token
    assert made.result.transition.connection.status is Status.ACTIVE
    assert [outcome.error for outcome in made.outcomes] == [None]


def test_the_same_refresh_token_is_not_sealed_again():
    assert attempt(ScriptedHubSpot(), claimed()).result.encrypted_refresh_token is None
    silent = ScriptedHubSpot(grant(refresh_token=None))
    assert attempt(silent, claimed()).result.encrypted_refresh_token is None


def test_a_new_refresh_token_is_sealed_for_its_hub():
    sealed = attempt(ScriptedHubSpot(grant(refresh_token="rotated")), claimed()).result.encrypted_refresh_token
    assert CIPHER.decrypt_refresh_token(HUB, sealed) == "rotated"


def test_a_row_whose_lease_would_not_outlast_a_call_is_handed_back_uncalled():
    hubspot = ScriptedHubSpot()
    made = attempt(hubspot, claimed(lease_seconds=CALL))
    assert (made.result, made.outcomes, hubspot.asked) == (None, (), [])


def test_a_second_witness_is_asked_before_a_connection_counts_as_revoked():
    hubspot = ScriptedHubSpot(DEAD)
    made = attempt(hubspot, claimed())
    assert hubspot.asked == ["refresh", "introspect"]
    assert made.result.transition.connection.status is Status.REVOKED


def test_a_witness_that_sees_life_keeps_it_active():
    made = attempt(ScriptedHubSpot(DEAD, Introspection(active=True)), claimed())
    assert made.result.transition.connection.status is Status.ACTIVE


@pytest.mark.parametrize(
    "trouble", [TemporarilyUnavailable("timeout"), InvalidClient("BAD_CLIENT_ID"), Throttled("429")]
)
def test_a_witness_that_does_not_answer_leaves_it_suspect(trouble):
    made = attempt(ScriptedHubSpot(DEAD, trouble), claimed())
    assert made.result.transition.connection.status is Status.SUSPECT
    assert [outcome.error for outcome in made.outcomes] == [DEAD, trouble]


@dataclass
class SlowDeath(ScriptedHubSpot):
    """By the time it has answered, the lease would not outlast another call."""

    clock: DatabaseClock = field(default_factory=DatabaseClock)

    def refresh(self, refresh_token: str, clock: Callable[[], datetime]) -> Grant:
        self.clock.set(START + timedelta(seconds=45))
        return super().refresh(refresh_token, clock)


def test_the_second_witness_is_left_for_later_where_the_lease_would_not_outlast_it():
    hubspot = SlowDeath(DEAD)
    hubspot.clock.set(START)
    made = Refresher(hubspot, CIPHER, hubspot.clock, Schedule(), CALL).attempt(claimed())  # type: ignore[arg-type]
    assert hubspot.asked == ["refresh"]
    assert made.result.transition.connection.status is Status.SUSPECT


def test_our_own_bad_secret_revokes_nobody():
    hubspot = ScriptedHubSpot(InvalidClient("BAD_CLIENT_SECRET"))
    made = attempt(hubspot, claimed())
    assert hubspot.asked == ["refresh"]
    assert made.result.transition.connection.status is Status.ACTIVE


def test_a_grant_of_another_account_is_not_stored():
    made = attempt(ScriptedHubSpot(grant(hub_id=HUB + 1)), claimed())
    assert made.result.transition.grant is None
    assert made.result.transition.connection.status is Status.SUSPECT
    assert "another_hub" in made.result.transition.connection.status_reason


def test_a_reply_without_a_hub_is_taken_at_its_word():
    assert attempt(ScriptedHubSpot(grant(hub_id=None)), claimed()).result.transition.grant is not None


def test_what_does_not_open_is_not_called_and_costs_nothing():
    hubspot = ScriptedHubSpot()
    foreign = TokenCipher([Fernet.generate_key().decode()]).encrypt_refresh_token(HUB, REFRESH_TOKEN)
    made = attempt(hubspot, claimed(sealed=foreign))
    assert hubspot.asked == []
    assert made.result.transition.connection.status is Status.ACTIVE
    assert made.result.transition.connection.last_error == "sealed_with_unknown_key"


@pytest.mark.parametrize(("failures", "first"), [(0, True), (1, False)])
def test_only_the_first_attempt_of_a_streak_speaks_of_hubspots_health(failures, first):
    made = attempt(ScriptedHubSpot(TemporarilyUnavailable("timeout")), claimed(failures=failures))
    assert [outcome.is_first_attempt for outcome in made.outcomes] == [first]


def test_the_same_refusal_again_is_marked_as_old_news():
    again = claimed(last_error="BAD_CLIENT_ID")
    assert attempt(ScriptedHubSpot(InvalidClient("BAD_CLIENT_ID")), again).outcomes[0].is_repeat
    assert not attempt(ScriptedHubSpot(InvalidClient("BAD_CLIENT_ID")), claimed()).outcomes[0].is_repeat


def test_nothing_of_an_attempt_shows_a_secret():
    text = repr(attempt(ScriptedHubSpot(grant(refresh_token="rotated")), claimed()))
    assert not any(secret in text for secret in (REFRESH_TOKEN, "rotated", grant().access_token))
