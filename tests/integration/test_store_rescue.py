"""HubSpot rotated a refresh token, and the result came after somebody else had claimed the row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.db.leases import Claimed, Result
from shared.domain import connection as rules
from shared.domain.errors import GrantDead
from tests.builders import HUB
from tests.integration.store_rig import Sql, Town

GONE = "lease_until = now() - interval '1 millisecond'"


@pytest.fixture
def late(town: Town, sql: Sql) -> Result:
    """A success of a lease that is over; its refresh token is a new one."""
    town.due(HUB)
    result = town.refreshed(town.claim_one(), "late")
    sql.set(GONE)
    return replace(result, sealed_refresh_token="sealed-new")


def dead(town: Town, claimed: Claimed) -> Result:
    """What HubSpot says of the old refresh token."""
    error = GrantDead("BAD_REFRESH_TOKEN", http_status=400)
    return Result(claimed.lease, rules.failed(claimed.connection, error, town.store.clock.now()))


def test_it_is_kept_and_the_verdict_on_the_old_one_does_not_count(town: Town, sql: Sql, late: Result) -> None:
    second = town.claim_one()
    landed = town.store.save([late])
    assert (set(landed), landed.rescued) == (set(), {HUB})
    assert sql.row()["sealed_refresh_token"] == "sealed-new"
    assert sql.served() == "late"
    assert town.store.claim(1).rows == [], "the second one is still in flight"
    assert town.store.save([town.revoked(second)]) == set()
    assert sql.row()["status"] == "active"
    sql.set(GONE)
    (third,) = town.store.claim(1).rows
    assert third.sealed_refresh_token == "sealed-new"


def test_it_is_kept_where_one_process_holds_both_results(town: Town, sql: Sql, late: Result) -> None:
    second = town.claim_one()
    landed = town.store.save([late, town.revoked(second)])
    assert (set(landed), landed.rescued, landed.of([late])) == (set(), {HUB}, [])
    assert (sql.row()["status"], sql.row()["sealed_refresh_token"], sql.served()) == ("active", "sealed-new", "late")


def test_where_the_old_one_made_it_suspect_or_revoked_the_new_one_is_tried(town: Town, sql: Sql, late: Result) -> None:
    assert town.store.save([town.revoked(town.claim_one())]) == {HUB}
    assert town.store.save([late]).rescued == {HUB}
    assert (sql.row()["status"], sql.served()) == ("revoked", None)
    (claimed,) = town.store.claim(1).rows
    assert claimed.sealed_refresh_token == "sealed-new"
    assert town.store.save([town.refreshed(claimed)]) == {HUB}
    assert (sql.row()["status"], sql.served()) == ("active", "new-access")
    assert sql.events()[-2:] == ["revoked", "recovered"]


def test_one_that_the_brake_holds_is_not_condemned_any_more(town: Town, sql: Sql, late: Result) -> None:
    assert town.store.save([dead(town, town.claim_one())]) == {HUB}
    sql.set("condemned = '{}'")
    assert town.store.save([late]).rescued == {HUB}
    assert (sql.row()["status"], sql.row()["condemned"], sql.served()) == ("suspect", None, "late")


def test_a_newer_grant_wins(town: Town, sql: Sql, late: Result) -> None:
    newer = replace(town.refreshed(town.claim_one(), "newer"), sealed_refresh_token="sealed-newer")
    assert town.store.save([newer]) == {HUB}
    assert town.store.save([late]).rescued == set()
    assert (sql.row()["sealed_refresh_token"], sql.served()) == ("sealed-newer", "newer")


def test_a_reinstall_wins(town: Town, sql: Sql, late: Result) -> None:
    town.install(HUB, access_token="installed-again", sealed_refresh_token="sealed-again")
    assert town.store.save([late]).rescued == set()
    assert (sql.row()["sealed_refresh_token"], sql.served()) == ("sealed-again", "installed-again")


def test_a_disconnect_wins(town: Town, sql: Sql, late: Result) -> None:
    assert town.store.disconnecting(HUB) is not None
    assert town.store.save([late]).rescued == set()
    town.store.wiped(HUB)
    assert (sql.row()["sealed_refresh_token"], sql.served()) == (None, None)


def test_where_hubspot_rotated_nothing_there_is_nothing_to_keep(town: Town, sql: Sql, late: Result) -> None:
    town.claim_one()
    assert town.store.save([replace(late, sealed_refresh_token=None)]).rescued == set()
    assert sql.served() == f"access-of-{HUB}"


def test_a_save_that_is_repeated_because_its_answer_was_lost_rescues_nothing(town: Town, sql: Sql) -> None:
    town.due(HUB)
    result = replace(town.refreshed(town.claim_one()), sealed_refresh_token="sealed-new")
    assert town.store.save([result]) == {HUB}
    number = sql.row()["lease_no"]
    landed = town.store.save([result])
    assert (set(landed), landed.rescued, sql.row()["lease_no"]) == (set(), set(), number)
