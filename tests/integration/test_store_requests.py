"""Every rule of `hubspot.request_refresh`, and of the operator's own request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.db.refresh.requests import RefreshRequestOutcome
from tests.support.builders import HUB
from tests.support.stores import ConnectionFixture, SqlFixture, at_once

ACCESS = f"access-of-{HUB}"


def asked(sql: SqlFixture, access_token: str | None = None, hub_id: int | None = HUB) -> bool:
    answer: bool = sql.value("SELECT hubspot.request_refresh(%s, %s)", hub_id, access_token)
    return answer


def test_a_request_makes_it_due_now_and_is_counted_once(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    assert connections.stores.claims.count_due(1) == 0
    assert asked(sql, ACCESS) is True
    assert connections.stores.claims.count_due(1) == 1
    assert asked(sql, ACCESS) is False
    assert asked(sql) is False


def test_the_token_may_be_left_out(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    assert sql.value("SELECT hubspot.request_refresh(%s)", HUB) is True
    assert connections.stores.claims.count_due(1) == 1


def test_who_holds_an_older_token_than_is_served_changes_nothing(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    before = sql.row()
    assert asked(sql, "an older one") is False
    assert sql.row() == before


def test_any_token_will_do_where_none_is_served(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    sql.set("expires_at = now() - interval '1 second'")
    assert asked(sql, "an older one") is True


@pytest.mark.parametrize("status", ["revoked", "disconnected"])
def test_what_has_ended_is_not_asked_for(connections: ConnectionFixture, sql: SqlFixture, status: str) -> None:
    connections.install()
    sql.set(f"status = '{status}', due_at = NULL, access_token = NULL, expires_at = NULL")
    assert asked(sql) is False
    assert connections.stores.claims.count_due(1) == 0


def test_nobodys_hub_and_no_hub_are_false(connections: ConnectionFixture, sql: SqlFixture) -> None:
    assert asked(sql, hub_id=404) is False
    assert asked(sql, hub_id=None) is False


def test_a_suspect_may_be_asked_for(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    sql.set("status = 'suspect'")
    assert asked(sql, ACCESS) is True


def test_in_flight_it_is_true_and_a_success_settles_it(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    claimed = connections.claim_one()
    assert asked(sql, ACCESS) is True
    assert asked(sql, ACCESS) is True
    assert connections.stores.claims.claim(1).rows == []
    connections.stores.results.save([connections.refreshed(claimed)])
    assert connections.stores.claims.count_due(1) == 0
    assert asked(sql, "new-access") is True, "the new token was never asked for"


def test_in_flight_of_a_dead_worker_it_ends_in_a_refresh(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    connections.claim_one()
    connections.install(access_token="reinstalled")
    assert connections.stores.claims.count_due(1) == 0
    assert asked(sql, "reinstalled") is True
    assert connections.stores.claims.claim(1).rows == [], "the lease of the one that is gone still stands"
    sql.set("lease_until = now()")
    assert len(connections.stores.claims.claim(1).rows) == 1


def test_a_failure_does_not_forget_that_it_was_asked_for(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    assert asked(sql) is True
    (claimed,) = connections.stores.claims.claim(1).rows
    connections.stores.results.save([connections.failed(claimed)])
    assert asked(sql) is False
    assert sql.value("SELECT due_at > now() FROM tokenkeeper.connections"), "its back-off stands"


def test_hubspots_retry_after_is_kept(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    sql.set("retry_not_before = now() + interval '1 hour', due_at = now() + interval '2 hours'")
    assert asked(sql) is True
    assert sql.value("SELECT due_at = retry_not_before FROM tokenkeeper.connections")


def test_what_is_overdue_keeps_its_place(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    sql.set("due_at = now() - interval '1 hour'")
    assert asked(sql) is True
    assert sql.value("SELECT due_at < now() - interval '59 minutes' FROM tokenkeeper.connections")


def test_of_many_who_ask_at_once_one_is_first(connections: ConnectionFixture, connect: Callable[..., Any]) -> None:
    connections.install()
    askers = [SqlFixture(connect()) for _ in range(8)]
    answers = at_once([lambda sql=sql: asked(sql, ACCESS) for sql in askers])
    assert sorted(answers) == [False] * 7 + [True]


def test_a_request_waits_for_the_save_that_is_under_way(
    connections: ConnectionFixture, sql: SqlFixture, connect: Callable[..., Any]
) -> None:
    """Whoever got a 401 with the old token while the new one is stored is told of the new one."""
    connections.install()
    other = connect()
    other.autocommit = False
    with other.cursor() as cursor:
        cursor.execute("UPDATE tokenkeeper.connections SET access_token = 'newer'")
        (answer,) = at_once([lambda: _while_committing(sql, other)])
    assert answer is False


def _while_committing(sql: SqlFixture, other: Any) -> bool:
    first, _ = at_once([lambda: asked(sql, ACCESS), other.commit])
    return bool(first)


def test_an_operator_asks_for_several_and_hears_of_each(connections: ConnectionFixture, sql: SqlFixture) -> None:
    for hub_id in range(1, 6):
        connections.install(hub_id)
    claimed = connections.claim_one(2)
    sql.set("status = 'disconnected', due_at = NULL", 3)
    sql.set("status = 'revoked', due_at = NULL, access_token = NULL, expires_at = NULL", 4)
    sql.set("due_at = now()", 5)
    assert connections.stores.refresh_requests.request([1, 2, 3, 4, 5, 404]) == {
        1: RefreshRequestOutcome.ASKED,
        2: RefreshRequestOutcome.IN_FLIGHT,
        3: RefreshRequestOutcome.DISCONNECTED,
        4: RefreshRequestOutcome.ASKED,
        5: RefreshRequestOutcome.ALREADY_DUE,
        404: RefreshRequestOutcome.UNKNOWN,
    }
    assert {row.connection.hub_id for row in connections.stores.claims.claim(10).rows} == {1, 4, 5}
    assert claimed.connection.hub_id == 2
    assert connections.stores.refresh_requests.request([]) == {}


def test_an_operator_may_ask_again_after_a_failure(connections: ConnectionFixture) -> None:
    connections.install()
    assert connections.stores.refresh_requests.request([HUB]) == {HUB: RefreshRequestOutcome.ASKED}
    connections.stores.results.save([connections.failed(connections.claim_one())])
    assert connections.stores.refresh_requests.request([HUB]) == {HUB: RefreshRequestOutcome.ASKED}


def test_a_revoked_one_that_hubspot_takes_back_is_active(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    connections.stores.results.save([connections.revoked(connections.claim_one())])
    assert connections.stores.refresh_requests.request([HUB]) == {HUB: RefreshRequestOutcome.ASKED}
    (claimed,) = connections.stores.claims.claim(1).rows
    assert sql.row()["status"] == "revoked"
    connections.stores.results.save([connections.refreshed(claimed)])
    assert sql.row()["status"] == "active"
    assert sql.events()[-1] == "recovered"
    assert sql.served() == "new-access"


def test_a_revoked_one_that_hubspot_refuses_again_can_be_asked_for_once_more(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    connections.stores.results.save([connections.revoked(connections.claim_one())])
    connections.stores.refresh_requests.request([HUB])
    (claimed,) = connections.stores.claims.claim(1).rows
    connections.stores.results.save([connections.revoked(claimed)])
    assert sql.row()["status"] == "revoked"
    assert connections.stores.refresh_requests.request([HUB]) == {HUB: RefreshRequestOutcome.ASKED}
