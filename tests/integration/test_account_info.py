"""The worker asks HubSpot for the domain and the installer of new connections."""

from __future__ import annotations

from collections.abc import Callable

from sandbox.simulator.control import SimulatorControl
from shared.db.core.engine import make_engine
from shared.db.lifecycle.account_info import AccountInfoStore
from shared.hubspot.client import HubSpot
from shared.settings import Settings
from tests.support.stores import ConnectionFixture, SqlFixture
from worker.account_info import fetch_account_info


def test_an_account_that_hubspot_does_not_answer_for_is_asked_again_later(
    environment: Callable[..., dict[str, str]],
    connections: ConnectionFixture,
    simulator: SimulatorControl,
    sql: SqlFixture,
) -> None:
    connections.install()
    hubspot = HubSpot.from_settings(Settings.from_env(environment()), max_idle_connections=1)
    simulator.add_fault(503, where="introspect")
    fetch_account_info(connections.stores.account_info, hubspot)
    assert connections.stores.account_info.claim_missing(1) == [], "it has a later time"
    sql.set("account_info_due_at = now()")
    assert len(connections.stores.account_info.claim_missing(1)) == 1
    hubspot.close()


def test_a_database_that_does_not_answer_is_left_to_the_next_sweep(environment: Callable[..., dict[str, str]]) -> None:
    hubspot = HubSpot.from_settings(Settings.from_env(environment()), max_idle_connections=1)
    engine = make_engine("postgresql://user@127.0.0.1:1/db")
    fetch_account_info(AccountInfoStore(engine), hubspot)
    hubspot.close()
    engine.dispose()
