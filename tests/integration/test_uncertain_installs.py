"""Two installs whose dates do not tell which is the newer one: neither is lost, and HubSpot decides."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.db.lifecycle.installs import InstallOutcome
from tests.support.builders import HUB
from tests.support.stores import ConnectionFixture, SqlFixture

#: The clock of its host is four minutes behind.
BEHIND = {"ago": 240, "is_dated_by_host": True}


def install_two(connections: ConnectionFixture) -> None:
    """The second arrives later, with the earlier date."""
    connections.install(access_token="first", encrypted_refresh_token="of-first")
    result = connections.install(access_token="second", encrypted_refresh_token="of-second", **BEHIND)
    assert result.outcome is InstallOutcome.REINSTALLED


def refuse(connections: ConnectionFixture) -> None:
    (claimed,) = connections.stores.claims.claim(1).rows
    connections.stores.results.save([connections.make_revocation(claimed)])


def test_the_install_that_arrives_later_is_served_and_the_other_takes_over_where_hubspot_rejects_it(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    install_two(connections)
    assert sql.read_served_token() == "second"
    refuse(connections)
    row = sql.row()
    assert (row["status"], row["encrypted_refresh_token"]) == ("active", "of-first")
    (claimed,) = connections.stores.claims.claim(1).rows
    assert connections.stores.results.save([connections.make_success(claimed)]).saved == connections.ids(HUB)
    assert sql.events() == ["installed", "reinstalled"]


def test_a_connection_is_revoked_once_hubspot_has_rejected_both(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    install_two(connections)
    refuse(connections)
    refuse(connections)
    assert sql.row()["status"] == "revoked"


def test_a_refresh_token_that_was_rotated_after_the_grant_takes_over_where_hubspot_rejects_that_of_a_late_install(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install(encrypted_refresh_token="of-both-installs", ago=240)
    rotated = replace(connections.make_success(connections.claim_one()), encrypted_refresh_token="rotated")
    connections.stores.results.save([rotated])
    connections.install(encrypted_refresh_token="of-both-installs", ago=120)
    assert connections.install(ago=121).outcome is InstallOutcome.OLDER_THAN_STORED, "their order is certain"
    claimed = connections.claim_one()
    assert claimed.encrypted_refresh_token == "of-both-installs"
    connections.stores.results.save([connections.make_revocation(claimed)])
    row = sql.row()
    assert (row["status"], row["encrypted_refresh_token"]) == ("active", "rotated")


@pytest.mark.parametrize("has_worked", [True, False])
def test_the_other_grant_is_deleted_once_the_stored_one_has_worked(
    connections: ConnectionFixture, sql: SqlFixture, has_worked: bool
) -> None:
    install_two(connections)
    if has_worked:
        (claimed,) = connections.stores.claims.claim(1).rows
        connections.stores.results.save([connections.make_success(claimed)])
    connections.stores.prune()
    assert sql.value("SELECT count(*) FROM tokenkeeper.uncertain_installs") == (not has_worked)


@pytest.mark.parametrize(
    "second",
    [{"ago": 240}, {"ago": 660, "is_dated_by_host": True}],
    ids=["dated by PostgreSQL", "more than ten minutes older"],
)
def test_an_install_that_is_certainly_older_changes_nothing(
    connections: ConnectionFixture, sql: SqlFixture, second: dict[str, float]
) -> None:
    connections.install()
    before = sql.row()
    assert connections.install(**second).outcome is InstallOutcome.OLDER_THAN_STORED
    assert sql.row() == before
    assert sql.value("SELECT count(*) FROM tokenkeeper.uncertain_installs") == 0


def test_an_operators_disconnect_wins_over_an_uncertain_install(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install(ago=300)
    connections.stores.disconnects.mark_and_read_tokens(connections.id_of(HUB))
    assert connections.install(**BEHIND).outcome is InstallOutcome.DISCONNECTED_SINCE
    assert sql.row()["status"] == "disconnected"
