"""HubSpot rotated a refresh token, and the result comes after another worker has claimed the row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.db.refresh.leases import ClaimedConnection, RefreshResult
from shared.domain import connection as rules
from shared.domain.errors import InvalidGrant, NoAccessToken
from tests.support.builders import HUB
from tests.support.stores import ConnectionFixture, SqlFixture

END_LEASE = "lease_until = now() - interval '1 millisecond'"


@pytest.fixture
def late(connections: ConnectionFixture, sql: SqlFixture) -> RefreshResult:
    """A success with a new refresh token, of a lease that is over."""
    connections.install_due(HUB)
    result = connections.make_success(connections.claim_one(), "late")
    sql.set(END_LEASE)
    return replace(result, encrypted_refresh_token="encrypted-new")


def refuse_old_token(connections: ConnectionFixture, claimed: ClaimedConnection) -> RefreshResult:
    """The result of a refresh with the old token, which HubSpot rejects."""
    error = InvalidGrant("BAD_REFRESH_TOKEN", http_status=400)
    return RefreshResult(
        claimed.lease, rules.apply_failure(claimed.connection, error, connections.stores.claims.clock.now())
    )


def test_a_late_rotated_token_is_kept_and_the_refusal_of_the_old_one_is_not_saved(
    connections: ConnectionFixture, sql: SqlFixture, late: RefreshResult
) -> None:
    second = connections.claim_one()
    outcome = connections.stores.results.save([late])
    assert (outcome.saved, outcome.rescued) == (set(), connections.ids(HUB))
    assert sql.row()["encrypted_refresh_token"] == "encrypted-new"
    assert sql.read_served_token() == "late"
    assert connections.stores.claims.claim(1).rows == [], "the second refresh is still in flight"
    assert connections.stores.results.save([connections.make_revocation(second)]).saved == set()
    assert sql.row()["status"] == "active"
    sql.set(END_LEASE)
    (third,) = connections.stores.claims.claim(1).rows
    assert third.encrypted_refresh_token == "encrypted-new"


def test_a_late_rotated_token_is_kept_where_one_process_holds_both_results(
    connections: ConnectionFixture, sql: SqlFixture, late: RefreshResult
) -> None:
    second = connections.claim_one()
    outcome = connections.stores.results.save([late, connections.make_revocation(second)])
    assert (outcome.saved, outcome.rescued, outcome.select_saved([late])) == (set(), connections.ids(HUB), [])
    assert (sql.row()["status"], sql.row()["encrypted_refresh_token"], sql.read_served_token()) == (
        "active",
        "encrypted-new",
        "late",
    )


def test_a_late_rotated_token_of_a_connection_revoked_meanwhile_is_tried(
    connections: ConnectionFixture, sql: SqlFixture, late: RefreshResult
) -> None:
    assert connections.stores.results.save(
        [connections.make_revocation(connections.claim_one())]
    ).saved == connections.ids(HUB)
    assert connections.stores.results.save([late]).rescued == connections.ids(HUB)
    assert (sql.row()["status"], sql.read_served_token()) == ("revoked", None)
    (claimed,) = connections.stores.claims.claim(1).rows
    assert claimed.encrypted_refresh_token == "encrypted-new"
    assert connections.stores.results.save([connections.make_success(claimed)]).saved == connections.ids(HUB)
    assert (sql.row()["status"], sql.read_served_token()) == ("active", "new-access")
    assert sql.events()[-2:] == ["revoked", "recovered"]


def test_a_late_rotated_token_clears_a_revocation_that_the_brake_holds(
    connections: ConnectionFixture, sql: SqlFixture, late: RefreshResult
) -> None:
    assert connections.stores.results.save(
        [refuse_old_token(connections, connections.claim_one())]
    ).saved == connections.ids(HUB)
    sql.set("pending_revocation = '{}'")
    assert connections.stores.results.save([late]).rescued == connections.ids(HUB)
    assert (sql.row()["status"], sql.row()["pending_revocation"], sql.read_served_token()) == ("suspect", None, "late")


def test_a_newer_grant_wins_over_a_late_rotated_token(
    connections: ConnectionFixture, sql: SqlFixture, late: RefreshResult
) -> None:
    newer = replace(
        connections.make_success(connections.claim_one(), "newer"), encrypted_refresh_token="encrypted-newer"
    )
    assert connections.stores.results.save([newer]).saved == connections.ids(HUB)
    assert connections.stores.results.save([late]).rescued == set()
    assert (sql.row()["encrypted_refresh_token"], sql.read_served_token()) == ("encrypted-newer", "newer")


def test_a_reinstall_wins_over_a_late_rotated_token(
    connections: ConnectionFixture, sql: SqlFixture, late: RefreshResult
) -> None:
    connections.install(HUB, access_token="installed-again", encrypted_refresh_token="encrypted-again")
    assert connections.stores.results.save([late]).rescued == set()
    assert (sql.row()["encrypted_refresh_token"], sql.read_served_token()) == ("encrypted-again", "installed-again")


def test_a_disconnect_wins_over_a_late_rotated_token(
    connections: ConnectionFixture, sql: SqlFixture, late: RefreshResult
) -> None:
    tokens = connections.stores.disconnects.mark_and_read_tokens(connections.id_of(HUB))
    assert tokens is not None
    assert connections.stores.results.save([late]).rescued == set()
    connections.stores.disconnects.wipe_tokens(connections.id_of(HUB), tokens.generation)
    assert (sql.row()["encrypted_refresh_token"], sql.read_served_token()) == (None, None)


def make_failure_with_rotated_token(connections: ConnectionFixture, claimed: ClaimedConnection) -> RefreshResult:
    """HubSpot rotated the refresh token, and sent no usable access token with it."""
    now = connections.stores.claims.clock.now()
    error = NoAccessToken("no_grant", refresh_token="new", http_status=200)
    return RefreshResult(claimed.lease, rules.apply_failure(claimed.connection, error, now), "encrypted-new", now)


def test_a_rotated_token_without_an_access_token_is_saved_and_the_old_access_token_is_served_on(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install(ago=5)
    result = make_failure_with_rotated_token(connections, connections.claim_one())
    assert connections.stores.results.save([result]).saved == connections.ids(HUB)
    row = sql.row()
    assert (row["encrypted_refresh_token"], row["failures"]) == ("encrypted-new", 1)
    assert sql.read_served_token() == f"access-of-{HUB}"
    assert connections.stores.results.save([result]).rescued == set(), "an answer of PostgreSQL that was lost"
    assert sql.events() == ["installed", "refresh_failed"]


def test_a_late_rotated_token_without_an_access_token_is_kept_and_due(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install(ago=5)
    late = make_failure_with_rotated_token(connections, connections.claim_one())
    sql.set(END_LEASE)
    second = connections.claim_one()
    assert connections.stores.results.save([late]).rescued == connections.ids(HUB)
    assert connections.stores.results.save([connections.make_revocation(second)]).saved == set()
    assert (sql.row()["encrypted_refresh_token"], sql.read_served_token()) == ("encrypted-new", f"access-of-{HUB}")
    assert sql.value("SELECT due_at <= now() FROM tokenkeeper.connections")


def test_a_rotated_token_without_an_access_token_is_kept_where_an_operator_has_decided_meanwhile(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    """The failure is not saved: an old failure must not change the status back."""
    connections.install(ago=5)
    result = make_failure_with_rotated_token(connections, connections.claim_one())
    sql.set("status = 'revoked', access_token = NULL, expires_at = NULL")
    outcome = connections.stores.results.save([result])
    assert (outcome.saved, outcome.rescued) == (set(), connections.ids(HUB))
    assert (sql.row()["status"], sql.row()["encrypted_refresh_token"]) == ("revoked", "encrypted-new")
    assert sql.value("SELECT due_at <= now() FROM tokenkeeper.connections")


def test_a_late_result_without_a_new_refresh_token_changes_nothing(
    connections: ConnectionFixture, sql: SqlFixture, late: RefreshResult
) -> None:
    connections.claim_one()
    assert connections.stores.results.save([replace(late, encrypted_refresh_token=None)]).rescued == set()
    assert sql.read_served_token() == f"access-of-{HUB}"


def test_a_save_repeated_because_its_answer_was_lost_rescues_nothing(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install_due(HUB)
    result = replace(connections.make_success(connections.claim_one()), encrypted_refresh_token="encrypted-new")
    assert connections.stores.results.save([result]).saved == connections.ids(HUB)
    number = sql.row()["lease_number"]
    outcome = connections.stores.results.save([result])
    assert (outcome.saved, outcome.rescued, sql.row()["lease_number"]) == (set(), set(), number)
