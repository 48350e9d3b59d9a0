"""Installs in any order, imports, account information and disconnects, on a real PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from typing import Any
from uuid import uuid4

import pytest

from shared.db.lifecycle.imports import ImportResult, ImportRow
from shared.db.lifecycle.installs import InstallOutcome
from shared.domain.account import AccountInfo
from shared.domain.connection import Status
from shared.domain.identity import DEFAULT_APP, ConnectionIdentity
from tests.support.builders import HUB
from tests.support.stores import ConnectionFixture, SqlFixture, at_once


def test_the_token_of_an_install_is_readable_at_once(connections: ConnectionFixture, sql: SqlFixture) -> None:
    install_id = str(uuid4())
    added = connections.install(install_id=install_id)
    assert (added.outcome, added.needs_account_info) == (InstallOutcome.INSTALLED, True)
    assert sql.read_served_token() == f"access-of-{HUB}"
    install = connections.stores.installs.find(install_id)
    assert install is not None
    assert (install.hub_id, install.status, install.hub_domain) == (HUB, Status.ACTIVE, None)
    assert connections.stores.installs.find(str(uuid4())) is None
    assert sql.events() == ["installed"]


def test_storing_an_install_again_changes_nothing(connections: ConnectionFixture, sql: SqlFixture) -> None:
    install_id, granted_at = str(uuid4()), sql.now()
    connections.install(install_id=install_id, granted_at=granted_at)
    connections.stores.results.save([connections.make_success(connections.claim_one())])
    connections.install()
    connections.stores.disconnect(HUB)
    before = sql.row()
    again = connections.install(install_id=install_id, granted_at=granted_at)
    assert again.outcome is InstallOutcome.ALREADY_STORED
    assert sql.row() == before


def test_installs_of_other_apps_and_users_of_one_hub_are_connections_of_their_own(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    identities = [("default", None), ("users", 1), ("users", 2), ("acme", None)]
    for app, user_id in identities:
        added = connections.install(app=app, user_id=user_id, access_token=f"{app}-{user_id}")
        assert added.outcome is InstallOutcome.INSTALLED
    again = connections.install(app="users", user_id=2, access_token="newer")
    assert again.outcome is InstallOutcome.REINSTALLED
    served = "SELECT app, user_id, access_token FROM hubspot.tokens WHERE hub_id = %s ORDER BY app, user_id"
    assert [tuple(row) for row in sql.rows(served, HUB)] == [
        ("acme", None, "acme-None"),
        ("default", None, "default-None"),
        ("users", 1, "users-1"),
        ("users", 2, "newer"),
    ]
    events = sql.rows("SELECT app, user_id, event FROM hubspot.history WHERE event = 'reinstalled'")
    assert [tuple(row) for row in events] == [("users", 2, "reinstalled")]


def test_an_install_without_an_id_is_identified_by_its_date(connections: ConnectionFixture, sql: SqlFixture) -> None:
    granted_at = sql.now()
    assert connections.install(install_id=None, granted_at=granted_at).outcome is InstallOutcome.INSTALLED
    assert connections.install(install_id=None, granted_at=granted_at).outcome is InstallOutcome.ALREADY_STORED
    assert connections.install(install_id=None).outcome is InstallOutcome.REINSTALLED


@pytest.mark.parametrize("order", list(permutations((30, 20, 10))))
def test_the_newest_grant_wins_in_any_order_of_delivery(
    connections: ConnectionFixture, sql: SqlFixture, order: tuple[int, ...]
) -> None:
    base = sql.now()
    for ago in order:
        connections.install(
            granted_at=base - timedelta(seconds=ago),
            encrypted_refresh_token=f"encrypted-{ago}",
            access_token=f"access-{ago}",
        )
    assert sql.read_served_token() == "access-10"
    assert sql.row()["encrypted_refresh_token"] == "encrypted-10"


def test_an_install_dated_in_the_future_counts_as_now(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install(ago=-3600, access_token="from-the-future")
    assert sql.value("SELECT installed_at <= clock_timestamp() FROM hubspot.connections")
    assert sql.value("SELECT expires_in <= 1800 FROM hubspot.tokens")
    assert connections.install(access_token="from-today").outcome is InstallOutcome.REINSTALLED
    assert sql.read_served_token() == "from-today"


def test_a_reinstall_resets_the_connection_but_not_its_lease(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    connections.stores.results.save([connections.make_failure(connections.claim_one())])
    sql.set("refresh_requested = true, retry_not_before = now() + interval '1 hour'")
    claimed = connections.claim_one()
    added = connections.install(scopes=("oauth",), access_token="new", encrypted_refresh_token="encrypted-new")
    row = sql.row()
    assert added.outcome is InstallOutcome.REINSTALLED
    assert row["generation"] > claimed.lease.generation
    assert (row["failures"], row["last_error"], row["retry_not_before"]) == (0, None, None)
    assert (row["refresh_requested"], row["encrypted_refresh_token"]) == (False, "encrypted-new")
    assert row["lease_number"] == claimed.lease.number
    assert row["lease_until"] is not None
    assert row["account_info_due_at"] is not None
    assert sql.events() == ["installed", "refresh_failed", "reinstalled", "scopes_changed"]


@pytest.mark.parametrize("status", ["suspect", "revoked", "disconnected"])
def test_an_install_makes_a_revoked_or_disconnected_connection_active(
    connections: ConnectionFixture, sql: SqlFixture, status: str
) -> None:
    connections.install(ago=10)
    sql.set(f"status = '{status}', due_at = NULL, access_token = NULL, expires_at = NULL, status_reason = 'so'")
    assert connections.install(access_token="new").outcome is InstallOutcome.REINSTALLED
    row = sql.row()
    assert (row["status"], row["status_reason"]) == ("active", None)
    assert row["due_at"] is not None
    assert sql.read_served_token() == "new"
    detail = sql.value("SELECT detail FROM hubspot.history WHERE event = 'reinstalled'")
    assert detail == {"was": status}


def test_an_install_older_than_the_disconnect_does_not_undo_it(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install(ago=60)
    late = sql.now()
    connections.stores.disconnect(HUB)
    install_id = str(uuid4())
    assert connections.install(granted_at=late, install_id=install_id).outcome is InstallOutcome.DISCONNECTED_SINCE
    assert sql.row()["status"] == "disconnected"
    install = connections.stores.installs.find(install_id)
    assert install is not None, "the waiting page shows how it ended"
    assert install.status is Status.DISCONNECTED
    assert connections.install().outcome is InstallOutcome.REINSTALLED


def test_an_install_without_an_access_token_keeps_the_stored_one_and_is_due_at_once(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install(ago=5)
    connections.install(access_token=None, expires_in=None, scopes=None, encrypted_refresh_token="encrypted-cookie")
    row = sql.row()
    assert sql.read_served_token() == f"access-of-{HUB}"
    assert row["encrypted_refresh_token"] == "encrypted-cookie"
    assert row["scopes"] == ["oauth", "crm.objects.contacts.read"]
    assert connections.stores.claims.count_due(10) == 1


def test_an_install_whose_access_token_has_expired_is_due_at_once(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install(ago=2000)
    assert sql.read_served_token() is None
    assert sql.row()["access_token"] is None
    (claimed,) = connections.stores.claims.claim(1).rows
    connections.stores.results.save([connections.make_success(claimed)])
    assert sql.read_served_token() == "new-access"


def test_an_install_after_a_disconnect_does_not_serve_the_old_token(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install(ago=5)
    connections.stores.disconnects.mark_and_read_tokens(connections.id_of(HUB))
    connections.install(access_token=None, expires_in=None)
    assert sql.row()["status"] == "active"
    assert sql.read_served_token() is None


def test_of_concurrent_installs_of_a_hub_the_newest_is_stored(connections: ConnectionFixture, sql: SqlFixture) -> None:
    base = sql.now() - timedelta(seconds=100)
    calls = [
        lambda n=n: connections.install(granted_at=base + timedelta(seconds=n), access_token=f"a-{n}") for n in range(8)
    ]
    became = [added.outcome for added in at_once(calls)]
    assert became.count(InstallOutcome.INSTALLED) == 1
    assert sql.read_served_token() == "a-7"


def test_an_install_that_is_delivered_concurrently_is_stored_once(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    install_id, granted_at = str(uuid4()), sql.now()
    became = [
        a.outcome for a in at_once([lambda: connections.install(install_id=install_id, granted_at=granted_at)] * 6)
    ]
    assert sorted(became) == [InstallOutcome.ALREADY_STORED] * 5 + [InstallOutcome.INSTALLED]
    assert sql.events() == ["installed"]


def identify(hub_id: int) -> ConnectionIdentity:
    return ConnectionIdentity(DEFAULT_APP, hub_id)


def test_an_import_of_several_apps_and_users_keeps_customers_that_are_known(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    rows = [
        ImportRow(HUB, "of-the-app", customer="acme"),
        ImportRow(HUB, "of-user-7", app="personal", user_id=7),
        ImportRow(HUB, "of-user-8", app="personal", user_id=8),
    ]
    assert len(connections.stores.imports.import_rows(rows).new) == 3
    again = [replace(row, encrypted_refresh_token="other", customer="later", may_replace=True) for row in rows[:2]]
    assert connections.stores.imports.import_rows(again).replaced == {row.identity for row in again}
    stored = "SELECT app, user_id, customer, encrypted_refresh_token FROM tokenkeeper.connections ORDER BY 1, 2"
    assert sql.rows(stored) == [
        ("default", None, "acme", "other"),
        ("personal", 7, "later", "other"),
        ("personal", 8, None, "of-user-8"),
    ]


def test_an_import_is_due_at_once_and_may_be_repeated(connections: ConnectionFixture, sql: SqlFixture) -> None:
    rows = [ImportRow(hub_id, f"encrypted-{hub_id}") for hub_id in (1, 2, 3, 2)]
    assert connections.stores.imports.import_rows(rows).new == set(map(identify, (1, 2, 3)))
    assert connections.stores.claims.count_due(10) == 3
    assert sql.read_served_token(1) is None
    before = sql.rows("SELECT * FROM tokenkeeper.connections ORDER BY hub_id")
    again = connections.stores.imports.import_rows(rows)
    assert again == ImportResult()
    assert sql.rows("SELECT * FROM tokenkeeper.connections ORDER BY hub_id") == before
    assert sql.events(1) == ["imported"]
    assert connections.stores.imports.import_rows([]) == ImportResult()


def test_an_import_replaces_only_a_revoked_connection_and_only_where_it_may(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    for hub_id in (1, 2, 3, 4):
        connections.install(hub_id)
    gone = "access_token = NULL, expires_at = NULL, due_at = NULL, status ="
    sql.set(f"{gone} 'revoked'", 1)
    sql.set(f"{gone} 'revoked'", 2)
    sql.set(f"{gone} 'disconnected', encrypted_refresh_token = NULL", 3)
    standing = connections.stores.imports.find_existing([*map(identify, (1, 2, 3, 4, 99))])
    assert {identity.hub_id: found.status.value for identity, found in standing.items()} == {
        1: "revoked",
        2: "revoked",
        3: "disconnected",
        4: "active",
    }
    assert standing[identify(1)].encrypted_refresh_token == "encrypted-of-1"
    imported = connections.stores.imports.import_rows(
        [ImportRow(1, "other", may_replace=True), ImportRow(2, "same")]
        + [ImportRow(hub_id, "other", may_replace=True) for hub_id in (3, 4)]
    )
    assert (imported.new, imported.replaced) == (frozenset(), {identify(1)})
    assert sql.rows("SELECT hub_id, status FROM hubspot.connections ORDER BY 1") == [
        (1, "active"),
        (2, "revoked"),
        (3, "disconnected"),
        (4, "active"),
    ]
    assert sql.row(4)["encrypted_refresh_token"] == "encrypted-of-4"
    assert sql.events(1) == ["installed", "imported"]


def test_an_import_replaces_a_token_that_never_worked(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.stores.imports.import_rows([ImportRow(1, "wrong"), ImportRow(2, "good")])
    wrong = connections.claim_one(1)
    connections.stores.results.save([connections.make_success(connections.claim_one(2))])
    existing = connections.stores.imports.find_existing([identify(1), identify(2)])
    assert (existing[identify(1)].is_replaceable, existing[identify(2)].is_replaceable) == (True, False)
    rows = [ImportRow(hub_id, "right", may_replace=True) for hub_id in (1, 2)]
    assert connections.stores.imports.import_rows(rows).replaced == {identify(1)}
    assert connections.stores.results.save([connections.make_revocation(wrong)]).saved == set(), (
        "the late answer speaks of the wrong token"
    )
    assert (sql.row(1)["status"], sql.row(1)["encrypted_refresh_token"]) == ("active", "right")
    assert sql.row(2)["encrypted_refresh_token"] == "good"
    assert sql.rows("SELECT detail FROM hubspot.history WHERE hub_id = 1 ORDER BY at") == [({},), ({"was": "active"},)]


def test_an_import_that_replaces_an_active_connection_is_no_change_of_status(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.stores.imports.import_rows([ImportRow(HUB, "wrong")])
    before = sql.row()["status_since"]
    connections.stores.imports.import_rows([ImportRow(HUB, "right", may_replace=True)])
    statuses = sql.rows("SELECT status FROM tokenkeeper.history WHERE hub_id = %s ORDER BY id", HUB)
    assert statuses == [("active",), (None,)]
    assert sql.row()["status_since"] == before


def test_an_import_stores_more_than_5000_rows_a_second(connections: ConnectionFixture) -> None:
    started_at = time.monotonic()
    for start in range(0, 20_000, 5_000):
        connections.stores.imports.import_rows([ImportRow(hub_id, "x" * 300) for hub_id in range(start, start + 5_000)])
    assert time.monotonic() - started_at < 20, "30,000 a second on an idle machine"


def test_a_trigger_counts_the_connections(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.import_due(50)
    connections.install(1)
    connections.install(999)
    assert sql.value("SELECT connections FROM tokenkeeper.connection_counts") == 51
    sql.rows("DELETE FROM tokenkeeper.connections WHERE hub_id <= 10")
    assert sql.value("SELECT connections FROM tokenkeeper.connection_counts") == 41


def test_account_info_is_due_with_the_first_token_and_again_until_it_is_saved(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.stores.imports.import_rows([ImportRow(HUB, "encrypted")])
    assert not connections.stores.account_info.any_missing()
    connections.stores.results.save([connections.make_success(connections.claim_one())])
    assert connections.stores.account_info.any_missing()
    assert claim_account_info(connections) == [(HUB, "new-access")]
    assert claim_account_info(connections) == []
    sql.set("account_info_due_at = account_info_due_at - interval '1 minute'")
    assert claim_account_info(connections) == [(HUB, "new-access")]
    connections.stores.save_account_info(HUB, "acme.example", "ada@acme.example")
    assert not connections.stores.account_info.any_missing()
    assert sql.rows("SELECT hub_domain, installed_by FROM hubspot.connections") == [
        ("acme.example", "ada@acme.example")
    ]


def claim_account_info(connections: ConnectionFixture) -> list[tuple[int, str]]:
    accounts, _ = connections.stores.account_info.claim_missing(10)
    return [(account.identity.hub_id, account.access_token) for account in accounts]


def test_account_info_is_due_again_after_a_reinstall_once_the_call_for_the_old_one_is_over(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install(ago=5)
    accounts, _ = connections.stores.account_info.claim_missing(10)
    connections.install(access_token="new")
    assert claim_account_info(connections) == [], "two calls for one account at once"
    connections.stores.account_info.save(accounts[0], AccountInfo("acme.example", "the one before"))
    assert sql.value("SELECT installed_by FROM hubspot.connections") is None
    assert claim_account_info(connections) == [(HUB, "new")]


def test_account_info_of_a_row_that_another_transaction_has_locked_is_left_for_later(
    connections: ConnectionFixture, sql: SqlFixture, connect: Callable[..., Any]
) -> None:
    connections.install()
    accounts, _ = connections.stores.account_info.claim_missing(10)
    other = connect()
    other.autocommit = False
    other.cursor().execute("SELECT FROM tokenkeeper.connections FOR UPDATE")
    connections.stores.account_info.save(accounts[0], AccountInfo("acme.example", None))
    other.rollback()
    assert sql.value("SELECT hub_domain FROM hubspot.connections") is None
    connections.stores.account_info.save(accounts[0], AccountInfo("acme.example", None))
    assert sql.value("SELECT hub_domain FROM hubspot.connections") == "acme.example"


def test_a_marked_disconnect_serves_no_token_and_keeps_it_until_it_is_wiped(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    secrets = connections.stores.disconnects.mark_and_read_tokens(connections.id_of(HUB))
    assert secrets is not None
    assert (secrets.encrypted_refresh_token, secrets.access_token) == (f"encrypted-of-{HUB}", f"access-of-{HUB}")
    assert "of" not in repr(secrets)
    assert sql.read_served_token() is None
    assert connections.stores.disconnects.mark_and_read_tokens(connections.id_of(HUB)) == secrets, (
        "a second attempt to finish it needs them again"
    )
    assert connections.stores.disconnects.wipe_tokens(connections.id_of(HUB), secrets.generation)
    row = sql.row()
    assert (row["status"], row["access_token"], row["encrypted_refresh_token"]) == ("disconnected", None, None)
    assert connections.stores.disconnects.mark_and_read_tokens(connections.id_of(HUB)) is None
    assert connections.stores.disconnects.mark_and_read_tokens(404) is None
    assert sql.events() == ["installed", "disconnected"]


def test_wiping_leaves_a_connection_that_was_installed_again_and_makes_it_due(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install(ago=5)
    tokens = connections.stores.disconnects.mark_and_read_tokens(connections.id_of(HUB))
    assert tokens is not None
    assert connections.stores.disconnects.is_current(connections.id_of(HUB), tokens.generation)
    connections.install(access_token="new")
    assert not connections.stores.disconnects.is_current(connections.id_of(HUB), tokens.generation)
    assert connections.stores.claims.count_due(1) == 0
    assert not connections.stores.disconnects.wipe_tokens(connections.id_of(HUB), tokens.generation)
    assert sql.read_served_token() == "new"
    assert connections.stores.claims.count_due(1) == 1


def test_an_earlier_disconnect_leaves_the_tokens_of_the_next_one(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install(ago=5)
    earlier = connections.stores.disconnects.mark_and_read_tokens(connections.id_of(HUB))
    connections.install(access_token="new")
    later = connections.stores.disconnects.mark_and_read_tokens(connections.id_of(HUB))
    assert earlier is not None
    assert later is not None
    assert not connections.stores.disconnects.wipe_tokens(connections.id_of(HUB), earlier.generation)
    assert sql.row()["access_token"] == "new"
    assert connections.stores.disconnects.wipe_tokens(connections.id_of(HUB), later.generation)


def test_an_unfinished_disconnect_is_claimed_once_a_minute(connections: ConnectionFixture, sql: SqlFixture) -> None:
    connections.install()
    connections.stores.disconnects.mark_and_read_tokens(connections.id_of(HUB))
    assert connections.stores.disconnects.claim_unfinished() == [], "another process may be finishing the disconnect"
    sql.set("status_since = status_since - interval '2 minutes'")
    assert connections.stores.disconnects.claim_unfinished() == [connections.id_of()]
    assert connections.stores.disconnects.claim_unfinished() == []
    sql.set("lease_until = now()")
    assert connections.stores.disconnects.claim_unfinished() == [connections.id_of()]
    connections.stores.disconnect(HUB)
    sql.set("lease_until = now()")
    assert connections.stores.disconnects.claim_unfinished() == []


def test_a_sample_of_encrypted_refresh_tokens_is_read(connections: ConnectionFixture) -> None:
    assert connections.stores.key_check.sample_refresh_tokens() == []
    connections.import_due(30)
    assert connections.stores.key_check.sample_refresh_tokens(limit=5) == ["encrypted"] * 5


def test_each_app_and_each_user_of_an_account_has_a_connection_of_its_own(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    grants = [("default", None), ("crm", None), ("personal", 7), ("personal", 8)]
    for app, user_id in grants:
        connections.install(app=app, user_id=user_id, access_token=f"of-{app}-{user_id}")
    connections.install(app="personal", user_id=7, access_token="newer")
    served = "SELECT app, user_id, access_token FROM hubspot.tokens WHERE hub_id = %s ORDER BY app, user_id"
    assert sql.rows(served, HUB) == [
        ("crm", None, "of-crm-None"),
        ("default", None, "of-default-None"),
        ("personal", 7, "newer"),
        ("personal", 8, "of-personal-8"),
    ]
    events = "SELECT app, user_id, event FROM hubspot.history ORDER BY id"
    assert sql.rows(events) == [*((*each, "installed") for each in grants), ("personal", 7, "reinstalled")]
    counts = "SELECT app, connections FROM tokenkeeper.connection_counts ORDER BY app"
    assert sql.rows(counts) == [("crm", 1), ("default", 1), ("personal", 2)]
    assert sql.value("SELECT array_agg(app ORDER BY app) FROM tokenkeeper.provider") == ["crm", "default", "personal"]
