"""The revocation brake on a real PostgreSQL: how many go, who is held, and what an operator's word does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import psycopg2
import pytest
from sqlalchemy import Engine

from shared.db import brake as brake_module
from shared.db.leases import Claimed, Result
from shared.db.roster import Roster
from shared.db.store import ConnectionStore
from shared.domain import connection as rules
from shared.domain.brake import AT_LEAST
from shared.domain.errors import AppRejected, GrantDead, Unwell
from shared.domain.grant import Introspection
from shared.domain.provider import RAMP_FROM, Outcome
from tests.integration.store_rig import Sql, Town, at_once

DEAD = GrantDead("BAD_REFRESH_TOKEN", http_status=400)
ALERTS = "SELECT recovered, detail FROM tokenkeeper.alerts WHERE kind = 'revocation_brake' ORDER BY number"
#: As if all had been there for an hour: their changes lie outside the ten minutes.
AN_HOUR_LATER = "UPDATE tokenkeeper.history SET at = at - interval '1 hour'"


@pytest.fixture
def fleet(town: Town, sql: Sql) -> Town:
    """300 that have been active for an hour: fifteen may go."""
    town.many_due(300)
    sql.set("access_token = 'token', expires_at = now() + interval '30 minutes', life = 1800")
    an_hour_later(sql)
    return town


def an_hour_later(sql: Sql) -> None:
    sql.rows(AN_HOUR_LATER)
    sql.set("status_since = status_since - interval '1 hour'")


def claimed(town: Town, count: int) -> list[Claimed]:
    rows = town.store.claim(count).rows
    assert len(rows) == count
    return rows


def called_dead(town: Town, rows: Sequence[Claimed]) -> list[Result]:
    return [town.revoked(row) for row in rows]


def kill(town: Town, count: int) -> set[int]:
    """So many more are called dead by both witnesses, in one save."""
    return town.store.save(called_dead(town, claimed(town, count)))


def counts(sql: Sql) -> dict[str, int]:
    return dict(sql.rows("SELECT status, count(*) FROM hubspot.connections GROUP BY 1"))


def held(sql: Sql) -> int:
    return int(sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE condemned IS NOT NULL"))


def alerts(sql: Sql) -> list[tuple[bool, dict[str, int]]]:
    return [(recovered, detail) for recovered, detail in sql.rows(ALERTS)]


def test_as_many_as_are_plausible_go_and_the_brake_stays_off(fleet: Town, sql: Sql) -> None:
    kill(fleet, 15)
    assert counts(sql) == {"active": 285, "revoked": 15}
    assert fleet.store.brake().since is None
    assert alerts(sql) == []


def test_a_batch_that_is_too_big_is_split_and_pulls_the_brake_once(fleet: Town, sql: Sql) -> None:
    landed = fleet.store.save(called_dead(fleet, claimed(fleet, 40)))
    assert (len(landed), len(landed.held)) == (40, 25)
    assert counts(sql) == {"active": 260, "revoked": 15, "suspect": 25}
    kill(fleet, 30)
    assert counts(sql) == {"active": 230, "revoked": 15, "suspect": 55}
    seen = fleet.store.brake()
    assert seen.since is not None
    assert seen.held == 55
    assert alerts(sql) == [(False, {"held": 25})]


def test_a_held_one_is_served_due_again_and_says_why(fleet: Town, sql: Sql) -> None:
    kill(fleet, 16)
    ((hub_id, reason, due_in),) = sql.rows(
        "SELECT hub_id, status_reason, date_part('epoch', next_refresh_at - now()) FROM hubspot.connections "
        "WHERE status = 'suspect'"
    )
    assert "the revocation brake holds it" in reason
    assert 3 < due_in < 7
    assert sql.served(hub_id) == "token"
    assert sql.events(hub_id) == ["imported", "refresh_failed", "suspected"]
    assert sql.row(hub_id)["condemned"]["introspection"] == {"active": False}


def test_ten_may_go_where_few_were_active_ten_minutes_ago(town: Town, sql: Sql) -> None:
    town.many_due(400)  # just now: none of them was there
    kill(town, 20)
    assert counts(sql)["revoked"] == AT_LEAST


def test_those_that_are_suspect_since_lately_were_active_ten_minutes_ago(fleet: Town, sql: Sql) -> None:
    fleet.store.save([fleet.failed(row, DEAD) for row in claimed(fleet, 200)])
    assert counts(sql)["suspect"] == 200
    kill(fleet, 20)
    assert counts(sql)["revoked"] == 15


def test_those_that_have_long_been_suspect_were_not(fleet: Town, sql: Sql) -> None:
    fleet.store.save([fleet.failed(row, DEAD) for row in claimed(fleet, 80)])
    an_hour_later(sql)
    kill(fleet, 15)
    assert counts(sql)["revoked"] == 11


def test_what_was_revoked_more_than_ten_minutes_ago_counts_no_more(fleet: Town, sql: Sql) -> None:
    kill(fleet, 15)
    an_hour_later(sql)
    kill(fleet, 14)
    assert fleet.store.brake().since is None
    kill(fleet, 1)
    assert counts(sql)["revoked"] == 29, "a twentieth of 285 is 14"
    assert fleet.store.brake().since is not None


def test_two_workers_that_save_at_once_do_not_exceed_it(fleet: Town, engine: Engine, sql: Sql) -> None:
    batches = [called_dead(fleet, claimed(fleet, 9)) for _ in range(6)]
    stores = [ConnectionStore(engine, lease_seconds=60) for _ in batches]
    at_once([lambda s=s, b=b: s.save(b) for s, b in zip(stores, batches, strict=True)])
    assert counts(sql) == {"active": 246, "revoked": 15, "suspect": 39}
    assert len(alerts(sql)) == 1


def test_good_results_of_the_same_batch_are_not_touched(fleet: Town, sql: Sql) -> None:
    rows = claimed(fleet, 40)
    good = [fleet.refreshed(row, f"new-{row.lease.hub_id}") for row in rows[::2]]
    assert len(fleet.store.save([*called_dead(fleet, rows[1::2]), *good])) == 40
    assert counts(sql) == {"active": 280, "revoked": 15, "suspect": 5}
    assert all(sql.served(row.lease.hub_id) == f"new-{row.lease.hub_id}" for row in rows[::2])


def test_late_answers_do_not_count(fleet: Town, sql: Sql) -> None:
    late = called_dead(fleet, claimed(fleet, 30))
    sql.set("lease_no = lease_no + 1")
    assert fleet.store.save(late) == set()
    kill(fleet, 15)
    assert counts(sql)["revoked"] == 15
    assert fleet.store.brake().since is None


def test_a_held_one_that_hubspot_takes_again_is_free(fleet: Town, sql: Sql) -> None:
    kill(fleet, 20)
    sql.set("due_at = now() - interval '1 hour'", hub := one_held(sql))
    fleet.store.save([fleet.refreshed(fleet.claim_one(hub))])
    assert sql.row(hub)["status"] == "active"
    assert held(sql) == 4


def test_a_held_one_stays_held_where_hubspot_does_not_answer(fleet: Town, sql: Sql) -> None:
    kill(fleet, 20)
    sql.set("due_at = now() - interval '1 hour'", hub := one_held(sql))
    fleet.store.save([fleet.failed(fleet.claim_one(hub), Unwell("timeout"))])
    assert sql.row(hub)["status"] == "suspect"
    assert "brake" in sql.row(hub)["status_reason"]
    assert held(sql) == 5


@pytest.mark.parametrize("how", ["install", "disconnect", "witness"])
def test_nothing_that_ends_a_suspicion_is_stopped_by_a_hold(fleet: Town, sql: Sql, how: str) -> None:
    kill(fleet, 20)
    hub = one_held(sql)
    if how == "install":
        fleet.install(hub)
    elif how == "disconnect":
        fleet.store.disconnecting(hub)
    else:
        row = fleet.claim_one(hub)
        accused = rules.failed(row.connection, DEAD, fleet.store.clock.now())
        fleet.store.save([Result(row.lease, rules.witnessed(accused, DEAD, Introspection(active=True)))])
    assert sql.row(hub)["status"] == ("disconnected" if how == "disconnect" else "active")
    assert held(sql) == 4


def test_confirmed_they_are_revoked_with_the_evidence_and_do_not_count(fleet: Town, sql: Sql) -> None:
    kill(fleet, 40)
    hub = one_held(sql)
    assert fleet.store.confirm_revocations() == 25
    assert counts(sql) == {"active": 260, "revoked": 40}
    assert sql.events(hub)[-2:] == ["suspected", "revoked"]
    detail = sql.value("SELECT detail FROM hubspot.history WHERE hub_id = %s ORDER BY at DESC LIMIT 1", hub)
    assert detail["confirmed"] is True
    assert detail["refresh"]["code"] == "BAD_REFRESH_TOKEN"
    assert sql.served(hub) is None
    assert sql.row(hub)["sealed_refresh_token"] == "sealed"
    assert fleet.store.brake().since is None
    assert alerts(sql) == [(False, {"held": 25}), (True, {"confirmed": 25})]
    sql.rows("UPDATE tokenkeeper.history SET at = at - interval '1 hour' WHERE NOT detail ? 'confirmed'")
    kill(fleet, 10)
    assert counts(sql)["revoked"] == 50
    assert fleet.store.brake().since is None


def test_after_a_confirmation_those_before_the_brake_still_count(fleet: Town, sql: Sql) -> None:
    kill(fleet, 20)
    fleet.store.confirm_revocations()
    kill(fleet, 1)
    assert counts(sql)["suspect"] == 1
    assert [recovered for recovered, _ in alerts(sql)] == [False, True, False]


def test_dismissed_all_come_back_by_the_ramp_those_few_included(fleet: Town, sql: Sql) -> None:
    kill(fleet, 40)
    assert fleet.store.dismiss_revocations() == 40
    assert counts(sql) == {"active": 300}
    assert held(sql) == 0
    assert fleet.store.brake().since is None
    assert fleet.store.provider().rate == RAMP_FROM
    assert alerts(sql) == [(False, {"held": 25}), (True, {"dismissed": 40})]
    due = sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE due_at <= now() AND failures = 0")
    assert due == 300
    assert sql.events(1)[-1] == "recovered"


def test_a_dismissal_leaves_what_was_revoked_long_before(fleet: Town, sql: Sql) -> None:
    kill(fleet, 5)
    an_hour_later(sql)
    kill(fleet, 30)
    assert fleet.store.dismiss_revocations() == 30
    assert counts(sql) == {"active": 295, "revoked": 5}


def test_after_a_dismissal_the_count_starts_anew(fleet: Town, sql: Sql) -> None:
    kill(fleet, 40)
    fleet.store.dismiss_revocations()
    fleet.store.begin_sweep(0)
    sql.rows("UPDATE tokenkeeper.provider SET rate = NULL")
    kill(fleet, 15)
    assert counts(sql)["revoked"] == 15
    assert fleet.store.brake().since is None


def test_a_verdict_from_before_the_dismissal_is_not_heard(fleet: Town, sql: Sql) -> None:
    kill(fleet, 40)
    before = called_dead(fleet, claimed(fleet, 3))
    fleet.store.dismiss_revocations()
    assert fleet.store.save(before) == set()
    assert counts(sql) == {"active": 300}
    assert sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE lease_until IS NOT NULL") == 0


def test_a_failure_from_before_the_dismissal_does_not_make_suspect_again_in_silence(fleet: Town, sql: Sql) -> None:
    kill(fleet, 20)
    held_one = sql.value("SELECT min(hub_id) FROM tokenkeeper.connections WHERE condemned IS NOT NULL")
    sql.set("due_at = now() + interval '1 hour'")
    late = fleet.claim_one(held_one)
    fleet.store.dismiss_revocations()
    assert fleet.store.save([fleet.failed(late, Unwell("timeout"))]) == set()
    row = sql.row(held_one)
    assert (row["status"], row["lease_until"], sql.events(held_one)[-1]) == ("active", None, "recovered")


@pytest.mark.parametrize("alive", [False, True])
def test_a_recovery_is_told_once_by_the_dismissal_or_by_the_refresh(fleet: Town, sql: Sql, alive: bool) -> None:
    """`alive`: the refresh is refused, and the second witness contradicts; that is outdated by then."""
    kill(fleet, 20)
    held_one = sql.value("SELECT min(hub_id) FROM tokenkeeper.connections WHERE condemned IS NOT NULL")
    sql.set("due_at = now() + interval '1 hour'")
    late = fleet.claim_one(held_one)
    fleet.store.dismiss_revocations()
    accused = rules.failed(late.connection, DEAD, fleet.store.clock.now())
    contradicted = Result(late.lease, rules.witnessed(accused, DEAD, Introspection(active=True)))
    landed = fleet.store.save([contradicted if alive else fleet.refreshed(late)])
    assert landed == (set() if alive else {held_one})
    assert sql.events(held_one)[-2:] == ["suspected", "recovered"]


def test_nor_does_a_refusal_revoke_again_past_the_brake(fleet: Town, sql: Sql) -> None:
    kill(fleet, 20)
    gone = sql.value("SELECT min(hub_id) FROM tokenkeeper.connections WHERE status = 'revoked'")
    sql.set("due_at = now() + interval '1 hour'", None)
    late = fleet.claim_one(gone)  # an operator has it tried once more
    fleet.store.dismiss_revocations()
    assert fleet.store.save([fleet.failed(late, DEAD)]) == set()
    assert (sql.row(gone)["status"], sql.events(gone)[-1]) == ("active", "recovered")


def test_an_answer_that_comes_after_a_confirmation_does_not_undo_it(fleet: Town, sql: Sql) -> None:
    kill(fleet, 17)
    one, other = (hub for (hub,) in sql.rows("SELECT hub_id FROM tokenkeeper.connections WHERE condemned IS NOT NULL"))
    silent, dead = fleet.claim_one(one), fleet.claim_one(other)
    fleet.store.confirm_revocations()
    fleet.store.save([fleet.failed(silent, Unwell("timeout")), fleet.revoked(dead)])
    assert counts(sql) == {"active": 283, "revoked": 17}
    assert sql.events(other).count("revoked") == 1
    assert sql.row(one)["due_at"] is None
    assert sql.row(one)["lease_until"] is None


def test_a_dismissal_during_an_outage_does_not_hurry_the_probes(fleet: Town) -> None:
    kill(fleet, 40)
    probing = fleet.store.record([Outcome(first=True, error=AppRejected("BAD_CLIENT_SECRET"))])
    fleet.store.dismiss_revocations()
    assert fleet.store.provider() == probing


def test_more_than_a_page_is_moved_whole(fleet: Town, sql: Sql, engine: Engine) -> None:
    kill(fleet, 20)
    page = brake_module.PAGE
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO tokenkeeper.connections (hub_id, status, sealed_refresh_token, due_at, condemned) "
            f"SELECT n, 'suspect', 'sealed', now(), '{{}}' FROM generate_series(1001, 1000 + {2 * page}) AS n"
        )
    assert fleet.store.confirm_revocations() == 2 * page + 5
    assert counts(sql) == {"active": 280, "revoked": 2 * page + 20}
    assert alerts(sql)[1:] == [(True, {"confirmed": 2 * page + 5})]


@pytest.mark.usefixtures("fleet")
def test_where_the_brake_is_off_there_is_nothing_to_say(store: ConnectionStore, sql: Sql) -> None:
    assert store.confirm_revocations() is None
    assert store.dismiss_revocations() is None
    assert alerts(sql) == []


def test_two_operators_at_once_end_it_once(fleet: Town, engine: Engine, sql: Sql) -> None:
    kill(fleet, 40)
    stores = [ConnectionStore(engine, lease_seconds=60) for _ in range(4)]
    moved = at_once([lambda s=s: s.dismiss_revocations() for s in stores])
    assert sorted(filter(None, moved)) == [40]
    assert len(alerts(sql)) == 2


def test_the_overview_tells_of_it(fleet: Town, roster: Roster, sql: Sql) -> None:
    assert (roster.overview().brake_since, roster.overview().held) == (None, 0)
    kill(fleet, 20)
    seen = roster.overview()
    assert seen.brake_since is not None
    assert sql.now() - seen.brake_since < timedelta(seconds=10)
    assert seen.held == 5


def test_only_a_suspect_can_be_held(fleet: Town, sql: Sql) -> None:
    kill(fleet, 20)
    with pytest.raises(psycopg2.errors.CheckViolation):
        sql.set("status = 'active'", one_held(sql))


def one_held(sql: Sql) -> int:
    return int(sql.value("SELECT min(hub_id) FROM tokenkeeper.connections WHERE condemned IS NOT NULL"))
