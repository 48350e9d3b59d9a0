"""Every rule of `hubspot.request_refresh`, and of the operator's own request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.db.operator import Requested
from tests.builders import HUB
from tests.integration.store_rig import Sql, Town, at_once

ACCESS = f"access-of-{HUB}"


def asked(sql: Sql, access_token: str | None = None, hub_id: int | None = HUB) -> bool:
    answer: bool = sql.value("SELECT hubspot.request_refresh(%s, %s)", hub_id, access_token)
    return answer


def test_a_request_makes_it_due_now_and_is_counted_once(town: Town, sql: Sql) -> None:
    town.install()
    assert town.store.due(1) == 0
    assert asked(sql, ACCESS) is True
    assert town.store.due(1) == 1
    assert asked(sql, ACCESS) is False
    assert asked(sql) is False


def test_the_token_may_be_left_out(town: Town, sql: Sql) -> None:
    town.install()
    assert sql.value("SELECT hubspot.request_refresh(%s)", HUB) is True
    assert town.store.due(1) == 1


def test_who_holds_an_older_token_than_is_served_changes_nothing(town: Town, sql: Sql) -> None:
    town.install()
    before = sql.row()
    assert asked(sql, "an older one") is False
    assert sql.row() == before


def test_any_token_will_do_where_none_is_served(town: Town, sql: Sql) -> None:
    town.install()
    sql.set("expires_at = now() - interval '1 second'")
    assert asked(sql, "an older one") is True


@pytest.mark.parametrize("status", ["revoked", "disconnected"])
def test_what_has_ended_is_not_asked_for(town: Town, sql: Sql, status: str) -> None:
    town.install()
    sql.set(f"status = '{status}', due_at = NULL, access_token = NULL, expires_at = NULL")
    assert asked(sql) is False
    assert town.store.due(1) == 0


def test_nobodys_hub_and_no_hub_are_false(town: Town, sql: Sql) -> None:
    assert asked(sql, hub_id=404) is False
    assert asked(sql, hub_id=None) is False


def test_a_suspect_may_be_asked_for(town: Town, sql: Sql) -> None:
    town.install()
    sql.set("status = 'suspect'")
    assert asked(sql, ACCESS) is True


def test_in_flight_it_is_true_and_a_success_settles_it(town: Town, sql: Sql) -> None:
    town.install()
    claimed = town.claim_one()
    assert asked(sql, ACCESS) is True
    assert asked(sql, ACCESS) is True
    assert town.store.claim(1).rows == []
    town.store.save([town.refreshed(claimed)])
    assert town.store.due(1) == 0
    assert asked(sql, "new-access") is True, "the new token was never asked for"


def test_in_flight_of_a_dead_worker_it_ends_in_a_refresh(town: Town, sql: Sql) -> None:
    town.install()
    town.claim_one()
    town.install(access_token="reinstalled")
    assert town.store.due(1) == 0
    assert asked(sql, "reinstalled") is True
    assert town.store.claim(1).rows == [], "the lease of the one that is gone still stands"
    sql.set("lease_until = now()")
    assert len(town.store.claim(1).rows) == 1


def test_a_failure_does_not_forget_that_it_was_asked_for(town: Town, sql: Sql) -> None:
    town.install()
    assert asked(sql) is True
    (claimed,) = town.store.claim(1).rows
    town.store.save([town.failed(claimed)])
    assert asked(sql) is False
    assert sql.value("SELECT due_at > now() FROM tokenkeeper.connections"), "its back-off stands"


def test_hubspots_retry_after_is_kept(town: Town, sql: Sql) -> None:
    town.install()
    sql.set("not_before = now() + interval '1 hour', due_at = now() + interval '2 hours'")
    assert asked(sql) is True
    assert sql.value("SELECT due_at = not_before FROM tokenkeeper.connections")


def test_what_is_overdue_keeps_its_place(town: Town, sql: Sql) -> None:
    town.install()
    sql.set("due_at = now() - interval '1 hour'")
    assert asked(sql) is True
    assert sql.value("SELECT due_at < now() - interval '59 minutes' FROM tokenkeeper.connections")


def test_of_many_who_ask_at_once_one_is_first(town: Town, connect: Callable[..., Any]) -> None:
    town.install()
    askers = [Sql(connect()) for _ in range(8)]
    answers = at_once([lambda sql=sql: asked(sql, ACCESS) for sql in askers])
    assert sorted(answers) == [False] * 7 + [True]


def test_a_request_waits_for_the_save_that_is_under_way(town: Town, sql: Sql, connect: Callable[..., Any]) -> None:
    """Whoever got a 401 with the old token while the new one is stored is told of the new one."""
    town.install()
    other = connect()
    other.autocommit = False
    with other.cursor() as cursor:
        cursor.execute("UPDATE tokenkeeper.connections SET access_token = 'newer'")
        (answer,) = at_once([lambda: _while_committing(sql, other)])
    assert answer is False


def _while_committing(sql: Sql, other: Any) -> bool:
    first, _ = at_once([lambda: asked(sql, ACCESS), other.commit])
    return bool(first)


def test_an_operator_asks_for_several_and_hears_of_each(town: Town, sql: Sql) -> None:
    for hub_id in range(1, 6):
        town.install(hub_id)
    claimed = town.claim_one(2)
    sql.set("status = 'disconnected', due_at = NULL", 3)
    sql.set("status = 'revoked', due_at = NULL, access_token = NULL, expires_at = NULL", 4)
    sql.set("due_at = now()", 5)
    assert town.store.request([1, 2, 3, 4, 5, 404]) == {
        1: Requested.ASKED,
        2: Requested.IN_FLIGHT,
        3: Requested.DISCONNECTED,
        4: Requested.ASKED,
        5: Requested.ALREADY_DUE,
        404: Requested.UNKNOWN,
    }
    assert {row.connection.hub_id for row in town.store.claim(10).rows} == {1, 4, 5}
    assert claimed.connection.hub_id == 2
    assert town.store.request([]) == {}


def test_an_operator_may_ask_again_after_a_failure(town: Town) -> None:
    town.install()
    assert town.store.request([HUB]) == {HUB: Requested.ASKED}
    town.store.save([town.failed(town.claim_one())])
    assert town.store.request([HUB]) == {HUB: Requested.ASKED}


def test_a_revoked_one_that_hubspot_takes_back_is_active(town: Town, sql: Sql) -> None:
    town.install()
    town.store.save([town.revoked(town.claim_one())])
    assert town.store.request([HUB]) == {HUB: Requested.ASKED}
    (claimed,) = town.store.claim(1).rows
    assert sql.row()["status"] == "revoked"
    town.store.save([town.refreshed(claimed)])
    assert sql.row()["status"] == "active"
    assert sql.events()[-1] == "recovered"
    assert sql.served() == "new-access"


def test_a_revoked_one_that_hubspot_refuses_again_can_be_asked_for_once_more(town: Town, sql: Sql) -> None:
    town.install()
    town.store.save([town.revoked(town.claim_one())])
    town.store.request([HUB])
    (claimed,) = town.store.claim(1).rows
    town.store.save([town.revoked(claimed)])
    assert sql.row()["status"] == "revoked"
    assert town.store.request([HUB]) == {HUB: Requested.ASKED}
