"""Claims, leases and the fence, on a real PostgreSQL."""

from __future__ import annotations

from itertools import pairwise

import pytest
from sqlalchemy import Engine, text

from shared.db.leases import Claims, Result
from shared.db.store import ConnectionStore
from shared.domain.connection import Status
from shared.domain.errors import GrantDead
from tests.builders import HUB
from tests.integration.store_rig import Sql, Town, at_once


def test_only_what_is_due_is_claimed_soonest_first(town: Town, sql: Sql) -> None:
    town.install(1)
    town.due(2, 3)
    sql.set("due_at = now() - interval '1 hour'", 3)
    claims = town.store.claim(10)
    assert {row.connection.hub_id for row in claims.rows} == {2, 3}
    assert [row.connection.hub_id for row in town.store.claim(10).rows] == []
    sql.set("lease_until = NULL")
    assert [row.connection.hub_id for row in town.store.claim(1).rows] == [3]


def test_a_claim_hands_out_all_that_the_next_step_is_decided_by(town: Town, sql: Sql) -> None:
    town.due(HUB)
    sql.set("failures = 3, last_error = 'timeout', status = 'suspect', status_reason = 'so', not_before = now()")
    claims = town.store.claim(10)
    (claimed,) = claims.rows
    assert claimed.sealed_refresh_token == f"sealed-of-{HUB}"
    assert claimed.connection.status is Status.SUSPECT
    assert claimed.connection.failures == 3
    assert claimed.connection.life == 1800
    assert claimed.connection.scopes == ("oauth", "crm.objects.contacts.read")
    assert claimed.connection.last_error == "timeout"
    assert claimed.connection.reason == "so"
    assert claimed.connection.not_before is not None
    assert 59 < (claimed.lease.until - claims.now).total_seconds() <= 60
    assert "sealed" not in repr(claims)


def test_threads_that_claim_at_once_never_get_the_same_row(town: Town, engine: Engine) -> None:
    town.many_due(400)
    stores = [ConnectionStore(engine, lease_seconds=60) for _ in range(8)]
    claims: list[Claims] = []
    for _ in range(8):
        claims += at_once([lambda store=store: store.claim(9) for store in stores])
    hubs = [row.connection.hub_id for claimed in claims for row in claimed.rows]
    assert len(hubs) == len(set(hubs)) == 400


def test_a_lease_that_ended_lets_somebody_else_claim(town: Town, sql: Sql) -> None:
    town.due(HUB)
    first = town.claim_one()
    assert town.store.claim(1).rows == []
    sql.set("lease_until = now() - interval '1 millisecond'")
    second = town.claim_one()
    assert second.lease.number == first.lease.number + 1
    assert town.store.save([town.refreshed(first, "late")]) == set()
    assert sql.served() == f"access-of-{HUB}"
    assert sql.row()["lease_until"] is not None, "the second holder still holds it"
    assert town.store.save([town.refreshed(second, "right")]) == {HUB}
    assert sql.served() == "right"


def test_a_late_result_lands_where_nobody_claimed_meanwhile(town: Town, sql: Sql) -> None:
    town.due(HUB)
    claimed = town.claim_one()
    sql.set("lease_until = now() - interval '1 minute'")
    assert town.store.save([town.refreshed(claimed)]) == {HUB}
    assert sql.served() == "new-access"


def test_a_success_is_stored_whole(town: Town, sql: Sql) -> None:
    town.due(HUB)
    claimed = town.claim_one()
    result = town.refreshed(claimed, scopes=("oauth",), expires_in=600)
    assert town.store.save([Result(result.lease, result.step, "sealed-anew")]) == {HUB}
    row = sql.row()
    assert row["access_token"] == "new-access"
    assert row["sealed_refresh_token"] == "sealed-anew"
    assert row["scopes"] == ["oauth"]
    assert row["life"] == 600
    assert row["lease_until"] is None
    assert row["failures"] == 0
    assert row["refresh_requested"] is False
    life = "extract(epoch FROM expires_at - refreshed_at), extract(epoch FROM due_at - refreshed_at)"
    lives, due = sql.rows(f"SELECT {life} FROM tokenkeeper.connections")[0]
    assert lives == 600
    assert 360 <= due <= 450
    assert sql.events() == ["installed", "scopes_changed"]


def test_what_a_reply_leaves_out_stays_as_it_was(town: Town, sql: Sql) -> None:
    town.due(HUB)
    town.store.save([town.refreshed(town.claim_one(), scopes=None, refresh_token=None)])
    assert sql.row()["scopes"] == ["oauth", "crm.objects.contacts.read"]
    assert sql.row()["sealed_refresh_token"] == f"sealed-of-{HUB}"


def test_a_failure_keeps_the_token_that_lives(town: Town, sql: Sql) -> None:
    town.due(HUB)
    assert town.store.save([town.failed(town.claim_one())]) == {HUB}
    assert sql.served() == f"access-of-{HUB}"
    assert sql.row()["failures"] == 1
    assert sql.row()["last_error"] == "timeout"
    assert sql.value("SELECT due_at > now() FROM tokenkeeper.connections")
    assert sql.events() == ["installed", "refresh_failed"]


def test_a_revoked_one_loses_its_access_token_and_its_date(town: Town, sql: Sql) -> None:
    town.due(HUB)
    town.store.save([town.revoked(town.claim_one())])
    row = sql.row()
    assert (row["status"], row["access_token"], row["expires_at"], row["due_at"]) == ("revoked", None, None, None)
    assert row["sealed_refresh_token"], "an operator may have it tried again"
    assert sql.events() == ["installed", "refresh_failed", "suspected", "revoked"]
    assert sql.value("SELECT status_since > created_at FROM tokenkeeper.connections")


@pytest.mark.parametrize("answer", ["good", "bad", "dead"])
def test_a_reinstall_during_a_refresh_wins_over_any_late_answer(town: Town, sql: Sql, answer: str) -> None:
    town.due(HUB)
    claimed = town.claim_one()
    town.install(sealed_refresh_token="sealed-by-reinstall", access_token="access-of-reinstall")
    assert sql.row()["lease_until"] is not None, "the old call is still out"
    before = {**sql.row(), "lease_until": None}
    late = {"good": town.refreshed, "bad": town.failed, "dead": town.revoked}[answer](claimed)
    assert town.store.save([late]) == set()
    assert sql.row() == before
    assert sql.events() == ["installed", "reinstalled"]


def test_a_disconnect_during_a_refresh_wins_too(town: Town, sql: Sql) -> None:
    town.due(HUB)
    claimed = town.claim_one()
    town.store.disconnecting(HUB)
    assert town.store.save([town.refreshed(claimed)]) == set()
    assert sql.row()["status"] == "disconnected"
    assert sql.served() is None


def test_no_second_refresh_begins_while_the_fenced_one_is_out(town: Town, sql: Sql) -> None:
    town.due(HUB)
    claimed = town.claim_one()
    town.install()
    sql.set("due_at = now() - interval '1 second'")
    assert town.store.claim(1).rows == []
    town.store.save([town.refreshed(claimed)])
    assert len(town.store.claim(1).rows) == 1


def test_results_saved_twice_are_told_once(town: Town, sql: Sql) -> None:
    town.due(HUB)
    result = town.revoked(town.claim_one())
    assert town.store.save([result]) == {HUB}
    assert town.store.save([result]) == set()
    assert sql.events().count("revoked") == 1


def test_one_save_takes_many_results_of_every_kind(town: Town, sql: Sql) -> None:
    town.due(*range(1, 31))
    claimed = {row.connection.hub_id: row for row in town.store.claim(50).rows}
    kinds = [town.refreshed, town.failed, town.revoked]
    results = [kinds[hub_id % 3](claimed[hub_id]) for hub_id in reversed(range(1, 31))]
    town.install(30)
    assert town.store.save(results) == set(range(1, 30))
    counts = sql.rows("SELECT status, count(*) FROM hubspot.connections GROUP BY status ORDER BY status")
    assert counts == [("active", 20), ("revoked", 10)]
    assert sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE lease_until IS NOT NULL") == 0


def test_saves_that_cross_each_other_never_deadlock(town: Town, engine: Engine) -> None:
    town.due(*range(1, 61))
    for _ in range(5):
        town.sql.set("due_at = now(), lease_until = NULL")
        results = [town.failed(row) for row in town.store.claim(60).rows]
        stores = [ConnectionStore(engine, lease_seconds=60) for _ in range(4)]
        mixed = [results, results[::-1], results[::2] + results[1::2], results[30:] + results[:30]]
        landed = at_once([lambda s=s, r=r: s.save(r) for s, r in zip(stores, mixed, strict=True)])
        assert sum(map(len, landed)) == 60


def test_what_was_not_called_is_handed_back_at_once(town: Town, sql: Sql) -> None:
    town.due(HUB)
    claimed = town.claim_one()
    due_at = sql.row()["due_at"]
    town.store.hand_back([claimed.lease])
    assert sql.row()["due_at"] == due_at
    again = town.claim_one()
    town.store.hand_back([claimed.lease])
    assert sql.row()["lease_until"] is not None, "an old lease hands back nothing"
    assert again.lease.number == claimed.lease.number + 1


def test_a_claim_touches_no_index(town: Town, sql: Sql, engine: Engine) -> None:
    def updates() -> tuple[int, int]:
        with engine.connect() as connection:  # the pool's only one: the one that claimed
            connection.execute(text("SELECT pg_stat_force_next_flush()"))
        seen = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'connections'"
        all_updates, in_place = sql.rows(seen)[0]
        return all_updates, in_place

    town.many_due(200)
    before = updates()
    assert len(town.store.claim(8).rows) == 8  # as many as a page has room for
    after = updates()
    assert after[0] - before[0] == 8
    assert after[1] - before[1] == 8


def test_the_due_are_counted_no_further_than_asked(town: Town) -> None:
    town.many_due(30)
    assert town.store.due(at_most=100) == 30
    assert town.store.due(at_most=10) == 10
    town.store.claim(25)
    assert town.store.due(at_most=100) == 5


def test_the_highest_hub_there_can_be_fits(town: Town, sql: Sql) -> None:
    highest = 2**63 - 1
    town.due(highest)
    assert town.store.save([town.refreshed(town.claim_one(highest))]) == {highest}
    assert sql.served(highest) == "new-access"


def test_odd_characters_arrive_as_they_were(town: Town, sql: Sql) -> None:
    odd = 'quote\' back\\slash %s :x "double" é 漢 \U0001f511'
    town.due(HUB)
    town.store.save([town.refreshed(town.claim_one(), odd, scopes=(odd,))])
    assert sql.served() == odd
    assert sql.row()["scopes"] == [odd]
    town.store.save([town.failed(town.claim_one(), GrantDead(odd, correlation_id=odd))])
    assert sql.row()["last_error"] == odd


def test_the_clock_is_never_ahead_of_the_server_and_never_far_behind(town: Town, sql: Sql) -> None:
    for _ in range(20):
        town.store.claim(1)
        before = sql.now()
        ours = town.store.clock.now()
        after = sql.now()
        assert ours <= after
        assert (before - ours).total_seconds() < 0.5


def test_lease_numbers_only_grow(town: Town, sql: Sql) -> None:
    town.due(HUB)
    numbers = []
    for _ in range(4):
        claimed = town.claim_one()
        numbers.append(claimed.lease.number)
        town.store.save([town.failed(claimed)])
        town.install()
    assert all(earlier < later for earlier, later in pairwise(numbers))
