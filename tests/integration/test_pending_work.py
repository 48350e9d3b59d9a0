"""What a sweep has to do besides refreshes, and that nothing else counts as such."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from sqlalchemy import Engine

from shared.db.lifecycle.pending_work import read_pending_work
from tests.support.stores import ConnectionFixture, SqlFixture

HUB = 62515
CHANGES = {
    "any_requested": "SELECT hubspot.request_refresh(62515)",
    "any_rotated": "INSERT INTO tokenkeeper.rotated_tokens (connection_id, lease_number, generation,"
    " encrypted_refresh_token, granted_at) SELECT id, 1, generation, 'encrypted', now() FROM tokenkeeper.connections",
    "any_ahead": "UPDATE tokenkeeper.connections SET refreshed_at = now() + interval '1 hour'",
    "any_disconnect_unfinished": "UPDATE tokenkeeper.connections SET status = 'disconnected', access_token = NULL,"
    " expires_at = NULL, due_at = NULL, status_since = now() - interval '1 hour', lease_until = NULL",
    "is_pruning_due": "UPDATE tokenkeeper.pruning_state SET pruned_at = now() - interval '2 hours'",
}


@pytest.fixture
def at_rest(connections: ConnectionFixture) -> ConnectionFixture:
    connections.install(HUB)
    connections.stores.prune()
    return connections


@pytest.mark.parametrize("work", [None, *CHANGES])
def test_a_sweep_finds_what_there_is_to_do_and_nothing_else(
    at_rest: ConnectionFixture, sql: SqlFixture, engine: Engine, work: str | None
) -> None:
    if work:
        sql.rows(CHANGES[work])
    found = {name for name, is_found in asdict(read_pending_work(engine)).items() if is_found}
    assert found == ({work} if work else set())
