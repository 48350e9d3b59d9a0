"""`hubspot.request_refresh`, and the operator's request for a refresh."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from shared.db.refresh.requests import RefreshRequestOutcome
from tests.support.builders import HUB
from tests.support.stores import ConnectionFixture, SqlFixture, at_once, open_transaction

ACCESS = f"access-of-{HUB}"


def request(sql: SqlFixture, access_token: str | None = None, hub_id: int | None = HUB) -> bool:
    answer: bool = sql.value("SELECT hubspot.request_refresh(%s, %s)", hub_id, access_token)
    return answer


def count_stored(sql: SqlFixture) -> int:
    return int(sql.value("SELECT count(*) FROM tokenkeeper.refresh_requests"))


def due_hub_ids(sql: SqlFixture) -> list[int]:
    return [hub_id for (hub_id,) in sql.rows("SELECT hub_id FROM tokenkeeper.connections WHERE due_at <= now()")]


def request_as_operator(connections: ConnectionFixture) -> RefreshRequestOutcome:
    connection_id = connections.id_of()
    return connections.stores.refresh_requests.request([connection_id])[connection_id]


def test_a_request_makes_a_connection_due_now_once(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    assert connections.stores.claims.count_due(1) == 0
    assert request(sql, ACCESS) is True
    assert request(sql, ACCESS) is False, "it is not applied yet"
    connections.stores.refresh_requests.apply()
    assert connections.stores.claims.count_due(1) == 1
    assert request(sql, ACCESS) is False
    assert request(sql) is False
    assert count_stored(sql) == 0


def test_a_request_finds_its_rows_by_an_index_however_small_the_tables_were_when_its_session_began(
    connections: ConnectionFixture, connect: Callable[..., Any], database_url: str
) -> None:
    connections.install()
    session = SqlFixture(connect(database_url))  # a new one: it counts its own scans alone
    session.rows("VACUUM ANALYZE tokenkeeper.connections, tokenkeeper.refresh_requests")
    session.rows("BEGIN")
    assert request(session, ACCESS) is True
    scans = (
        "SELECT relname, seq_scan FROM pg_stat_xact_user_tables"
        " WHERE relname IN ('connections', 'refresh_requests') ORDER BY relname"
    )
    assert session.rows(scans) == [("connections", 0), ("refresh_requests", 0)]
    session.rows("ROLLBACK")


def test_a_request_may_leave_out_the_token(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    assert sql.value("SELECT hubspot.request_refresh(%s)", HUB) is True
    connections.stores.refresh_requests.apply()
    assert connections.stores.claims.count_due(1) == 1


def test_a_request_with_an_older_token_than_the_served_one_changes_nothing(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    before = sql.row()
    assert request(sql, "an older one") is False
    assert sql.row() == before


def test_a_request_with_any_token_is_accepted_where_none_is_served(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    sql.set("expires_at = now() - interval '1 second'")
    assert request(sql, "an older one") is True


@pytest.mark.parametrize("status", ["revoked", "disconnected"])
def test_a_revoked_or_disconnected_connection_cannot_be_requested(
    connections: ConnectionFixture, sql: SqlFixture, status: str
) -> None:
    connections.install()
    sql.set(f"status = '{status}', due_at = NULL, access_token = NULL, expires_at = NULL")
    assert request(sql) is False
    assert count_stored(sql) == 0


def test_a_request_for_an_unknown_hub_or_null_is_false(connections: ConnectionFixture, sql: SqlFixture) -> None:
    assert request(sql, hub_id=404) is False
    assert request(sql, hub_id=None) is False


def test_a_suspect_connection_can_be_requested(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    sql.set("status = 'suspect'")
    assert request(sql, ACCESS) is True


def test_a_request_during_a_refresh_is_settled_by_its_success(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    claimed = connections.claim_one()
    assert request(sql, ACCESS) is True
    assert request(sql, ACCESS) is True
    connections.stores.refresh_requests.apply()
    assert connections.stores.claims.claim(1).rows == []
    connections.stores.results.save([connections.make_success(claimed)])
    assert connections.stores.claims.count_due(1) == 0
    assert request(sql, "new-access") is True, "the new token was never asked for"


def test_a_request_that_is_applied_after_the_refresh_in_flight_causes_no_other_one(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    claimed = connections.claim_one()
    assert request(sql, ACCESS) is True
    connections.stores.results.save([connections.make_success(claimed)])
    connections.stores.refresh_requests.apply()
    assert (connections.stores.claims.count_due(1), count_stored(sql)) == (0, 0)


def test_a_request_during_the_refresh_of_a_dead_worker_ends_in_a_refresh(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    connections.claim_one()
    connections.install(access_token="reinstalled")
    assert connections.stores.claims.count_due(1) == 0
    assert request(sql, "reinstalled") is True
    connections.stores.refresh_requests.apply()
    assert connections.stores.claims.claim(1).rows == [], "the lease of the one that is gone still stands"
    sql.set("lease_until = now()")
    assert len(connections.stores.claims.claim(1).rows) == 1


def test_a_failed_refresh_keeps_the_request(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    assert request(sql) is True
    connections.stores.refresh_requests.apply()
    (claimed,) = connections.stores.claims.claim(1).rows
    connections.stores.results.save([connections.make_failure(claimed)])
    assert request(sql) is False
    connections.stores.refresh_requests.apply()
    assert sql.value("SELECT due_at > now() FROM tokenkeeper.connections"), "its back-off stands"


def test_a_request_does_not_shorten_hubspots_retry_after(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    sql.set("retry_not_before = now() + interval '1 hour', due_at = now() + interval '2 hours'")
    assert request(sql) is True
    connections.stores.refresh_requests.apply()
    assert sql.value("SELECT due_at = retry_not_before FROM tokenkeeper.connections")


def test_a_request_leaves_the_due_time_of_an_overdue_connection(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    sql.set("due_at = now() - interval '1 hour'")
    assert request(sql) is True
    connections.stores.refresh_requests.apply()
    assert sql.value("SELECT due_at < now() - interval '59 minutes' FROM tokenkeeper.connections")


def test_of_concurrent_requests_one_makes_the_connection_due(
    connections: ConnectionFixture, sql: SqlFixture, connect: Callable[..., Any]
) -> None:
    connections.install()
    # Otherwise, where one has to wait for its turn just before its commit, another one would not wait for it.
    sql.rows("ALTER FUNCTION hubspot.request_refresh SET lock_timeout = '60s'")
    askers = [SqlFixture(connect()) for _ in range(10)]
    answers = at_once([lambda sql=sql: request(sql, ACCESS) for sql in askers])
    assert sorted(answers) == [False] * 9 + [True]


def test_a_request_does_not_wait_for_a_locked_row_and_does_not_apply_to_the_token_that_follows(
    connections: ConnectionFixture, sql: SqlFixture, connect: Callable[..., Any]
) -> None:
    connections.install()
    connections.install(2)
    with open_transaction(connect) as save:
        save.rows(
            "UPDATE tokenkeeper.connections SET access_token = 'newer', refreshed_at = now() WHERE hub_id = %s", HUB
        )
        assert request(sql, ACCESS) is True
        assert request(sql, hub_id=2) is True
        assert request_as_operator(connections) is RefreshRequestOutcome.ASKED
        connections.stores.refresh_requests.apply()
        assert due_hub_ids(sql) == [2], "the other request is applied"
        assert count_stored(sql) == 2
        save.rows("COMMIT")
    connections.stores.refresh_requests.apply()
    assert (due_hub_ids(sql), count_stored(sql)) == ([2], 0)


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_request_in_an_open_transaction_makes_no_other_one_wait_for_long_and_none_is_lost(
    connections: ConnectionFixture, sql: SqlFixture, connect: Callable[..., Any], end: str
) -> None:
    connections.install()
    with open_transaction(connect) as job:
        assert request(job, ACCESS) is True
        assert request(job, ACCESS) is False
        askers = [SqlFixture(connect()) for _ in range(5)]
        answers = at_once([lambda sql=sql: request(sql, ACCESS) for sql in askers])
        stored = count_stored(sql)  # one, or more where one of them waited for too long for another one's commit
        assert stored > 0
        assert sorted(answers) == [False] * (5 - stored) + [True] * stored
        connections.stores.refresh_requests.apply()
        (claimed,) = connections.stores.claims.claim(1).rows
        connections.stores.results.save([connections.make_success(claimed)])
        job.rows(end)
    connections.stores.refresh_requests.apply()
    assert connections.stores.claims.count_due(1) == 0, "one refresh for the token that was served"
    assert count_stored(sql) == 0


def test_open_requests_for_the_same_token_cost_one_refresh_and_a_bounded_number_of_rows(
    connections: ConnectionFixture, sql: SqlFixture, connect: Callable[..., Any]
) -> None:
    connections.install()
    with ExitStack() as stack:
        jobs = [stack.enter_context(open_transaction(connect)) for _ in range(4)]
        assert [request(job, ACCESS) for job in jobs * 3] == [True] * 4 + [False] * 8
        for job in jobs:
            job.rows("COMMIT")
    assert count_stored(sql) == 4
    connections.stores.refresh_requests.apply()
    connections.stores.results.save([connections.make_success(connections.claim_one())])
    assert (connections.stores.claims.count_due(1), count_stored(sql)) == (0, 0)


def test_a_request_in_a_repeatable_snapshot_gets_an_answer(
    connections: ConnectionFixture, sql: SqlFixture, connect: Callable[..., Any]
) -> None:
    connections.install()
    with open_transaction(connect, "REPEATABLE READ") as job:
        job.rows("SELECT FROM hubspot.tokens")
        assert request(sql, ACCESS) is True
        assert request(job, ACCESS) is False


def test_of_requests_for_tokens_that_came_by_a_request_each_waits_for_a_sixtieth_of_the_lifetime(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    for number, waits_seconds in enumerate([0, 30, 30]):
        assert request(sql) is True
        connections.stores.refresh_requests.apply()
        due_after = sql.value("SELECT extract(epoch FROM due_at - refreshed_at) FROM tokenkeeper.connections")
        assert due_after == waits_seconds or (number == 0 and connections.stores.claims.count_due(1) == 1)
        assert connections.stores.claims.count_due(1) == (number == 0)
        connections.stores.results.save([connections.make_success(connections.claim_one(), f"token-{number}")])
    sql.set("requested_refresh_at = requested_refresh_at - interval '30 seconds'")
    assert request(sql) is True
    connections.stores.refresh_requests.apply()
    assert connections.stores.claims.count_due(1) == 1


def test_a_date_of_the_last_requested_refresh_in_the_future_delays_no_request_for_longer(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    sql.set("requested_refresh_at = now() + interval '1 hour'")
    assert request(sql) is True
    connections.stores.refresh_requests.apply()
    assert sql.value(
        "SELECT due_at BETWEEN now() + interval '1 s' AND now() + interval '30 s' FROM tokenkeeper.connections"
    )


def test_an_operators_request_for_several_hubs_reports_each(connections: ConnectionFixture, sql: SqlFixture) -> None:
    for hub_id in range(1, 6):
        connections.install(hub_id)
    claimed = connections.claim_one(2)
    sql.set("status = 'disconnected', due_at = NULL", 3)
    sql.set("status = 'revoked', due_at = NULL, access_token = NULL, expires_at = NULL", 4)
    sql.set("due_at = now()", 5)
    ids = [connections.id_of(hub_id) for hub_id in range(1, 6)]
    outcomes = connections.stores.refresh_requests.request([*ids, 404])
    assert list(outcomes) == [*ids, 404]
    assert list(outcomes.values()) == [
        RefreshRequestOutcome.ASKED,
        RefreshRequestOutcome.IN_FLIGHT,
        RefreshRequestOutcome.DISCONNECTED,
        RefreshRequestOutcome.ASKED,
        RefreshRequestOutcome.ALREADY_DUE,
        RefreshRequestOutcome.UNKNOWN,
    ]
    connections.stores.refresh_requests.apply()
    assert {row.connection.identity.hub_id for row in connections.stores.claims.claim(10).rows} == {1, 4, 5}
    assert claimed.connection.identity.hub_id == 2
    assert connections.stores.refresh_requests.request([]) == {}


def test_an_operators_request_is_stored_once_and_may_not_be_applied_to_a_newer_token(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    requests = connections.stores.refresh_requests
    assert request_as_operator(connections) is RefreshRequestOutcome.ASKED
    assert request_as_operator(connections) is RefreshRequestOutcome.ALREADY_DUE
    assert count_stored(sql) == 1
    connections.install(access_token="newer")
    requests.apply()
    assert (connections.stores.claims.count_due(1), count_stored(sql)) == (0, 0)


def test_an_operator_may_request_a_refresh_again_after_a_failure(connections: ConnectionFixture) -> None:
    connections.install()
    assert request_as_operator(connections) is RefreshRequestOutcome.ASKED
    connections.stores.refresh_requests.apply()
    connections.stores.results.save([connections.make_failure(connections.claim_one())])
    assert request_as_operator(connections) is RefreshRequestOutcome.ASKED


def test_a_revoked_connection_that_is_refreshed_on_request_is_active(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    connections.stores.results.save([connections.make_revocation(connections.claim_one())])
    assert request_as_operator(connections) is RefreshRequestOutcome.ASKED
    connections.stores.refresh_requests.apply()
    (claimed,) = connections.stores.claims.claim(1).rows
    assert sql.row()["status"] == "revoked"
    connections.stores.results.save([connections.make_success(claimed)])
    assert sql.row()["status"] == "active"
    assert sql.events()[-1] == "recovered"
    assert sql.read_served_token() == "new-access"


def test_a_revoked_connection_that_is_refused_again_can_be_requested_again(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    connections.stores.results.save([connections.make_revocation(connections.claim_one())])
    request_as_operator(connections)
    connections.stores.refresh_requests.apply()
    (claimed,) = connections.stores.claims.claim(1).rows
    connections.stores.results.save([connections.make_revocation(claimed)])
    assert sql.row()["status"] == "revoked"
    assert request_as_operator(connections) is RefreshRequestOutcome.ASKED
