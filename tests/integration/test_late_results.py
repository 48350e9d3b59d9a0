"""HubSpot rotated a refresh token, and the result came after somebody else had claimed the row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.db.refresh.claims import ClaimedConnection, RefreshResult
from shared.domain import connection as rules
from shared.domain.errors import InvalidGrant
from tests.support.builders import HUB
from tests.support.stores import ConnectionFixture, SqlFixture

GONE = "lease_until = now() - interval '1 millisecond'"


@pytest.fixture
def late(connections: ConnectionFixture, sql: SqlFixture) -> RefreshResult:
    """A success of a lease that is over; its refresh token is a new one."""
    connections.due(HUB)
    result = connections.refreshed(connections.claim_one(), "late")
    sql.set(GONE)
    return replace(result, encrypted_refresh_token="sealed-new")


def dead(connections: ConnectionFixture, claimed: ClaimedConnection) -> RefreshResult:
    """What HubSpot says of the old refresh token."""
    error = InvalidGrant("BAD_REFRESH_TOKEN", http_status=400)
    return RefreshResult(
        claimed.lease, rules.apply_failure(claimed.connection, error, connections.stores.claims.clock.now())
    )


def test_it_is_kept_and_the_verdict_on_the_old_one_does_not_count(
    connections: ConnectionFixture, sql: SqlFixture, late: RefreshResult
) -> None:
    second = connections.claim_one()
    landed = connections.stores.results.save([late])
    assert (landed.saved, landed.rescued) == (set(), {HUB})
    assert sql.row()["encrypted_refresh_token"] == "sealed-new"
    assert sql.served() == "late"
    assert connections.stores.claims.claim(1).rows == [], "the second one is still in flight"
    assert connections.stores.results.save([connections.revoked(second)]).saved == set()
    assert sql.row()["status"] == "active"
    sql.set(GONE)
    (third,) = connections.stores.claims.claim(1).rows
    assert third.encrypted_refresh_token == "sealed-new"


def test_it_is_kept_where_one_process_holds_both_results(
    connections: ConnectionFixture, sql: SqlFixture, late: RefreshResult
) -> None:
    second = connections.claim_one()
    landed = connections.stores.results.save([late, connections.revoked(second)])
    assert (landed.saved, landed.rescued, landed.select_saved([late])) == (set(), {HUB}, [])
    assert (sql.row()["status"], sql.row()["encrypted_refresh_token"], sql.served()) == ("active", "sealed-new", "late")


def test_where_the_old_one_made_it_suspect_or_revoked_the_new_one_is_tried(
    connections: ConnectionFixture, sql: SqlFixture, late: RefreshResult
) -> None:
    assert connections.stores.results.save([connections.revoked(connections.claim_one())]).saved == {HUB}
    assert connections.stores.results.save([late]).rescued == {HUB}
    assert (sql.row()["status"], sql.served()) == ("revoked", None)
    (claimed,) = connections.stores.claims.claim(1).rows
    assert claimed.encrypted_refresh_token == "sealed-new"
    assert connections.stores.results.save([connections.refreshed(claimed)]).saved == {HUB}
    assert (sql.row()["status"], sql.served()) == ("active", "new-access")
    assert sql.events()[-2:] == ["revoked", "recovered"]


def test_one_that_the_brake_holds_is_not_condemned_any_more(
    connections: ConnectionFixture, sql: SqlFixture, late: RefreshResult
) -> None:
    assert connections.stores.results.save([dead(connections, connections.claim_one())]).saved == {HUB}
    sql.set("pending_revocation = '{}'")
    assert connections.stores.results.save([late]).rescued == {HUB}
    assert (sql.row()["status"], sql.row()["pending_revocation"], sql.served()) == ("suspect", None, "late")


def test_a_newer_grant_wins(connections: ConnectionFixture, sql: SqlFixture, late: RefreshResult) -> None:
    newer = replace(connections.refreshed(connections.claim_one(), "newer"), encrypted_refresh_token="sealed-newer")
    assert connections.stores.results.save([newer]).saved == {HUB}
    assert connections.stores.results.save([late]).rescued == set()
    assert (sql.row()["encrypted_refresh_token"], sql.served()) == ("sealed-newer", "newer")


def test_a_reinstall_wins(connections: ConnectionFixture, sql: SqlFixture, late: RefreshResult) -> None:
    connections.install(HUB, access_token="installed-again", encrypted_refresh_token="sealed-again")
    assert connections.stores.results.save([late]).rescued == set()
    assert (sql.row()["encrypted_refresh_token"], sql.served()) == ("sealed-again", "installed-again")


def test_a_disconnect_wins(connections: ConnectionFixture, sql: SqlFixture, late: RefreshResult) -> None:
    assert connections.stores.disconnects.mark_and_read_tokens(HUB) is not None
    assert connections.stores.results.save([late]).rescued == set()
    connections.stores.disconnects.wipe_tokens(HUB)
    assert (sql.row()["encrypted_refresh_token"], sql.served()) == (None, None)


def test_where_hubspot_rotated_nothing_there_is_nothing_to_keep(
    connections: ConnectionFixture, sql: SqlFixture, late: RefreshResult
) -> None:
    connections.claim_one()
    assert connections.stores.results.save([replace(late, encrypted_refresh_token=None)]).rescued == set()
    assert sql.served() == f"access-of-{HUB}"


def test_a_save_that_is_repeated_because_its_answer_was_lost_rescues_nothing(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.due(HUB)
    result = replace(connections.refreshed(connections.claim_one()), encrypted_refresh_token="sealed-new")
    assert connections.stores.results.save([result]).saved == {HUB}
    number = sql.row()["lease_number"]
    landed = connections.stores.results.save([result])
    assert (landed.saved, landed.rescued, sql.row()["lease_number"]) == (set(), set(), number)
