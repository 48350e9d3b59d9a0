"""The revocation brake on a real PostgreSQL: how many go, who is held, and what an operator's word does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import psycopg2
import pytest
from sqlalchemy import Engine

from shared.db.refresh import brake as brake_module
from shared.db.refresh.claims import ClaimedConnection, RefreshResult
from shared.db.reports.connections import ConnectionReports
from shared.domain import connection as rules
from shared.domain.brake import MIN_REVOCATIONS
from shared.domain.errors import InvalidClient, InvalidGrant, TemporarilyUnavailable
from shared.domain.grant import Introspection
from shared.domain.provider import RAMP_START_RATE, CallOutcome
from tests.support.stores import ConnectionFixture, SqlFixture, Stores, at_once

DEAD = InvalidGrant("BAD_REFRESH_TOKEN", http_status=400)
ALERTS = "SELECT recovered, detail FROM tokenkeeper.alerts WHERE kind = 'revocation_brake' ORDER BY number"
#: As if all had been there for an hour: their changes lie outside the ten minutes.
AN_HOUR_LATER = "UPDATE tokenkeeper.history SET at = at - interval '1 hour'"


@pytest.fixture
def fleet(connections: ConnectionFixture, sql: SqlFixture) -> ConnectionFixture:
    """300 that have been active for an hour: fifteen may go."""
    connections.many_due(300)
    sql.set("access_token = 'token', expires_at = now() + interval '30 minutes', lifetime_seconds = 1800")
    an_hour_later(sql)
    return connections


def an_hour_later(sql: SqlFixture) -> None:
    sql.rows(AN_HOUR_LATER)
    sql.set("status_since = status_since - interval '1 hour'")


def claimed(connections: ConnectionFixture, count: int) -> list[ClaimedConnection]:
    rows = connections.stores.claims.claim(count).rows
    assert len(rows) == count
    return rows


def called_dead(connections: ConnectionFixture, rows: Sequence[ClaimedConnection]) -> list[RefreshResult]:
    return [connections.revoked(row) for row in rows]


def kill(connections: ConnectionFixture, count: int) -> set[int]:
    """So many more are called dead by both witnesses, in one save."""
    return connections.stores.results.save(called_dead(connections, claimed(connections, count))).saved


def counts(sql: SqlFixture) -> dict[str, int]:
    return dict(sql.rows("SELECT status, count(*) FROM hubspot.connections GROUP BY 1"))


def held(sql: SqlFixture) -> int:
    return int(sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE pending_revocation IS NOT NULL"))


def alerts(sql: SqlFixture) -> list[tuple[bool, dict[str, int]]]:
    return [(recovered, detail) for recovered, detail in sql.rows(ALERTS)]


def test_as_many_as_are_plausible_go_and_the_brake_stays_off(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    kill(fleet, 15)
    assert counts(sql) == {"active": 285, "revoked": 15}
    assert fleet.stores.brake.read().since is None
    assert alerts(sql) == []


def test_a_batch_that_is_too_big_is_split_and_pulls_the_brake_once(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    landed = fleet.stores.results.save(called_dead(fleet, claimed(fleet, 40)))
    assert (len(landed.saved), len(landed.held_by_brake)) == (40, 25)
    assert counts(sql) == {"active": 260, "revoked": 15, "suspect": 25}
    kill(fleet, 30)
    assert counts(sql) == {"active": 230, "revoked": 15, "suspect": 55}
    seen = fleet.stores.brake.read()
    assert seen.since is not None
    assert seen.held == 55
    assert alerts(sql) == [(False, {"held": 25})]


def test_a_held_one_is_served_due_again_and_says_why(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    kill(fleet, 16)
    ((hub_id, reason, due_in),) = sql.rows(
        "SELECT hub_id, status_reason, date_part('epoch', next_refresh_at - now()) FROM hubspot.connections "
        "WHERE status = 'suspect'"
    )
    assert "the revocation brake holds it" in reason
    assert 3 < due_in < 7
    assert sql.served(hub_id) == "token"
    assert sql.events(hub_id) == ["imported", "refresh_failed", "suspected"]
    assert sql.row(hub_id)["pending_revocation"]["introspection"] == {"active": False}


def test_ten_may_go_where_few_were_active_ten_minutes_ago(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.many_due(400)  # just now: none of them was there
    kill(connections, 20)
    assert counts(sql)["revoked"] == MIN_REVOCATIONS


def test_those_that_are_suspect_since_lately_were_active_ten_minutes_ago(
    fleet: ConnectionFixture, sql: SqlFixture
) -> None:
    fleet.stores.results.save([fleet.failed(row, DEAD) for row in claimed(fleet, 200)])
    assert counts(sql)["suspect"] == 200
    kill(fleet, 20)
    assert counts(sql)["revoked"] == 15


def test_those_that_have_long_been_suspect_were_not(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    fleet.stores.results.save([fleet.failed(row, DEAD) for row in claimed(fleet, 80)])
    an_hour_later(sql)
    kill(fleet, 15)
    assert counts(sql)["revoked"] == 11


def test_what_was_revoked_more_than_ten_minutes_ago_counts_no_more(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    kill(fleet, 15)
    an_hour_later(sql)
    kill(fleet, 14)
    assert fleet.stores.brake.read().since is None
    kill(fleet, 1)
    assert counts(sql)["revoked"] == 29, "a twentieth of 285 is 14"
    assert fleet.stores.brake.read().since is not None


def test_two_workers_that_save_at_once_do_not_exceed_it(
    fleet: ConnectionFixture, engine: Engine, sql: SqlFixture
) -> None:
    batches = [called_dead(fleet, claimed(fleet, 9)) for _ in range(6)]
    stores = [Stores(engine, lease_seconds=60) for _ in batches]
    at_once([lambda s=s, b=b: s.results.save(b) for s, b in zip(stores, batches, strict=True)])
    assert counts(sql) == {"active": 246, "revoked": 15, "suspect": 39}
    assert len(alerts(sql)) == 1


def test_good_results_of_the_same_batch_are_not_touched(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    rows = claimed(fleet, 40)
    good = [fleet.refreshed(row, f"new-{row.lease.hub_id}") for row in rows[::2]]
    assert len(fleet.stores.results.save([*called_dead(fleet, rows[1::2]), *good]).saved) == 40
    assert counts(sql) == {"active": 280, "revoked": 15, "suspect": 5}
    assert all(sql.served(row.lease.hub_id) == f"new-{row.lease.hub_id}" for row in rows[::2])


def test_late_answers_do_not_count(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    late = called_dead(fleet, claimed(fleet, 30))
    sql.set("lease_number = lease_number + 1")
    assert fleet.stores.results.save(late).saved == set()
    kill(fleet, 15)
    assert counts(sql)["revoked"] == 15
    assert fleet.stores.brake.read().since is None


def test_a_held_one_that_hubspot_takes_again_is_free(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    kill(fleet, 20)
    sql.set("due_at = now() - interval '1 hour'", hub := one_held(sql))
    fleet.stores.results.save([fleet.refreshed(fleet.claim_one(hub))])
    assert sql.row(hub)["status"] == "active"
    assert held(sql) == 4


def test_a_held_one_stays_held_where_hubspot_does_not_answer(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    kill(fleet, 20)
    sql.set("due_at = now() - interval '1 hour'", hub := one_held(sql))
    fleet.stores.results.save([fleet.failed(fleet.claim_one(hub), TemporarilyUnavailable("timeout"))])
    assert sql.row(hub)["status"] == "suspect"
    assert "brake" in sql.row(hub)["status_reason"]
    assert held(sql) == 5


@pytest.mark.parametrize("how", ["install", "disconnect", "witness"])
def test_nothing_that_ends_a_suspicion_is_stopped_by_a_hold(
    fleet: ConnectionFixture, sql: SqlFixture, how: str
) -> None:
    kill(fleet, 20)
    hub = one_held(sql)
    if how == "install":
        fleet.install(hub)
    elif how == "disconnect":
        fleet.stores.disconnects.mark_and_read_tokens(hub)
    else:
        row = fleet.claim_one(hub)
        accused = rules.apply_failure(row.connection, DEAD, fleet.stores.claims.clock.now())
        fleet.stores.results.save(
            [RefreshResult(row.lease, rules.apply_introspection(accused, DEAD, Introspection(active=True)))]
        )
    assert sql.row(hub)["status"] == ("disconnected" if how == "disconnect" else "active")
    assert held(sql) == 4


def test_confirmed_they_are_revoked_with_the_evidence_and_do_not_count(
    fleet: ConnectionFixture, sql: SqlFixture
) -> None:
    kill(fleet, 40)
    hub = one_held(sql)
    assert fleet.stores.brake.confirm() == 25
    assert counts(sql) == {"active": 260, "revoked": 40}
    assert sql.events(hub)[-2:] == ["suspected", "revoked"]
    detail = sql.value("SELECT detail FROM hubspot.history WHERE hub_id = %s ORDER BY at DESC LIMIT 1", hub)
    assert detail["confirmed"] is True
    assert detail["refresh"]["code"] == "BAD_REFRESH_TOKEN"
    assert sql.served(hub) is None
    assert sql.row(hub)["encrypted_refresh_token"] == "sealed"
    assert fleet.stores.brake.read().since is None
    assert alerts(sql) == [(False, {"held": 25}), (True, {"confirmed": 25})]
    sql.rows("UPDATE tokenkeeper.history SET at = at - interval '1 hour' WHERE NOT detail ? 'confirmed'")
    kill(fleet, 10)
    assert counts(sql)["revoked"] == 50
    assert fleet.stores.brake.read().since is None


def test_after_a_confirmation_those_before_the_brake_still_count(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    kill(fleet, 20)
    fleet.stores.brake.confirm()
    kill(fleet, 1)
    assert counts(sql)["suspect"] == 1
    assert [recovered for recovered, _ in alerts(sql)] == [False, True, False]


def test_dismissed_all_come_back_by_the_ramp_those_few_included(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    kill(fleet, 40)
    assert fleet.stores.brake.dismiss() == 40
    assert counts(sql) == {"active": 300}
    assert held(sql) == 0
    assert fleet.stores.brake.read().since is None
    assert fleet.stores.provider.read().rate == RAMP_START_RATE
    assert alerts(sql) == [(False, {"held": 25}), (True, {"dismissed": 40})]
    due = sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE due_at <= now() AND failures = 0")
    assert due == 300
    assert sql.events(1)[-1] == "recovered"


def test_a_dismissal_leaves_what_was_revoked_long_before(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    kill(fleet, 5)
    an_hour_later(sql)
    kill(fleet, 30)
    assert fleet.stores.brake.dismiss() == 30
    assert counts(sql) == {"active": 295, "revoked": 5}


def test_after_a_dismissal_the_count_starts_anew(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    kill(fleet, 40)
    fleet.stores.brake.dismiss()
    fleet.stores.provider.begin_sweep(0)
    sql.rows("UPDATE tokenkeeper.provider SET rate = NULL")
    kill(fleet, 15)
    assert counts(sql)["revoked"] == 15
    assert fleet.stores.brake.read().since is None


def test_a_verdict_from_before_the_dismissal_is_not_heard(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    kill(fleet, 40)
    before = called_dead(fleet, claimed(fleet, 3))
    fleet.stores.brake.dismiss()
    assert fleet.stores.results.save(before).saved == set()
    assert counts(sql) == {"active": 300}
    assert sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE lease_until IS NOT NULL") == 0


def test_a_failure_from_before_the_dismissal_does_not_make_suspect_again_in_silence(
    fleet: ConnectionFixture, sql: SqlFixture
) -> None:
    kill(fleet, 20)
    held_one = sql.value("SELECT min(hub_id) FROM tokenkeeper.connections WHERE pending_revocation IS NOT NULL")
    sql.set("due_at = now() + interval '1 hour'")
    late = fleet.claim_one(held_one)
    fleet.stores.brake.dismiss()
    assert fleet.stores.results.save([fleet.failed(late, TemporarilyUnavailable("timeout"))]).saved == set()
    row = sql.row(held_one)
    assert (row["status"], row["lease_until"], sql.events(held_one)[-1]) == ("active", None, "recovered")


@pytest.mark.parametrize("alive", [False, True])
def test_a_recovery_is_told_once_by_the_dismissal_or_by_the_refresh(
    fleet: ConnectionFixture, sql: SqlFixture, alive: bool
) -> None:
    """`alive`: the refresh is refused, and the second witness contradicts; that is outdated by then."""
    kill(fleet, 20)
    held_one = sql.value("SELECT min(hub_id) FROM tokenkeeper.connections WHERE pending_revocation IS NOT NULL")
    sql.set("due_at = now() + interval '1 hour'")
    late = fleet.claim_one(held_one)
    fleet.stores.brake.dismiss()
    accused = rules.apply_failure(late.connection, DEAD, fleet.stores.claims.clock.now())
    contradicted = RefreshResult(late.lease, rules.apply_introspection(accused, DEAD, Introspection(active=True)))
    landed = fleet.stores.results.save([contradicted if alive else fleet.refreshed(late)])
    assert landed.saved == (set() if alive else {held_one})
    assert sql.events(held_one)[-2:] == ["suspected", "recovered"]


def test_nor_does_a_refusal_revoke_again_past_the_brake(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    kill(fleet, 20)
    gone = sql.value("SELECT min(hub_id) FROM tokenkeeper.connections WHERE status = 'revoked'")
    sql.set("due_at = now() + interval '1 hour'", None)
    late = fleet.claim_one(gone)  # an operator has it tried once more
    fleet.stores.brake.dismiss()
    assert fleet.stores.results.save([fleet.failed(late, DEAD)]).saved == set()
    assert (sql.row(gone)["status"], sql.events(gone)[-1]) == ("active", "recovered")


def test_an_answer_that_comes_after_a_confirmation_does_not_undo_it(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    kill(fleet, 17)
    one, other = (
        hub for (hub,) in sql.rows("SELECT hub_id FROM tokenkeeper.connections WHERE pending_revocation IS NOT NULL")
    )
    silent, dead = fleet.claim_one(one), fleet.claim_one(other)
    fleet.stores.brake.confirm()
    fleet.stores.results.save([fleet.failed(silent, TemporarilyUnavailable("timeout")), fleet.revoked(dead)])
    assert counts(sql) == {"active": 283, "revoked": 17}
    assert sql.events(other).count("revoked") == 1
    assert sql.row(one)["due_at"] is None
    assert sql.row(one)["lease_until"] is None


def test_a_dismissal_during_an_outage_does_not_hurry_the_probes(fleet: ConnectionFixture) -> None:
    kill(fleet, 40)
    probing = fleet.stores.provider.record_outcomes(
        [CallOutcome(is_first_attempt=True, error=InvalidClient("BAD_CLIENT_SECRET"))]
    )
    fleet.stores.brake.dismiss()
    assert fleet.stores.provider.read() == probing


def test_more_than_a_page_is_moved_whole(fleet: ConnectionFixture, sql: SqlFixture, engine: Engine) -> None:
    kill(fleet, 20)
    page = brake_module.BATCH_ROWS
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO tokenkeeper.connections (hub_id, status, encrypted_refresh_token, due_at, pending_revocation) "
            f"SELECT n, 'suspect', 'sealed', now(), '{{}}' FROM generate_series(1001, 1000 + {2 * page}) AS n"
        )
    assert fleet.stores.brake.confirm() == 2 * page + 5
    assert counts(sql) == {"active": 280, "revoked": 2 * page + 20}
    assert alerts(sql)[1:] == [(True, {"confirmed": 2 * page + 5})]


@pytest.mark.usefixtures("fleet")
def test_where_the_brake_is_off_there_is_nothing_to_say(stores: Stores, sql: SqlFixture) -> None:
    assert stores.brake.confirm() is None
    assert stores.brake.dismiss() is None
    assert alerts(sql) == []


def test_two_operators_at_once_end_it_once(fleet: ConnectionFixture, engine: Engine, sql: SqlFixture) -> None:
    kill(fleet, 40)
    stores = [Stores(engine, lease_seconds=60) for _ in range(4)]
    moved = at_once([lambda s=s: s.brake.dismiss() for s in stores])
    assert sorted(filter(None, moved)) == [40]
    assert len(alerts(sql)) == 2


def test_the_overview_tells_of_it(fleet: ConnectionFixture, reports: ConnectionReports, sql: SqlFixture) -> None:
    assert (reports.read_overview().brake_since, reports.read_overview().held) == (None, 0)
    kill(fleet, 20)
    seen = reports.read_overview()
    assert seen.brake_since is not None
    assert sql.now() - seen.brake_since < timedelta(seconds=10)
    assert seen.held == 5


def test_only_a_suspect_can_be_held(fleet: ConnectionFixture, sql: SqlFixture) -> None:
    kill(fleet, 20)
    with pytest.raises(psycopg2.errors.CheckViolation):
        sql.set("status = 'active'", one_held(sql))


def one_held(sql: SqlFixture) -> int:
    return int(sql.value("SELECT min(hub_id) FROM tokenkeeper.connections WHERE pending_revocation IS NOT NULL"))
