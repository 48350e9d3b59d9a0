"""Old rows are pruned, and no row that is still read."""

from __future__ import annotations

import pytest

from shared.db.lifecycle import pruning
from shared.db.lifecycle.installs import InstallOutcome
from tests.support.builders import HUB
from tests.support.stores import ConnectionFixture, SqlFixture, Stores

OLD_HISTORY = """
INSERT INTO tokenkeeper.history (hub_id, event, status, at)
SELECT 7, event, status, now() - interval '91 days'
  FROM (VALUES ('installed', 'active'), ('refresh_failed', NULL), ('recovered', NULL), ('suspected', 'suspect'),
               ('recovered', 'active'), ('scopes_changed', NULL), ('reinstalled', NULL)) AS old(event, status)
"""
ANOTHER_HOUR = "UPDATE tokenkeeper.pruning_state SET pruned_at = pruned_at - interval '1 hour'"


def test_only_old_failures_are_pruned_from_the_history(stores: Stores, sql: SqlFixture) -> None:
    sql.rows(OLD_HISTORY)
    sql.rows("INSERT INTO tokenkeeper.history (hub_id, event) VALUES (7, 'refresh_failed'), (7, 'recovered')")
    assert stores.prune() == 2
    old = "SELECT event FROM tokenkeeper.history WHERE at < now() - interval '90 days' ORDER BY id"
    assert [event for (event,) in sql.rows(old)] == [
        *("installed", "suspected", "recovered", "scopes_changed", "reinstalled")
    ]
    assert sql.value("SELECT count(*) FROM tokenkeeper.history") == 7


def test_pruning_works_once_an_hour_for_all_sweeps(stores: Stores, sql: SqlFixture) -> None:
    assert stores.prune() == 0
    sql.rows(OLD_HISTORY)
    assert stores.prune() == 0
    sql.rows(ANOTHER_HOUR)
    assert stores.prune() == 2
    sql.rows(OLD_HISTORY)
    sql.rows("UPDATE tokenkeeper.pruning_state SET pruned_at = now() + interval '1 day'")
    assert stores.prune() == 2, "a clock that was set back stops nothing"


def test_one_run_prunes_a_limited_number_of_rows(stores: Stores, sql: SqlFixture) -> None:
    many = pruning.BATCH_ROWS * pruning.MAX_BATCHES + 5
    sql.rows(f"""
        INSERT INTO tokenkeeper.history (hub_id, event, at)
        SELECT n, 'refresh_failed', now() - interval '91 days' FROM generate_series(1, {many}) AS n
    """)
    assert stores.prune() == many - 5
    sql.rows(ANOTHER_HOUR)
    assert stores.prune() == 5


def test_minutes_older_than_three_days_are_pruned(stores: Stores, sql: SqlFixture) -> None:
    sql.rows("""
        INSERT INTO tokenkeeper.refreshes_by_minute (minute)
        VALUES (now() - interval '73 hours'), (now() - interval '49 hours'), (now())
    """)
    assert stores.prune() == 1


def test_an_install_that_comes_again_after_its_id_was_pruned_changes_nothing(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    """The connection's row keeps the id of the newest install; an older one is recognised by its date."""
    older = "0f5f7a0e-0000-4000-8000-000000000001"
    newest = "0f5f7a0e-0000-4000-8000-000000000002"
    at = sql.now()
    connections.install(ago=60, install_id=older)
    connections.install(install_id=newest, granted_at=at)
    sql.rows("UPDATE tokenkeeper.installs SET stored_at = now() - interval '31 days'")
    assert connections.stores.prune() == 2
    assert (
        connections.install(install_id=newest, granted_at=at, access_token="again").outcome
        is InstallOutcome.ALREADY_STORED
    )
    assert (
        connections.install(ago=60, install_id=older, access_token="again").outcome is InstallOutcome.OLDER_THAN_STORED
    )
    assert sql.read_served_token(HUB) == f"access-of-{HUB}"


PRUNE_HISTORY = "SELECT prosrc FROM pg_proc WHERE proname = 'prune_history'"


@pytest.mark.parametrize("statement", ["prune_history", "DELETE_INSTALLS"])
def test_pruning_finds_old_rows_by_an_index(connections: ConnectionFixture, sql: SqlFixture, statement: str) -> None:
    sql.rows(
        """
        INSERT INTO tokenkeeper.history (hub_id, event, status) SELECT n, 'installed', 'active'
          FROM generate_series(1, 20000) AS n;
        INSERT INTO tokenkeeper.installs (install_id, connection_id, granted_at)
        SELECT gen_random_uuid(), n, now() FROM generate_series(1, 20000) AS n;
        VACUUM ANALYZE tokenkeeper.history;
    """.replace("VACUUM ", "")
    )
    if statement == "prune_history":
        pruned = sql.value(PRUNE_HISTORY).replace("$1", "1000")
    else:
        pruned = pruning.DELETE_INSTALLS.text.split(";")[-1]
    plan = str(sql.rows("EXPLAIN " + pruned))
    assert "history_of_failures" in plan or "installs_stored" in plan
