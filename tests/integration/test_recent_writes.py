"""What a failover lost is written again, once, and never over anything newer.

A failover is imitated here: the row is set back to what it was, and the sessions are ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from shared.db.core.engine import ping
from shared.db.core.errors import StoreUnavailable
from shared.db.core.recent_writes import RecentWrites
from shared.db.core.server_watch import server_watch
from shared.db.refresh.claims import SETTLE_SECONDS
from tests.support.builders import HUB
from tests.support.polling import until
from tests.support.stores import ConnectionFixture, SqlFixture

SAVED_COLUMNS = """
status, status_since, access_token, expires_at, refreshed_at, lifetime_seconds, encrypted_refresh_token, due_at,
lease_until, lease_number, generation
"""
END_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE application_name = 'tokenkeeper' AND datname = current_database()
"""


@pytest.fixture
def snapshots(sql: SqlFixture) -> Snapshots:
    return Snapshots(sql)


class Snapshots:
    """Rows before a save, to which `fail_over` goes back."""

    def __init__(self, sql: SqlFixture) -> None:
        self._sql = sql
        sql.rows("CREATE SCHEMA before")

    def take(self) -> None:
        self._sql.rows("CREATE TABLE before.connections AS TABLE tokenkeeper.connections")

    def fail_over(self) -> None:
        self._sql.rows(
            f"UPDATE tokenkeeper.connections AS c SET ({SAVED_COLUMNS}) ="
            f" (SELECT {SAVED_COLUMNS} FROM before.connections AS b WHERE b.hub_id = c.hub_id)"
        )

    def end_sessions(self) -> None:
        self._sql.rows(END_SESSIONS)


def save_rotated(connections: ConnectionFixture, snapshots: Snapshots, *hub_ids: int) -> None:
    """Refresh the connections, with a new refresh token each, and lose what was saved."""
    connections.install_due(*hub_ids)
    claimed = connections.stores.claims.claim(len(hub_ids)).rows
    snapshots.take()
    results = [
        replace(
            connections.make_success(row, f"access-{row.connection.identity.hub_id}", granted_at=connections.sql.now()),
            encrypted_refresh_token=f"rotated-{row.connection.identity.hub_id}",
        )
        for row in claimed
    ]
    assert connections.stores.results.save(results).saved == connections.ids(*hub_ids)
    snapshots.fail_over()


def test_lost_refresh_tokens_are_saved_again_unless_something_newer_is_there(
    connections: ConnectionFixture, sql: SqlFixture, snapshots: Snapshots
) -> None:
    lost, revoked, in_flight, failing, reinstalled, disconnected, newer = hub_ids = range(1, 8)
    save_rotated(connections, snapshots, *hub_ids)
    until_due = sql.row(lost)["due_at"]
    sql.set("status = 'revoked', access_token = NULL, expires_at = NULL, due_at = NULL", revoked)
    sql.set("lease_number = lease_number + 1, lease_until = now() + interval '50 seconds'", in_flight)
    sql.set("failures = 1, lease_until = NULL", failing)
    sql.set("generation = generation + 1, encrypted_refresh_token = 'of-install'", reinstalled)
    sql.set("status = 'disconnected', encrypted_refresh_token = NULL", disconnected)
    sql.set("refreshed_at = clock_timestamp(), encrypted_refresh_token = 'newer'", newer)
    before = {hub_id: sql.row(hub_id) for hub_id in hub_ids}
    snapshots.end_sessions()

    until(lambda: sql.row(lost)["encrypted_refresh_token"] == "rotated-1")
    rows = {hub_id: sql.row(hub_id) for hub_id in hub_ids}
    assert [rows[hub_id]["encrypted_refresh_token"] for hub_id in hub_ids] == [
        *("rotated-1", "rotated-2", "rotated-3", "rotated-4"),
        *("of-install", None, "newer"),
    ]
    for hub_id in (reinstalled, disconnected, newer):
        assert rows[hub_id] == before[hub_id]
    assert sql.read_served_token(lost) == "access-1"
    assert (rows[lost]["lease_until"], rows[lost]["due_at"] > until_due) == (None, True), "as it was saved"
    assert (rows[revoked]["status"], rows[revoked]["access_token"]) == ("revoked", None)
    assert rows[in_flight]["lease_until"] == before[in_flight]["lease_until"]
    assert rows[in_flight]["lease_number"] > before[in_flight]["lease_number"], "it uses the old token: fenced out"
    sql.set("lease_until = NULL", in_flight)
    due = {row.connection.identity.hub_id for row in connections.stores.claims.claim(9).rows}
    assert due == {revoked, in_flight, failing}, "the new tokens prove themselves at once"


def test_a_lost_refresh_token_that_came_without_an_access_token_is_saved_again(
    connections: ConnectionFixture, sql: SqlFixture, snapshots: Snapshots
) -> None:
    connections.install_due(1)
    (claimed,) = connections.stores.claims.claim(1).rows
    snapshots.take()
    failure = connections.make_failure(claimed)
    result = replace(failure, encrypted_refresh_token="rotated", called_at=connections.sql.now())
    assert connections.stores.results.save([result]).saved == connections.ids(1)
    snapshots.fail_over()
    snapshots.end_sessions()
    until(lambda: sql.row(1)["encrypted_refresh_token"] == "rotated")
    assert sql.read_served_token(1) == "access-of-1"


def test_a_locked_row_is_written_again_when_it_is_free(
    connections: ConnectionFixture, sql: SqlFixture, snapshots: Snapshots, connect: Callable[..., Any]
) -> None:
    other = SqlFixture(connect())
    save_rotated(connections, snapshots, 1, 2)
    other.rows("BEGIN")
    other.rows("SELECT FROM tokenkeeper.connections WHERE hub_id = 1 FOR UPDATE")
    snapshots.end_sessions()
    until(lambda: sql.row(2)["encrypted_refresh_token"] == "rotated-2")
    assert sql.row(1)["encrypted_refresh_token"] != "rotated-1"
    other.rows("ROLLBACK")
    until(lambda: sql.row(1)["encrypted_refresh_token"] == "rotated-1")


def test_a_result_whose_claim_was_lost_changes_nothing_but_a_rotated_token(
    connections: ConnectionFixture, sql: SqlFixture, snapshots: Snapshots
) -> None:
    connections.install_due(1, 2)
    snapshots.take()
    success, refused = connections.stores.claims.claim(2).rows
    snapshots.fail_over()
    rotated = replace(connections.make_success(success, granted_at=sql.now()), encrypted_refresh_token="rotated")
    revocation = connections.make_revocation(refused)
    before = sql.row(refused.connection.identity.hub_id)
    outcome = connections.stores.results.save([rotated, revocation])
    assert (outcome.saved, outcome.rescued) == (set(), {success.lease.connection_id})
    assert sql.row(success.connection.identity.hub_id)["encrypted_refresh_token"] == "rotated"
    assert sql.row(refused.connection.identity.hub_id) == before


def test_a_lost_claim_of_a_call_in_flight_is_renewed_unless_something_newer_is_there(
    connections: ConnectionFixture, sql: SqlFixture, snapshots: Snapshots
) -> None:
    lost, claimed_again, reinstalled = hub_ids = (1, 2, 3)
    connections.install_due(*hub_ids)
    snapshots.take()
    claims = connections.stores.claims
    leases = {row.connection.identity.hub_id: row.lease for row in claims.claim(3).rows}
    snapshots.fail_over()
    sql.set("lease_number = lease_number + 1, lease_until = now() + interval '30 seconds'", claimed_again)
    sql.set("generation = generation + 1", reinstalled)
    before = {hub_id: sql.row(hub_id) for hub_id in hub_ids}
    claims.renew_lost_leases(leases.values())
    assert {hub_id: sql.row(hub_id) for hub_id in hub_ids} == before, "no connection was lost"
    snapshots.end_sessions()
    connections.stores.provider.read()  # notices that
    claims.renew_lost_leases(leases.values())
    assert sql.row(lost)["lease_number"] == leases[lost].number
    assert {hub_id: sql.row(hub_id) for hub_id in (claimed_again, reinstalled)} == {
        hub_id: before[hub_id] for hub_id in (claimed_again, reinstalled)
    }
    assert [row.connection.identity.hub_id for row in claims.claim(3).rows] == [reinstalled]


def test_a_lost_install_is_stored_again_unless_a_newer_one_is_there(
    connections: ConnectionFixture, sql: SqlFixture, snapshots: Snapshots
) -> None:
    lost, reinstalled = 1, 2
    for hub_id in (lost, reinstalled):
        connections.install(hub_id, access_token="lost")
    sql.rows("DELETE FROM tokenkeeper.installs")
    sql.rows("DELETE FROM tokenkeeper.connections")
    connections.install(reinstalled, access_token="newer")
    snapshots.end_sessions()
    until(lambda: sql.read_served_token(lost) == "lost")
    until(
        lambda: (
            sql.value(
                "SELECT count(*) FROM tokenkeeper.installs WHERE connection_id = %s", connections.id_of(reinstalled)
            )
            == 2
        )
    )
    assert sql.read_served_token(reinstalled) == "newer"


def test_no_more_than_the_limit_is_remembered_and_what_is_old_is_forgotten(engine: Engine, sql: SqlFixture) -> None:
    written: list[int] = []
    recent = RecentWrites[int, int](engine, lambda items: written.extend(items) or True, max_items=3, name="test")
    ping(engine)
    recent.remember({number: number for number in range(5)})
    recent.remember({3: 30})
    sql.rows(END_SESSIONS)
    until(lambda: written)
    assert written == [2, 4, 30]
    with recent._lock:
        recent._items = {key: (time - 60, item) for key, (time, item) in recent._items.items()}
    until(lambda: not recent._is_running)
    assert recent._items == {}


def test_a_process_that_ends_after_a_failover_first_writes_again_what_was_lost(engine: Engine, sql: SqlFixture) -> None:
    written: set[int] = set()
    recent = RecentWrites[int, int](engine, lambda items: not written.update(items), max_items=3, name="test")
    ping(engine)
    recent.remember({1: 1})
    sql.rows(END_SESSIONS)
    until(lambda: notices_a_loss(engine))
    recent.finish(30)
    assert written == {1}


def notices_a_loss(engine: Engine) -> bool:
    """Not at once where another thread looks at the connection that is lost: this one gets another one."""
    ping(engine)
    return server_watch(engine).losses > 0


def test_nothing_is_claimed_right_after_the_server_changed(connections: ConnectionFixture, engine: Engine) -> None:
    connections.install_due(HUB)
    server_watch(engine).note_server(connections.sql.now() - timedelta(days=1))  # of the former one
    with pytest.raises(StoreUnavailable, match="restarted or replaced"):
        connections.stores.claims.claim(1)
    connections.stores.claims.count_due(1)  # everything else goes on
    server_watch(engine)._changed_at -= SETTLE_SECONDS
    assert len(connections.stores.claims.claim(1).rows) == 1


def test_a_bug_in_the_comparison_is_logged_and_what_is_remembered_stays(engine: Engine, snapshots: Snapshots) -> None:
    compared: list[Sequence[str]] = []

    def write_lost_again(items: Sequence[str]) -> bool:
        compared.append(items)
        if len(compared) == 1:
            raise ZeroDivisionError
        return True

    ping(engine)
    writes = RecentWrites(engine, write_lost_again, max_items=10, name="test")
    with capture_logs() as log:
        writes.remember({1: "an item"})
        snapshots.end_sessions()
        until(lambda: notices_a_loss(engine))
        writes.finish(60.0)
        until(lambda: len(compared) >= 2)
    assert compared[:2] == [["an item"]] * 2, "its own thread and this one may compare it at the same moment"
    assert [line["event"] for line in log] == ["recent writes were not compared with the database"]
