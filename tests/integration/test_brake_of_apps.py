"""Each app has a revocation brake, a state and alerts of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from shared.db.alerts.detection import AlertDetector
from shared.db.alerts.outbox import Outbox
from shared.db.core.errors import StoreUnavailable
from shared.db.refresh.apps import RegisteredApp, list_apps, register_apps
from shared.db.refresh.brake import RevocationBrake
from shared.domain.alerts import Alert, describe_alert
from shared.domain.brake import MIN_REVOCATIONS
from shared.domain.errors import InvalidClient
from shared.domain.provider import CallOutcome, Condition
from tests.support.command import Command
from tests.support.stores import ConnectionFixture, SqlFixture, Stores, open_transaction

HELD = 3


@pytest.fixture
def crm(engine: Engine) -> Stores:
    """The stores of another app than that of the fixtures `connections` and `stores`."""
    register_apps(engine, [RegisteredApp("crm", ("oauth",), is_user_level=False)])
    return Stores(engine, app="crm")


@pytest.fixture
def brake_on(connections: ConnectionFixture, crm: Stores, sql: SqlFixture) -> ConnectionFixture:
    """Of the first app: ten connections are revoked, three held. Each app has twenty connections."""
    connections.import_due(40)
    sql.rows("UPDATE tokenkeeper.connections SET app = 'crm' WHERE hub_id > 20")
    sql.rows("DELETE FROM tokenkeeper.connection_counts")
    sql.rows("INSERT INTO tokenkeeper.connection_counts VALUES (20, 'default'), (20, 'crm')")
    rows = connections.stores.claims.claim(MIN_REVOCATIONS + HELD).rows
    assert {row.connection.identity.app for row in rows} == {"default"}
    connections.stores.results.save([connections.make_revocation(row) for row in rows])
    return connections


def test_a_brake_that_is_on_holds_no_revocation_of_another_app(brake_on: ConnectionFixture, crm: Stores) -> None:
    other = ConnectionFixture(crm, brake_on.sql)
    rows = crm.claims.claim(5).rows
    outcome = crm.results.save([other.make_revocation(row) for row in rows])
    assert (len(outcome.saved), len(outcome.held_by_brake)) == (5, 0)
    assert (brake_on.stores.brake.read().held, crm.brake.read().held) == (HELD, 0)
    assert crm.brake.read().since is None


def test_a_decision_changes_the_connections_of_its_app_alone(
    brake_on: ConnectionFixture, crm: Stores, environment: Callable[..., dict[str, str]]
) -> None:
    other = ConnectionFixture(crm, brake_on.sql)
    rows = crm.claims.claim(MIN_REVOCATIONS + 1).rows
    crm.results.save([other.make_revocation(row) for row in rows])
    tokenkeeper = Command(environment())
    refused = tokenkeeper("revocations", "confirm", "--yes")
    assert (refused.status, refused.out) == (2, "")
    assert "one of crm, default" in refused.err
    states = [json.loads(line) for line in tokenkeeper("revocations", "--json").out.splitlines()]
    assert [(state["app"], state["held"]) for state in states] == [("crm", 1), ("default", HELD)]
    assert tokenkeeper("revocations", "confirm", "--yes", "--app", "crm").out.startswith("1 revoked")
    assert (brake_on.stores.brake.read().held, crm.brake.read().since) == (HELD, None)
    assert tokenkeeper("revocations", "dismiss", "--yes").out.startswith(f"{MIN_REVOCATIONS + HELD} active")


def test_the_state_of_one_app_neither_stops_the_claims_of_another_nor_shares_its_pace(
    brake_on: ConnectionFixture, crm: Stores, engine: Engine
) -> None:
    error = InvalidClient("BAD_CLIENT_SECRET", http_status=400)
    crm.provider.record_outcomes([CallOutcome(is_first_attempt=True, error=error)])
    assert (crm.provider.read().condition, brake_on.stores.provider.read().condition) == (
        Condition.APP_REJECTED,
        Condition.OK,
    )
    assert len(crm.claims.claim(10).rows) == 1, "a probe"
    assert len(brake_on.stores.claims.claim(10).rows) == 7
    assert list_apps(engine) == ["crm", "default"]


def test_an_alert_names_its_app_where_there_are_several(
    brake_on: ConnectionFixture, crm: Stores, engine: Engine
) -> None:
    other = ConnectionFixture(crm, brake_on.sql)
    crm.results.save([other.make_revocation(row) for row in crm.claims.claim(1).rows])
    AlertDetector(engine, 2.0, search_pause_factor=0).detect()
    alerts: list[Alert] = []
    Outbox(engine).log_new_alerts(alerts.append)
    found = {(alert.app, alert.kind.value): alert for alert in alerts}
    assert set(found) == {
        ("default", "revocation_brake"),
        ("default", "connection_revoked"),
        ("crm", "connection_revoked"),
    }
    assert found["crm", "connection_revoked"].detail["count"] == 1
    assert describe_alert(found["crm", "connection_revoked"]).startswith("tokenkeeper (app crm): HubSpot ended 1 conn")


def test_a_decision_that_another_transaction_keeps_from_rows_says_so_and_may_be_repeated(
    brake_on: ConnectionFixture, engine: Engine, connect: Callable[..., Any]
) -> None:
    with open_transaction(connect) as other:
        other.rows("SELECT FROM tokenkeeper.connections WHERE app = 'default' FOR UPDATE")
        with pytest.raises(StoreUnavailable, match=r"^0 "):
            RevocationBrake(engine, locked_rows_wait_seconds=0.0).confirm()
    assert brake_on.stores.brake.confirm() == HELD


def test_a_row_of_an_app_that_a_failover_lost_is_made_again_by_a_sweep(crm: Stores, sql: SqlFixture) -> None:
    sql.rows("DELETE FROM tokenkeeper.provider WHERE app = 'crm'")
    for needs_row in (
        crm.provider.read,
        lambda: crm.provider.record_outcomes([CallOutcome(is_first_attempt=True)]),
        lambda: crm.claims.claim(1),
        crm.brake.read,
        crm.brake.confirm,
    ):
        with pytest.raises(StoreUnavailable, match=r"the app crm has no row in tokenkeeper\.provider yet"):
            needs_row()
    assert crm.provider.begin_sweep(2.0) is None
    assert crm.provider.begin_sweep(2.0) is not None
