"""`tokenkeeper resume`: an operator ends a pause of refreshes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from shared.db.refresh.apps import RegisteredApp, register_apps
from shared.db.refresh.provider import ProviderStore
from shared.domain.errors import InvalidClient, Throttled
from shared.domain.provider import CallOutcome, Condition
from tests.support.command import Command
from tests.support.stores import ConnectionFixture, Stores

THROTTLED = Throttled("throttled", http_status=429, retry_after=86_400)


@pytest.fixture
def tokenkeeper(environment: Callable[..., dict[str, str]]) -> Command:
    return Command(environment())


def record(stores: Stores, error: Throttled | InvalidClient) -> None:
    stores.provider.record_outcomes([CallOutcome(is_first_attempt=True, error=error)])


def test_resume_says_in_one_line_what_it_did(tokenkeeper: Command, connections: ConnectionFixture) -> None:
    connections.install()
    connections.stores.results.save([connections.make_failure(connections.claim_one(), THROTTLED)])
    record(connections.stores, THROTTLED)
    result = tokenkeeper("resume")
    assert (result.status, result.err) == (0, "")
    assert result.out == (
        "the pause is over: refreshes start again, ten a second at first; "
        "1 connection that HubSpot had put off is due now\n"
    )
    assert connections.stores.claims.count_due(10) == 1


@pytest.mark.usefixtures("connections")
def test_where_nothing_is_paused_resume_says_so_and_succeeds(tokenkeeper: Command) -> None:
    result = tokenkeeper("resume")
    assert (result.status, result.out, result.err) == (0, "nothing was paused\n", "")


def test_each_app_has_a_pause_of_its_own(tokenkeeper: Command, stores: Stores, engine: Engine) -> None:
    register_apps(engine, [RegisteredApp("crm", (), is_user_level=False)])
    others = ProviderStore(engine, "crm")
    for provider in (stores.provider, others):
        provider.begin_sweep(2.0)
        provider.record_outcomes([CallOutcome(is_first_attempt=True, error=THROTTLED)])
    assert tokenkeeper("resume", "--app", "crm").out.startswith("crm: the pause is over")
    assert (stores.provider.read().condition, others.read().condition) == (Condition.THROTTLED, Condition.OK)
    assert [json.loads(line)["app"] for line in tokenkeeper("resume", "--json").out.splitlines()] == ["crm", "default"]
    unknown = tokenkeeper("resume", "--app", "erp")
    assert (unknown.status, unknown.out) == (2, "")
    assert "one of crm, default" in unknown.err


def test_resume_leaves_another_fault_of_hubspot(tokenkeeper: Command, stores: Stores) -> None:
    record(stores, InvalidClient("BAD_CLIENT_SECRET", http_status=400))
    record(stores, THROTTLED)
    assert tokenkeeper("resume").out == "the pause is over: HubSpot does not accept our app\n"
    assert json.loads(tokenkeeper("resume", "--json").out) == {
        "was_paused": False,
        "state": "app_rejected",
        "connections_due": 0,
    }
