"""Claims, leases, and saves fenced by lease number and generation."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import pairwise

import psycopg2
import pytest
from sqlalchemy import Engine, text

from shared.db.core.engine import make_engine
from shared.db.refresh.claims import ClaimBatch, ConnectionClaims
from shared.db.refresh.leases import RefreshResult
from shared.domain.connection import Status
from shared.domain.errors import InvalidGrant
from tests.support.builders import HUB
from tests.support.databases import Databases
from tests.support.polling import until
from tests.support.stores import ConnectionFixture, SqlFixture, Stores, at_once


def test_a_claim_takes_only_due_rows_soonest_due_first(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install(1)
    connections.install_due(2, 3)
    sql.set("due_at = now() - interval '1 hour'", 3)
    claims = connections.stores.claims.claim(10)
    assert {row.connection.identity.hub_id for row in claims.rows} == {2, 3}
    assert [row.connection.identity.hub_id for row in connections.stores.claims.claim(10).rows] == []
    sql.set("lease_until = NULL")
    assert [row.connection.identity.hub_id for row in connections.stores.claims.claim(1).rows] == [3]


def test_a_claim_returns_everything_that_a_transition_depends_on(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install_due(HUB)
    sql.set("failures = 3, last_error = 'timeout', status = 'suspect', status_reason = 'so', retry_not_before = now()")
    claims = connections.stores.claims.claim(10)
    (claimed,) = claims.rows
    assert claimed.encrypted_refresh_token == sql.row()["encrypted_refresh_token"]
    assert claimed.connection.status is Status.SUSPECT
    assert claimed.connection.failures == 3
    assert claimed.connection.lifetime_seconds == 1800
    assert claimed.connection.scopes == ("oauth", "crm.objects.contacts.read")
    assert claimed.connection.last_error == "timeout"
    assert claimed.connection.status_reason == "so"
    assert claimed.connection.retry_not_before is not None
    assert 59 < (claimed.lease.until - claims.now).total_seconds() <= 60
    assert claimed.encrypted_refresh_token not in repr(claims)


def test_concurrent_claims_never_get_the_same_row(connections: ConnectionFixture, engine: Engine) -> None:
    connections.import_due(400)
    stores = [Stores(engine, lease_seconds=60) for _ in range(8)]
    claims: list[ClaimBatch] = []
    for _ in range(8):
        claims += at_once([lambda each=each: each.claims.claim(9) for each in stores])
    hubs = [row.connection.identity.hub_id for claimed in claims for row in claimed.rows]
    assert len(hubs) == len(set(hubs)) == 400


def test_after_a_lease_another_worker_claims_and_the_first_result_is_not_saved(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install_due(HUB)
    first = connections.claim_one()
    assert connections.stores.claims.claim(1).rows == []
    sql.set("lease_until = now() - interval '1 millisecond'")
    second = connections.claim_one()
    assert second.lease.number > first.lease.number
    assert connections.stores.results.save([connections.make_success(first, "late")]).saved == set()
    assert sql.read_served_token() == f"access-of-{HUB}"
    assert sql.row()["lease_until"] is not None, "the second worker's lease goes on"
    assert connections.stores.results.save([connections.make_success(second, "right")]).saved == connections.ids(HUB)
    assert sql.read_served_token() == "right"


def test_a_late_result_is_saved_if_no_other_worker_claimed_the_row(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install_due(HUB)
    claimed = connections.claim_one()
    sql.set("lease_until = now() - interval '1 minute'")
    assert connections.stores.results.save([connections.make_success(claimed)]).saved == connections.ids(HUB)
    assert sql.read_served_token() == "new-access"


def test_a_success_is_saved_with_all_its_fields(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install_due(HUB)
    claimed = connections.claim_one()
    result = connections.make_success(claimed, scopes=("oauth",), expires_in=600)
    saved = connections.stores.results.save([RefreshResult(result.lease, result.transition, "encrypted-new")]).saved
    assert saved == connections.ids(HUB)
    row = sql.row()
    assert row["access_token"] == "new-access"
    assert row["encrypted_refresh_token"] == "encrypted-new"
    assert row["scopes"] == ["oauth"]
    assert row["lifetime_seconds"] == 600
    assert row["lease_until"] is None
    assert row["failures"] == 0
    assert row["refresh_requested"] is False
    seconds = "extract(epoch FROM expires_at - refreshed_at), extract(epoch FROM due_at - refreshed_at)"
    lifetime, due = sql.rows(f"SELECT {seconds} FROM tokenkeeper.connections")[0]
    assert lifetime == 600
    assert 360 <= due <= 450
    assert sql.events() == ["installed", "scopes_changed"]


def test_fields_missing_in_a_reply_keep_their_stored_values(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install_due(HUB)
    refresh_token = sql.row()["encrypted_refresh_token"]
    connections.stores.results.save(
        [connections.make_success(connections.claim_one(), scopes=None, refresh_token=None)]
    )
    assert sql.row()["scopes"] == ["oauth", "crm.objects.contacts.read"]
    assert sql.row()["encrypted_refresh_token"] == refresh_token


def test_a_failure_keeps_the_token_that_is_still_valid(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install_due(HUB)
    assert connections.stores.results.save(
        [connections.make_failure(connections.claim_one())]
    ).saved == connections.ids(HUB)
    assert sql.read_served_token() == f"access-of-{HUB}"
    assert sql.row()["failures"] == 1
    assert sql.row()["last_error"] == "timeout"
    assert sql.value("SELECT due_at > now() FROM tokenkeeper.connections")
    assert sql.events() == ["installed", "refresh_failed"]


def test_a_revoked_connection_loses_its_access_token_and_its_due_date(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install_due(HUB)
    connections.stores.results.save([connections.make_revocation(connections.claim_one())])
    row = sql.row()
    assert (row["status"], row["access_token"], row["expires_at"], row["due_at"]) == ("revoked", None, None, None)
    assert row["encrypted_refresh_token"], "an operator may request one more refresh"
    assert sql.events() == ["installed", "refresh_failed", "suspected", "revoked"]
    assert sql.value("SELECT status_since > created_at FROM tokenkeeper.connections")


@pytest.mark.parametrize("answer", ["good", "bad", "dead"])
def test_a_reinstall_during_a_refresh_wins_over_any_late_result(
    connections: ConnectionFixture, sql: SqlFixture, answer: str
) -> None:
    connections.install_due(HUB)
    claimed = connections.claim_one()
    connections.install(encrypted_refresh_token="encrypted-by-reinstall", access_token="access-of-reinstall")
    assert sql.row()["lease_until"] is not None, "the refresh is still in flight"
    before = {**sql.row(), "lease_until": None}
    late = {"good": connections.make_success, "bad": connections.make_failure, "dead": connections.make_revocation}[
        answer
    ](claimed)
    assert connections.stores.results.save([late]).saved == set()
    assert sql.row() == before
    assert sql.events() == ["installed", "reinstalled"]


def test_a_disconnect_during_a_refresh_wins_over_a_late_result(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install_due(HUB)
    claimed = connections.claim_one()
    connections.stores.disconnects.mark_and_read_tokens(connections.id_of(HUB))
    assert connections.stores.results.save([connections.make_success(claimed)]).saved == set()
    assert sql.row()["status"] == "disconnected"
    assert sql.read_served_token() is None


def test_no_second_refresh_begins_while_a_fenced_one_is_in_flight(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install_due(HUB)
    claimed = connections.claim_one()
    connections.install()
    sql.set("due_at = now() - interval '1 second'")
    assert connections.stores.claims.claim(1).rows == []
    connections.stores.results.save([connections.make_success(claimed)])
    assert len(connections.stores.claims.claim(1).rows) == 1


def test_a_result_saved_twice_is_in_the_history_once(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install_due(HUB)
    result = connections.make_revocation(connections.claim_one())
    assert connections.stores.results.save([result]).saved == connections.ids(HUB)
    assert connections.stores.results.save([result]).saved == set()
    assert sql.events().count("revoked") == 1


def test_one_save_takes_many_results_of_every_kind(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install_due(*range(1, 31))
    claimed = {row.connection.identity.hub_id: row for row in connections.stores.claims.claim(50).rows}
    kinds = [connections.make_success, connections.make_failure, connections.make_revocation]
    results = [kinds[hub_id % 3](claimed[hub_id]) for hub_id in reversed(range(1, 31))]
    connections.install(30)
    assert connections.stores.results.save(results).saved == connections.ids(*range(1, 30))
    counts = sql.rows("SELECT status, count(*) FROM hubspot.connections GROUP BY status ORDER BY status")
    assert counts == [("active", 20), ("revoked", 10)]
    assert sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE lease_until IS NOT NULL") == 0


def test_concurrent_saves_of_the_same_rows_in_different_orders_never_deadlock(
    connections: ConnectionFixture, engine: Engine
) -> None:
    connections.install_due(*range(1, 61))
    for _ in range(5):
        connections.sql.set("due_at = now(), lease_until = NULL")
        results = [connections.make_failure(row) for row in connections.stores.claims.claim(60).rows]
        stores = [Stores(engine, lease_seconds=60) for _ in range(4)]
        mixed = [results, results[::-1], results[::2] + results[1::2], results[30:] + results[:30]]
        outcomes = at_once([lambda s=s, r=r: s.results.save(r) for s, r in zip(stores, mixed, strict=True)])
        assert sum(len(outcome.saved) for outcome in outcomes) == 60


def test_a_released_row_can_be_claimed_at_once_and_an_old_lease_releases_nothing(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install_due(HUB)
    claimed = connections.claim_one()
    due_at = sql.row()["due_at"]
    connections.stores.claims.release([claimed.lease])
    assert sql.row()["due_at"] == due_at
    again = connections.claim_one()
    connections.stores.claims.release([claimed.lease])
    assert sql.row()["lease_until"] is not None, "an old lease releases nothing"
    assert again.lease.number > claimed.lease.number


def test_a_claim_updates_no_index(databases: Databases) -> None:
    """In a database of its own: elsewhere, sessions of earlier tests may still report what they have updated."""
    statistics = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'connections'"
    with databases.create_migrated() as url, closing(psycopg2.connect(url)) as session:
        session.autocommit = True
        sql = SqlFixture(session)
        engine = make_engine(databases.as_worker(url), pool_size=1)
        connections = ConnectionFixture(Stores(engine, lease_seconds=60), sql)
        connections.import_due(200)
        assert len(connections.stores.claims.claim(8).rows) == 8  # as many as a page has room for
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_stat_force_next_flush()"))
        assert sql.rows(statistics) == [(8, 8)]
        engine.dispose()


def test_due_rows_are_counted_no_further_than_asked(connections: ConnectionFixture) -> None:
    connections.import_due(30)
    assert connections.stores.claims.count_due(at_most=100) == 30
    assert connections.stores.claims.count_due(at_most=10) == 10
    connections.stores.claims.claim(25)
    assert connections.stores.claims.count_due(at_most=100) == 5


def test_rows_behind_the_cursor_that_a_count_has_found_are_claimed_next(
    connections: ConnectionFixture, engine: Engine, sql: SqlFixture
) -> None:
    """As rows of a killed worker are, when their leases end. The count is the scan that looks behind the cursor."""
    claims = ConnectionClaims(engine, lease_seconds=60, full_scan_seconds=0.5)
    connections.import_due(2)
    behind = claims.claim(1).rows[0].connection.identity
    assert len(claims.claim(1).rows) == 1
    sql.set("due_at = now() - interval '1 hour', lease_until = now() - interval '1 second'", behind.hub_id)
    until(lambda: claims.count_due(at_most=1))
    assert [claimed.connection.identity.hub_id for claimed in claims.claim(1).rows] == [behind.hub_id]


def test_the_highest_possible_hub_id_is_saved(connections: ConnectionFixture, sql: SqlFixture) -> None:
    highest = 2**63 - 1
    connections.install_due(highest)
    saved = connections.stores.results.save([connections.make_success(connections.claim_one(highest))]).saved
    assert saved == connections.ids(highest)
    assert sql.read_served_token(highest) == "new-access"


def test_special_characters_are_stored_unchanged(connections: ConnectionFixture, sql: SqlFixture) -> None:
    odd = 'quote\' back\\slash %s :x "double" é 漢 \U0001f511'
    connections.install_due(HUB)
    connections.stores.results.save([connections.make_success(connections.claim_one(), odd, scopes=(odd,))])
    assert sql.read_served_token() == odd
    assert sql.row()["scopes"] == [odd]
    connections.stores.results.save(
        [connections.make_failure(connections.claim_one(), InvalidGrant(odd, correlation_id=odd))]
    )
    assert sql.row()["last_error"] == odd


def test_the_clock_is_never_ahead_of_the_server_and_never_far_behind(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    for _ in range(20):
        asked_at = time.monotonic()
        connections.stores.claims.claim(1)
        reply_seconds = time.monotonic() - asked_at
        before = sql.now()
        now = connections.stores.claims.clock.now()
        after = sql.now()
        assert now <= after
        assert (before - now).total_seconds() < reply_seconds


def test_lease_numbers_only_grow(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install_due(HUB)
    numbers = []
    for _ in range(4):
        claimed = connections.claim_one()
        numbers.append(claimed.lease.number)
        connections.stores.results.save([connections.make_failure(claimed)])
        connections.install()
    assert all(earlier < later for earlier, later in pairwise(numbers))
