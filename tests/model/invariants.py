"""What must hold after every operation: the database has and serves exactly what the model says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple
from datetime import datetime
from typing import Any

from shared.domain.connection import CONSENT_AGAIN_REASON, Status
from tests.model.brake_model import BrakeModel
from tests.model.connection_model import ConnectionModel
from tests.model.connection_state import LIVE
from tests.model.time_range import TimeRange
from tests.model.world import IS_SAME, World

TOKEN = f"SELECT access_token, expires_at, scopes, refreshed_at FROM hubspot.tokens WHERE {IS_SAME}"
CONNECTION = f"""
SELECT status, scopes, installed_at, next_refresh_at, failures, last_error, status_reason, status_since
  FROM hubspot.connections WHERE {IS_SAME}
"""
EVENTS = f"SELECT event, detail FROM tokenkeeper.history WHERE {IS_SAME} ORDER BY id"
ROW = f"""
SELECT encrypted_refresh_token, access_token, due_at, retry_not_before, lease_until, refresh_requested,
       pending_revocation
  FROM tokenkeeper.connections WHERE {IS_SAME}
"""


def check(model: ConnectionModel, world: World) -> None:
    """Compare, and replace time ranges in the model by the exact times that were found in them."""
    rows = world.reader.rows(CONNECTION, *astuple(model.identity))
    assert bool(rows) is (model.status is not None)
    if rows:
        _check_connection(model, world, rows[0])
        _check_secrets(model, world)
    _check_served(model, world)
    _check_history(model, world)


def check_brake(app: str, brake: BrakeModel, models: Iterable[ConnectionModel], world: World) -> None:
    """Of the app, whose models these are."""
    stored = world.stores_by_app[app].brake.read()
    brake.since = match_range(brake.since, stored.since, world)
    assert stored.held == sum(model.held_by_brake for model in models)


def _check_connection(model: ConnectionModel, world: World, row: tuple[Any, ...]) -> None:
    status, scopes, installed_at, next_refresh_at, failures, last_error, reason, since = row
    assert status == model.status
    assert set(scopes) == set(model.scopes)
    assert failures == model.failures
    if model.status is Status.ACTIVE:
        assert reason is None or (reason == CONSENT_AGAIN_REASON and failures), "kept until the next success"
    else:
        assert reason is not None
    assert last_error is not None or not model.failures
    assert (next_refresh_at is not None) is (model.status in LIVE), (
        "every active or suspect connection has a next refresh, and no other"
    )
    model.installed_at = match_range(model.installed_at, installed_at, world)
    if model.status in (Status.REVOKED, Status.DISCONNECTED):
        model.status_since = match_range(model.status_since, since, world)


def _check_secrets(model: ConnectionModel, world: World) -> None:
    ciphertext, access_token, due_at, not_before, lease_until, refresh_requested, pending_revocation = world.sql.rows(
        ROW, *astuple(model.identity)
    )[0]
    decrypted = None if ciphertext is None else world.cipher.decrypt_refresh_token(model.identity.hub_id, ciphertext)
    assert decrypted == model.refresh_token, (
        "the newest refresh token of HubSpot is stored until the disconnect is finished"
    )
    assert access_token == (model.access and model.access.token)
    model.due = match_range(model.due, due_at, world)
    model.not_before = match_range(model.not_before, not_before, world)
    assert refresh_requested is model.refresh_requested
    assert (pending_revocation is not None) is model.held_by_brake
    assert (lease_until is not None) is (model.lease is not None)
    if model.lease is not None:
        assert world.to_model_time(lease_until) in model.lease.until


def _check_served(model: ConnectionModel, world: World) -> None:
    """No token expires while this runs: the state machine advances past such times."""
    rows = world.reader.rows(TOKEN, *astuple(model.identity))
    at = TimeRange.at_instant(world.now())
    access = model.access
    if model.status not in LIVE or access is None or not access.is_valid(at):
        assert rows == []
        return
    ((token, expires_at, scopes, refreshed_at),) = rows
    assert token == access.token
    assert world.to_model_time(expires_at) in access.expires()
    assert world.to_model_time(refreshed_at) in access.granted
    assert set(scopes) == set(model.scopes)


def _check_history(model: ConnectionModel, world: World) -> None:
    rows = world.sql.rows(EVENTS, *astuple(model.identity))
    events = [event for event, _ in rows]
    assert events == model.events
    for index, (event, detail) in enumerate(rows):
        if event == "revoked":
            assert "suspected" in events[:index], "revoked only after it was suspect"
            assert detail["introspection"] == {"active": False}, "revoked only after introspection said inactive"
            assert detail["refresh"]["code"]


def match_range(expected: TimeRange | None, stored: datetime | None, world: World) -> TimeRange | None:
    """The stored time, which has to be in the expected range."""
    if expected is None or stored is None:
        assert (expected, stored) == (None, None)
        return None
    model_time = world.to_model_time(stored)
    assert model_time in expected, (model_time, expected)
    return TimeRange.at_instant(model_time)
