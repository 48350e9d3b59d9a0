"""The worker asks HubSpot for the domain and the installer of new connections, at HubSpot's pace."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from shared.domain.account import AccountDetails
from shared.domain.errors import (
    AccountMigrating,
    InvalidClient,
    ProviderError,
    TemporarilyUnavailable,
    Throttled,
    UnknownRefusal,
)
from shared.domain.grant import Introspection
from shared.domain.provider import FAILURES_BEFORE_OUTAGE, PROBES_PER_SECOND, CallOutcome, Condition
from tests.support.hubspot import ScriptedHubSpot
from tests.support.stores import ConnectionFixture, SqlFixture, Stores
from worker.account_info import API_PAUSE_SECONDS, CALLS_IN_FLIGHT, ROUNDS, AccountInfoFetcher

ANSWER = Introspection(active=True, hub_domain="acme.example", user="ada@acme.example")
THROTTLED = Throttled("throttled", http_status=429, retry_after=60)
TIMEOUT = TemporarilyUnavailable("timeout")
REJECTED = InvalidClient("BAD_CLIENT_SECRET", http_status=400)


@dataclass
class Monotonic:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class AccountInfoFixture:
    connections: ConnectionFixture
    hubspot: ScriptedHubSpot
    fetcher: AccountInfoFetcher
    sql: SqlFixture
    clock: Monotonic

    def import_with_tokens(self, count: int) -> None:
        self.connections.import_due(count)
        self.sql.set("access_token = 'access-of-' || hub_id, expires_at = now() + interval '1 hour', due_at = NULL")

    def run(self, answer: Introspection | ProviderError | None = None) -> Condition:
        """HubSpot's state after it."""
        if answer is not None:
            self.hubspot.introspect_answer = answer
        self.fetcher.run()
        return self.connections.stores.provider.read().condition

    def make_due(self) -> None:
        self.sql.rows("UPDATE tokenkeeper.connections SET account_info_due_at = now() WHERE access_token IS NOT NULL")

    def set_provider(self, assignments: str) -> None:
        self.sql.rows(f"UPDATE tokenkeeper.provider SET {assignments}")

    @property
    def asked(self) -> list[str]:
        """The access tokens, in the order of the calls."""
        return [token for _, token in self.hubspot.introspected]


def make_fetcher(stores: Stores, hubspot: Any, clock: Monotonic) -> AccountInfoFetcher:
    """`hubspot`: the double."""
    return AccountInfoFetcher(stores.account_info, stores.provider, hubspot, clock)


@pytest.fixture
def info(connections: ConnectionFixture, sql: SqlFixture) -> AccountInfoFixture:
    hubspot, clock = ScriptedHubSpot(introspect_answer=ANSWER), Monotonic()
    return AccountInfoFixture(connections, hubspot, make_fetcher(connections.stores, hubspot, clock), sql, clock)


def test_the_domain_and_the_installer_of_an_account_are_stored(info: AccountInfoFixture) -> None:
    info.connections.install(7)
    info.run()
    stored = info.sql.rows("SELECT hub_domain, installed_by FROM hubspot.connections")
    assert stored == [("acme.example", "ada@acme.example")]
    assert info.hubspot.introspected == [("access_token", "access-of-7")]
    info.run()
    assert len(info.asked) == 1


DETAILS = AccountDetails(7, "Acme Ltd", "SANDBOX", "eu1")
READ_DETAILS = "SELECT account_name, account_type, region FROM hubspot.connections ORDER BY hub_id"


def test_name_type_and_region_come_from_the_first_call_of_hubspots_api_with_the_token(info: AccountInfoFixture) -> None:
    install_id = str(uuid4())
    info.connections.install(7, install_id=install_id)
    info.hubspot.account_answer = DETAILS
    info.run()
    assert info.hubspot.calls == ["introspect", "read_account"]
    assert info.sql.rows(READ_DETAILS) == [("Acme Ltd", "SANDBOX", "eu1")]
    stored = info.connections.stores.installs.find(install_id)
    assert stored is not None
    assert (stored.account_name, stored.account) == ("Acme Ltd", "Acme Ltd, sandbox, EU")


@pytest.mark.parametrize(
    "answer",
    [
        UnknownRefusal("MISSING_SCOPES", http_status=403),
        UnknownRefusal("http_404", http_status=404),
        InvalidClient("invalid_client", http_status=401),
        AccountDetails(8, "Another account"),
        AccountDetails(),
    ],
    ids=lambda answer: getattr(answer, "code", "other hub" if getattr(answer, "name", None) else "empty"),
)
def test_where_hubspot_does_not_say_name_type_and_region_they_are_null_and_nothing_else_is_lost(
    info: AccountInfoFixture, answer: AccountDetails | ProviderError
) -> None:
    info.connections.install(7)
    info.hubspot.account_answer = answer
    assert info.run() is Condition.OK
    assert info.sql.rows(READ_DETAILS) == [(None, None, None)]
    assert info.sql.value("SELECT hub_domain FROM hubspot.connections") == "acme.example"
    assert info.sql.value("SELECT account_info_due_at FROM tokenkeeper.connections") is None, (
        "HubSpot is not asked again"
    )


@pytest.mark.parametrize("error", [TIMEOUT, THROTTLED])
def test_a_failure_of_hubspots_api_delays_only_the_name_and_is_no_fault_of_hubspots_token_endpoint(
    info: AccountInfoFixture, error: ProviderError
) -> None:
    info.connections.install(7)
    info.import_with_tokens(20)
    info.hubspot.account_answer = error
    assert info.run() is Condition.OK
    assert info.sql.value("SELECT count(*) FROM tokenkeeper.accounts WHERE hub_domain IS NOT NULL") == 20
    assert info.hubspot.calls.count("read_account") <= CALLS_IN_FLIGHT, "one round at most: the rest does not wait"
    due = "SELECT count(*) FROM tokenkeeper.connections WHERE account_info_due_at > now() + interval '4 minutes'"
    assert info.sql.value(due) == 20

    # a later run, once the pause is over
    info.clock.now += API_PAUSE_SECONDS
    info.make_due()
    info.hubspot.account_answer = replace(DETAILS, hub_id=None)
    info.run()
    assert info.sql.value("SELECT count(*) FROM tokenkeeper.accounts WHERE account_name = 'Acme Ltd'") == 20


def test_an_api_that_fails_for_an_hour_after_the_install_is_not_asked_again(info: AccountInfoFixture) -> None:
    info.connections.install(7)
    info.sql.set("installed_at = now() - interval '2 hours', status_since = now() - interval '2 hours'")
    info.hubspot.account_answer = TIMEOUT
    info.run()
    assert info.sql.value("SELECT account_info_due_at FROM tokenkeeper.connections") is None


def test_a_name_that_is_known_stays_where_a_reinstall_brings_no_other(info: AccountInfoFixture) -> None:
    info.connections.install(7)
    info.hubspot.account_answer = DETAILS
    info.run()
    info.connections.install(7)
    info.hubspot.account_answer = TIMEOUT
    info.run()
    assert info.sql.rows(READ_DETAILS) == [("Acme Ltd", "SANDBOX", "eu1")]
    info.make_due()
    info.clock.now += API_PAUSE_SECONDS
    info.hubspot.account_answer = AccountDetails(7, None, "STANDARD", "eu1")
    info.run()
    assert info.sql.rows(READ_DETAILS) == [(None, "STANDARD", "eu1")], "what HubSpot no longer says is unknown"


def test_an_install_whose_token_hubspot_calls_inactive_is_refreshed_at_once_to_find_out_why(
    info: AccountInfoFixture,
) -> None:
    info.connections.install(7)
    info.connections.install(8)
    info.sql.set("refreshed_at = now()", 8)
    info.run(Introspection(active=False))
    assert len(info.asked) == 2
    due = "SELECT hub_id FROM tokenkeeper.connections WHERE due_at <= now()"
    assert info.sql.rows(due) == [(7,)], "a token of a refresh is not worth another one"


def test_new_installs_are_asked_about_before_an_import_of_hundreds(info: AccountInfoFixture) -> None:
    info.import_with_tokens(100)
    info.connections.install(1_001)
    info.connections.install(1_002)
    info.run()
    assert set(info.asked[:CALLS_IN_FLIGHT]) >= {"access-of-1001", "access-of-1002"}
    assert len(info.asked) == CALLS_IN_FLIGHT * ROUNDS, "the rest waits for the next sweep"
    assert len(set(info.asked)) == len(info.asked)


def test_a_row_that_another_transaction_has_locked_is_left_to_a_later_claim(
    info: AccountInfoFixture, connect: Callable[..., Any]
) -> None:
    info.import_with_tokens(2)
    other = connect()
    other.autocommit = False
    SqlFixture(other).rows("SELECT FROM tokenkeeper.connections WHERE hub_id = 1 FOR UPDATE")
    info.run()
    assert info.asked == ["access-of-2"]
    other.rollback()
    info.run()
    assert info.asked == ["access-of-2", "access-of-1"]


def test_several_calls_are_in_flight_at_once_and_no_more_than_allowed(info: AccountInfoFixture) -> None:
    info.import_with_tokens(CALLS_IN_FLIGHT * ROUNDS)
    info.hubspot.introspect_barrier = threading.Barrier(CALLS_IN_FLIGHT)
    info.run()  # each round passes the barrier only where all its calls are in flight at once
    assert len(info.asked) == CALLS_IN_FLIGHT * ROUNDS
    assert not info.hubspot.introspect_barrier.broken


def test_no_account_is_asked_about_during_a_pause(info: AccountInfoFixture) -> None:
    info.import_with_tokens(3)
    info.connections.stores.provider.record_outcomes([CallOutcome(is_first_attempt=True, error=THROTTLED)])
    info.run()
    assert info.asked == []


@pytest.mark.parametrize("error", [TIMEOUT, REJECTED])
def test_during_a_fault_of_hubspot_one_account_is_asked_about_where_no_refresh_needs_the_probe(
    info: AccountInfoFixture, error: ProviderError
) -> None:
    info.import_with_tokens(3)
    outcome = CallOutcome(is_first_attempt=True, error=error)
    info.connections.stores.provider.record_outcomes([outcome] * FAILURES_BEFORE_OUTAGE)
    info.set_provider("bucket_refilled_at = now() - interval '1 hour'")
    info.run()
    assert info.asked == [], "the fault has just begun"
    seconds_idle = 2 / PROBES_PER_SECOND
    info.set_provider(f"since = now() - interval '{seconds_idle} seconds'")
    assert info.run() is Condition.OK, "the answer ends the fault"
    assert len(info.asked) == 1


def test_while_the_rate_is_limited_calls_take_from_the_bucket_of_refreshes_with_one_on_credit(
    info: AccountInfoFixture, engine: Engine
) -> None:
    info.import_with_tokens(20)
    limited = Stores(engine, lease_seconds=60, max_refreshes_per_second=0.01)
    fetcher = make_fetcher(limited, info.hubspot, info.clock)
    info.set_provider("bucket_level = 1")
    fetcher.run()
    assert len(info.asked) == 2
    fetcher.run()
    assert len(info.asked) == 2, "the credit is used up"
    info.connections.import_due(30)
    assert limited.claims.claim(1).rows == [], "refreshes pay it back"


@pytest.mark.parametrize(
    ("error", "condition"),
    [
        (THROTTLED, Condition.THROTTLED),
        (REJECTED, Condition.APP_REJECTED),
        (TIMEOUT, Condition.OK),
        (AccountMigrating("account_migrating", http_status=477), Condition.OK),
        (UnknownRefusal("NEW_CODE", http_status=404), Condition.OK),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
def test_a_failure_ends_the_run_and_changes_hubspots_state_as_one_of_a_refresh_does(
    info: AccountInfoFixture, error: ProviderError, condition: Condition
) -> None:
    info.import_with_tokens(20)
    began_at = info.sql.now()
    assert info.run(error) is condition
    assert len(info.asked) == CALLS_IN_FLIGHT, "one round"
    due = "SELECT count(*) FROM tokenkeeper.connections WHERE account_info_due_at > %s + interval '50 seconds'"
    assert info.sql.value(due, began_at) == CALLS_IN_FLIGHT, "they are asked about again later"


def test_unanswered_calls_of_one_round_are_one_sign_of_an_outage_and_those_of_five_rounds_are_one(
    info: AccountInfoFixture,
) -> None:
    info.import_with_tokens(20)
    for _ in range(FAILURES_BEFORE_OUTAGE - 1):
        assert info.run(TIMEOUT) is Condition.OK
        info.make_due()
    assert info.run(TIMEOUT) is Condition.UNAVAILABLE


def test_a_success_between_them_means_no_outage(info: AccountInfoFixture) -> None:
    info.import_with_tokens(100)
    answers: list[Any] = [*[TIMEOUT] * (FAILURES_BEFORE_OUTAGE - 1), ANSWER] * 2
    assert {info.run(answer) for answer in answers} == {Condition.OK}


def test_a_repeated_refusal_of_these_calls_alone_does_not_stop_refreshes_again(info: AccountInfoFixture) -> None:
    """Refreshes work, so that HubSpot's state is OK again meanwhile."""
    info.import_with_tokens(20)
    assert info.run(REJECTED) is Condition.APP_REJECTED
    info.connections.stores.provider.record_outcomes([CallOutcome(is_first_attempt=True)])
    info.set_provider("rate = NULL")
    assert info.run(REJECTED) is Condition.OK
