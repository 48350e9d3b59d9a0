"""The revocation brake: how many connections become revoked, which are held, and what confirm and dismiss do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg2
import pytest
from sqlalchemy import Engine

from shared.db.refresh import brake
from shared.db.refresh.brake import RevocationBrake
from shared.db.refresh.leases import ClaimedConnection, RefreshResult
from shared.db.reports.connections import ConnectionReports
from shared.domain import connection as rules
from shared.domain.brake import MIN_REVOCATIONS
from shared.domain.errors import InvalidClient, InvalidGrant, TemporarilyUnavailable
from shared.domain.grant import Introspection
from shared.domain.provider import RAMP_START_PER_SECOND, CallOutcome
from tests.support.polling import until
from tests.support.stores import ConnectionFixture, SqlFixture, Stores, at_once

DEAD = InvalidGrant("BAD_REFRESH_TOKEN", http_status=400)
ALERTS = "SELECT recovered, detail FROM tokenkeeper.alerts WHERE kind = 'revocation_brake' ORDER BY number"
#: Out of the ten minutes in which changes count.
MOVE_HISTORY_BACK = "UPDATE tokenkeeper.history SET at = at - interval '1 hour'"


@pytest.fixture
def fleet(connections: ConnectionFixture, sql: SqlFixture) -> ConnectionFixture:
    """300 connections, active for an hour: fifteen of them may become revoked."""
    connections.import_due(300)
    sql.set("access_token = 'token', expires_at = now() + interval '30 minutes', lifetime_seconds = 1800")
    move_changes_an_hour_back(sql)
    return connections


def move_changes_an_hour_back(sql: SqlFixture) -> None:
    sql.rows(MOVE_HISTORY_BACK)
    sql.set("status_since = status_since - interval '1 hour'")


def claim(connections: ConnectionFixture, count: int) -> list[ClaimedConnection]:
    rows = connections.stores.claims.claim(count).rows
    assert len(rows) == count
    return rows


def claim_only(fleet: ConnectionFixture, hub: int) -> ClaimedConnection:
    """Also where the others have been due for longer."""
    fleet.sql.set("due_at = now() + interval '1 hour'")
    return fleet.claim_one(hub)


def revoke_all(connections: ConnectionFixture, rows: Sequence[ClaimedConnection]) -> list[RefreshResult]:
    return [connections.make_revocation(row) for row in rows]


def revoke(connections: ConnectionFixture, count: int) -> set[int]:
    """Save, at once, that HubSpot calls `count` more connections dead, in the refresh and in the introspection."""
    return connections.stores.results.save(revoke_all(connections, claim(connections, count))).saved


def count_by_status(sql: SqlFixture) -> dict[str, int]:
    return dict(sql.rows("SELECT status, count(*) FROM hubspot.connections GROUP BY 1"))


def count_held(sql: SqlFixture) -> int:
    return int(sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE pending_revocation IS NOT NULL"))


def read_alerts(sql: SqlFixture) -> list[tuple[bool, dict[str, int]]]:
    return [(recovered, detail) for recovered, detail in sql.rows(ALERTS)]


def test_revocations_within_the_limit_leave_the_brake_off(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    revoke(fleet, 15)
    assert count_by_status(sql) == {"active": 285, "revoked": 15}
    assert fleet.stores.brake.read().since is None
    assert read_alerts(sql) == []


def test_revocations_over_the_limit_are_held_and_turn_the_brake_on_once(
    fleet: ConnectionFixture, sql: SqlFixture
) -> None:
    outcome = fleet.stores.results.save(revoke_all(fleet, claim(fleet, 40)))
    assert (len(outcome.saved), len(outcome.held_by_brake)) == (40, 25)
    assert count_by_status(sql) == {"active": 260, "revoked": 15, "suspect": 25}
    revoke(fleet, 30)
    assert count_by_status(sql) == {"active": 230, "revoked": 15, "suspect": 55}
    state = fleet.stores.brake.read()
    assert state.since is not None
    assert state.held == 55
    assert read_alerts(sql) == [(False, {"held": 25})]


def test_a_held_connection_is_served_and_due_again_and_its_status_reason_names_the_brake(
    fleet: ConnectionFixture, sql: SqlFixture
) -> None:
    revoke(fleet, 16)
    ((hub_id, reason, due_in),) = sql.rows(
        "SELECT hub_id, status_reason, date_part('epoch', next_refresh_at - status_since) FROM hubspot.connections "
        "WHERE status = 'suspect'"
    )
    assert "the revocation brake holds it" in reason
    assert 0 < due_in < 60
    assert sql.read_served_token(hub_id) == "token"
    assert sql.events(hub_id) == ["imported", "refresh_failed", "suspected"]
    assert sql.row(hub_id)["pending_revocation"]["introspection"] == {"active": False}


def test_ten_may_be_revoked_where_few_were_active_ten_minutes_ago(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.import_due(400)  # just now: none was active ten minutes ago
    revoke(connections, 20)
    assert count_by_status(sql)["revoked"] == MIN_REVOCATIONS


def test_connections_that_became_suspect_just_now_count_as_active_ten_minutes_ago(
    fleet: ConnectionFixture, sql: SqlFixture
) -> None:
    fleet.stores.results.save([fleet.make_failure(row, DEAD) for row in claim(fleet, 200)])
    assert count_by_status(sql)["suspect"] == 200
    revoke(fleet, 20)
    assert count_by_status(sql)["revoked"] == 15


def test_connections_that_have_long_been_suspect_do_not_count_as_active(
    fleet: ConnectionFixture, sql: SqlFixture
) -> None:
    fleet.stores.results.save([fleet.make_failure(row, DEAD) for row in claim(fleet, 80)])
    move_changes_an_hour_back(sql)
    revoke(fleet, 15)
    assert count_by_status(sql)["revoked"] == 11


def test_revocations_of_more_than_ten_minutes_ago_do_not_count(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    revoke(fleet, 15)
    move_changes_an_hour_back(sql)
    revoke(fleet, 14)
    assert fleet.stores.brake.read().since is None
    revoke(fleet, 1)
    assert count_by_status(sql)["revoked"] == 29, "a twentieth of 285 is 14"
    assert fleet.stores.brake.read().since is not None


def test_concurrent_saves_do_not_exceed_the_limit(fleet: ConnectionFixture, engine: Engine, sql: SqlFixture) -> None:
    batches = [revoke_all(fleet, claim(fleet, 9)) for _ in range(6)]
    stores = [Stores(engine, lease_seconds=60) for _ in batches]
    at_once([lambda s=s, b=b: save_until_unlocked(s, b) for s, b in zip(stores, batches, strict=True)])
    assert count_by_status(sql) == {"active": 246, "revoked": 15, "suspect": 39}
    assert len(read_alerts(sql)) == 1


def save_until_unlocked(stores: Stores, results: Sequence[RefreshResult]) -> None:
    """As the refresh loop does: a save waits for half a second at most for those of other workers."""
    while results:
        locked = stores.results.save(results).locked
        results = [result for result in results if result.lease.connection_id in locked]


def test_successes_in_the_same_batch_are_saved_as_they_are(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    rows = claim(fleet, 40)
    good = [fleet.make_success(row, f"new-{row.connection.identity.hub_id}") for row in rows[::2]]
    assert len(fleet.stores.results.save([*revoke_all(fleet, rows[1::2]), *good]).saved) == 40
    assert count_by_status(sql) == {"active": 280, "revoked": 15, "suspect": 5}
    assert all(
        sql.read_served_token(row.connection.identity.hub_id) == f"new-{row.connection.identity.hub_id}"
        for row in rows[::2]
    )


def test_late_results_do_not_count_towards_the_limit(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    late = revoke_all(fleet, claim(fleet, 30))
    sql.set("lease_number = lease_number + 1")
    assert fleet.stores.results.save(late).saved == set()
    revoke(fleet, 15)
    assert count_by_status(sql)["revoked"] == 15
    assert fleet.stores.brake.read().since is None


def test_a_held_connection_that_refreshes_becomes_active(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    revoke(fleet, 20)
    hub = find_held(sql)
    fleet.stores.results.save([fleet.make_success(claim_only(fleet, hub))])
    assert sql.row(hub)["status"] == "active"
    assert count_held(sql) == 4


def test_a_held_connection_stays_held_while_hubspot_does_not_answer(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    revoke(fleet, 20)
    hub = find_held(sql)
    fleet.stores.results.save([fleet.make_failure(claim_only(fleet, hub), TemporarilyUnavailable("timeout"))])
    assert sql.row(hub)["status"] == "suspect"
    assert "brake" in sql.row(hub)["status_reason"]
    assert count_held(sql) == 5


@pytest.mark.parametrize("how", ["install", "disconnect", "witness"])
def test_everything_that_ends_suspect_also_ends_a_hold(fleet: ConnectionFixture, sql: SqlFixture, how: str) -> None:
    revoke(fleet, 20)
    hub = find_held(sql)
    if how == "install":
        fleet.install(hub)
    elif how == "disconnect":
        fleet.stores.disconnects.mark_and_read_tokens(fleet.id_of(hub))
    else:
        row = claim_only(fleet, hub)
        suspected = rules.apply_failure(row.connection, DEAD, fleet.stores.claims.clock.now())
        fleet.stores.results.save(
            [RefreshResult(row.lease, rules.apply_introspection(suspected, DEAD, Introspection(active=True)))]
        )
    assert sql.row(hub)["status"] == ("disconnected" if how == "disconnect" else "active")
    assert count_held(sql) == 4


def test_confirmed_revocations_keep_the_evidence_and_do_not_count(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    revoke(fleet, 40)
    hub = find_held(sql)
    refresh_token = sql.row(hub)["encrypted_refresh_token"]
    assert fleet.stores.brake.confirm() == 25
    assert count_by_status(sql) == {"active": 260, "revoked": 40}
    assert sql.events(hub)[-2:] == ["suspected", "revoked"]
    detail = sql.value("SELECT detail FROM hubspot.history WHERE hub_id = %s ORDER BY at DESC LIMIT 1", hub)
    assert detail["confirmed"] is True
    assert detail["refresh"]["code"] == "BAD_REFRESH_TOKEN"
    assert sql.read_served_token(hub) is None
    assert sql.row(hub)["encrypted_refresh_token"] == refresh_token
    assert fleet.stores.brake.read().since is None
    assert read_alerts(sql) == [(False, {"held": 25}), (True, {"confirmed": 25})]
    sql.rows("UPDATE tokenkeeper.history SET at = at - interval '1 hour' WHERE NOT detail ? 'confirmed'")
    revoke(fleet, 10)
    assert count_by_status(sql)["revoked"] == 50
    assert fleet.stores.brake.read().since is None


def test_after_a_confirmation_revocations_from_before_the_brake_still_count(
    fleet: ConnectionFixture, sql: SqlFixture
) -> None:
    revoke(fleet, 20)
    fleet.stores.brake.confirm()
    revoke(fleet, 1)
    assert count_by_status(sql)["suspect"] == 1
    assert [recovered for recovered, _ in read_alerts(sql)] == [False, True, False]


def test_a_dismissal_makes_active_what_is_held_and_what_was_revoked_just_before_and_starts_a_ramp(
    fleet: ConnectionFixture, sql: SqlFixture
) -> None:
    revoke(fleet, 40)
    hub = find_held(sql)
    assert fleet.stores.brake.dismiss() == 40
    assert count_by_status(sql) == {"active": 300}
    assert count_held(sql) == 0
    assert fleet.stores.brake.read().since is None
    assert fleet.stores.provider.read().rate == RAMP_START_PER_SECOND
    assert read_alerts(sql) == [(False, {"held": 25}), (True, {"dismissed": 40})]
    due = sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE due_at <= now() AND failures = 0")
    assert due == 300
    assert sql.events(hub)[-1] == "recovered"


def test_a_dismissal_does_not_refresh_before_the_time_that_hubspot_asked_for(
    fleet: ConnectionFixture, sql: SqlFixture
) -> None:
    revoke(fleet, 20)
    sql.set("retry_not_before = now() + interval '1 hour'", hub := find_held(sql))
    fleet.stores.brake.dismiss()
    assert sql.value("SELECT due_at = retry_not_before FROM tokenkeeper.connections WHERE hub_id = %s", hub)


@pytest.mark.parametrize("decide", [RevocationBrake.confirm, RevocationBrake.dismiss])
def test_a_decision_leaves_a_connection_that_recovered_while_it_waited_for_its_row(
    fleet: ConnectionFixture,
    engine: Engine,
    sql: SqlFixture,
    connect: Callable[..., Any],
    decide: Callable[[RevocationBrake], int | None],
) -> None:
    revoke(fleet, 20)
    hub, other = find_held(sql), connect()
    other.autocommit = False
    recover = "status = 'active', failures = 7, pending_revocation = NULL"
    SqlFixture(other).set(recover, hub)
    with ThreadPoolExecutor(1) as pool:
        decision = pool.submit(decide, RevocationBrake(engine, locked_rows_wait_seconds=60))
        until(lambda: count_held(sql) == 1)
        other.commit()
        assert decision.result(60) == (4 if decide is RevocationBrake.confirm else 19)
    row = sql.row(hub)
    assert (row["status"], row["failures"], sql.events(hub)[-1]) == ("active", 7, "suspected")


def test_a_dismissal_leaves_revocations_from_long_before(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    revoke(fleet, 5)
    move_changes_an_hour_back(sql)
    revoke(fleet, 30)
    assert fleet.stores.brake.dismiss() == 30
    assert count_by_status(sql) == {"active": 295, "revoked": 5}


def test_after_a_dismissal_the_count_starts_again(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    revoke(fleet, 40)
    fleet.stores.brake.dismiss()
    fleet.stores.provider.begin_sweep(0)
    sql.rows("UPDATE tokenkeeper.provider SET rate = NULL")
    revoke(fleet, 15)
    assert count_by_status(sql)["revoked"] == 15
    assert fleet.stores.brake.read().since is None


def test_a_revocation_from_before_a_dismissal_is_not_saved(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    revoke(fleet, 40)
    before = revoke_all(fleet, claim(fleet, 3))
    fleet.stores.brake.dismiss()
    assert fleet.stores.results.save(before).saved == set()
    assert count_by_status(sql) == {"active": 300}
    assert sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE lease_until IS NOT NULL") == 0


def test_a_failure_from_before_a_dismissal_does_not_make_a_connection_suspect_again(
    fleet: ConnectionFixture, sql: SqlFixture
) -> None:
    revoke(fleet, 20)
    held_one = sql.value("SELECT min(hub_id) FROM tokenkeeper.connections WHERE pending_revocation IS NOT NULL")
    late = claim_only(fleet, held_one)
    fleet.stores.brake.dismiss()
    assert fleet.stores.results.save([fleet.make_failure(late, TemporarilyUnavailable("timeout"))]).saved == set()
    row = sql.row(held_one)
    assert (row["status"], row["lease_until"], sql.events(held_one)[-1]) == ("active", None, "recovered")


@pytest.mark.parametrize("alive", [False, True])
def test_a_recovery_is_in_the_history_once_by_the_dismissal_or_by_the_refresh(
    fleet: ConnectionFixture, sql: SqlFixture, alive: bool
) -> None:
    """`alive`: HubSpot refuses the refresh, but introspection calls the token active; that is outdated by then."""
    revoke(fleet, 20)
    held_one = sql.value("SELECT min(hub_id) FROM tokenkeeper.connections WHERE pending_revocation IS NOT NULL")
    late = claim_only(fleet, held_one)
    fleet.stores.brake.dismiss()
    suspected = rules.apply_failure(late.connection, DEAD, fleet.stores.claims.clock.now())
    contradicted = RefreshResult(late.lease, rules.apply_introspection(suspected, DEAD, Introspection(active=True)))
    outcome = fleet.stores.results.save([contradicted if alive else fleet.make_success(late)])
    assert outcome.saved == (set() if alive else fleet.ids(held_one))
    assert sql.events(held_one)[-2:] == ["suspected", "recovered"]


def test_a_refusal_from_before_a_dismissal_does_not_revoke_past_the_brake(
    fleet: ConnectionFixture, sql: SqlFixture
) -> None:
    revoke(fleet, 20)
    gone = sql.value("SELECT min(hub_id) FROM tokenkeeper.connections WHERE status = 'revoked'")
    late = claim_only(fleet, gone)  # an operator has requested one more refresh
    fleet.stores.brake.dismiss()
    assert fleet.stores.results.save([fleet.make_failure(late, DEAD)]).saved == set()
    assert (sql.row(gone)["status"], sql.events(gone)[-1]) == ("active", "recovered")


def test_a_result_from_before_a_confirmation_does_not_undo_it(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    revoke(fleet, 17)
    one, other = (
        hub for (hub,) in sql.rows("SELECT hub_id FROM tokenkeeper.connections WHERE pending_revocation IS NOT NULL")
    )
    silent, dead = claim_only(fleet, one), claim_only(fleet, other)
    fleet.stores.brake.confirm()
    fleet.stores.results.save(
        [fleet.make_failure(silent, TemporarilyUnavailable("timeout")), fleet.make_revocation(dead)]
    )
    assert count_by_status(sql) == {"active": 283, "revoked": 17}
    assert sql.events(other).count("revoked") == 1
    assert sql.row(one)["due_at"] is None
    assert sql.row(one)["lease_until"] is None


def test_a_dismissal_while_the_app_is_rejected_leaves_the_probe_rate(fleet: ConnectionFixture) -> None:
    revoke(fleet, 40)
    probing = fleet.stores.provider.record_outcomes(
        [CallOutcome(is_first_attempt=True, error=InvalidClient("BAD_CLIENT_SECRET"))]
    )
    fleet.stores.brake.dismiss()
    assert fleet.stores.provider.read() == probing


def test_a_confirmation_of_more_than_one_batch_changes_all(
    fleet: ConnectionFixture, sql: SqlFixture, engine: Engine
) -> None:
    revoke(fleet, 20)
    batch = brake.BATCH_ROWS
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO tokenkeeper.connections (hub_id, status, encrypted_refresh_token, due_at, pending_revocation) "
            f"SELECT n, 'suspect', 'encrypted', now(), '{{}}' FROM generate_series(1001, 1000 + {2 * batch}) AS n"
        )
    assert fleet.stores.brake.confirm() == 2 * batch + 5
    assert count_by_status(sql) == {"active": 280, "revoked": 2 * batch + 20}
    assert read_alerts(sql)[1:] == [(True, {"confirmed": 2 * batch + 5})]


@pytest.mark.usefixtures("fleet")
def test_while_the_brake_is_off_there_is_nothing_to_confirm_or_dismiss(stores: Stores, sql: SqlFixture) -> None:
    assert stores.brake.confirm() is None
    assert stores.brake.dismiss() is None
    assert read_alerts(sql) == []


def test_concurrent_dismissals_turn_the_brake_off_once(
    fleet: ConnectionFixture, engine: Engine, sql: SqlFixture
) -> None:
    revoke(fleet, 40)
    stores = [Stores(engine, lease_seconds=60) for _ in range(4)]
    dismissed = at_once([lambda s=s: s.brake.dismiss() for s in stores])
    assert sorted(filter(None, dismissed)) == [40]
    assert len(read_alerts(sql)) == 2


def test_the_overview_shows_the_brake(fleet: ConnectionFixture, reports: ConnectionReports, sql: SqlFixture) -> None:
    assert (reports.read_overview().brake_since, reports.read_overview().held) == (None, 0)
    revoke(fleet, 20)
    state = reports.read_overview()
    assert state.brake_since is not None
    assert sql.now() - state.brake_since < timedelta(seconds=60)
    assert state.held == 5


def test_only_a_suspect_connection_can_be_held(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    revoke(fleet, 20)
    with pytest.raises(psycopg2.errors.CheckViolation):
        sql.set("status = 'active'", find_held(sql))


def find_held(sql: SqlFixture) -> int:
    return int(sql.value("SELECT min(hub_id) FROM tokenkeeper.connections WHERE pending_revocation IS NOT NULL"))
