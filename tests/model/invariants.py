"""What must hold after every operation: the database has and serves exactly what the model says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from shared.domain.connection import CONSENT_AGAIN_REASON, Status
from shared.domain.identity import ConnectionIdentity
from tests.model.brake_model import BrakeModel
from tests.model.connection_model import ConnectionModel
from tests.model.connection_state import LIVE
from tests.model.time_range import TimeRange
from tests.model.world import World
from tests.support.stores import SqlFixture

# Each is read for all connections at once, by a statement that is prepared once: to plan the views is most
# of the test's time.
CONNECTIONS = """
SELECT app, hub_id, user_id, status, scopes, installed_at, next_refresh_at, failures, last_error, status_reason,
       status_since
  FROM hubspot.connections
"""
TOKENS = "SELECT app, hub_id, user_id, access_token, expires_at, scopes, refreshed_at FROM hubspot.tokens"
SECRETS = """
SELECT app, hub_id, user_id, encrypted_refresh_token, access_token, due_at, retry_not_before, lease_until,
       refresh_requested, pending_revocation, other_encrypted_refresh_token
  FROM tokenkeeper.connections LEFT JOIN tokenkeeper.uncertain_installs ON connection_id = id
"""
HISTORY = "SELECT app, hub_id, user_id, event, detail FROM tokenkeeper.history ORDER BY id"
BRAKES = "SELECT app, brake_since FROM tokenkeeper.provider"

#: By the name of the prepared statement: those of the role that downstream jobs have, and those of a superuser.
READERS_STATEMENTS = {"read_connections": CONNECTIONS, "read_tokens": TOKENS}
SUPERUSERS_STATEMENTS = {"read_secrets": SECRETS, "read_history": HISTORY, "read_brakes": BRAKES}

Rows = Mapping[ConnectionIdentity, Sequence[tuple[Any, ...]]]


def prepare(reader: SqlFixture, superuser: SqlFixture) -> None:
    for sql, statements in ((reader, READERS_STATEMENTS), (superuser, SUPERUSERS_STATEMENTS)):
        for name, statement in statements.items():
            sql.rows(f"PREPARE {name} AS {statement}")


def check(models: Mapping[ConnectionIdentity, ConnectionModel], world: World) -> None:
    """Compare, and replace time ranges in the models by the exact times that were found in them."""
    reader, sql = world.reader, world.sql
    connections, tokens = (_by_identity(reader.rows(f"EXECUTE {name}")) for name in ("read_connections", "read_tokens"))
    secrets, history = (_by_identity(sql.rows(f"EXECUTE {name}")) for name in ("read_secrets", "read_history"))
    assert connections.keys() == secrets.keys() == {key for key, model in models.items() if model.status is not None}
    assert tokens.keys() <= models.keys()
    for identity, model in models.items():
        if identity in connections:
            _check_connection(model, world, *connections[identity])
            _check_secrets(model, world, *secrets[identity])
        _check_served(model, world, tokens.get(identity, ()))
        _check_history(model, history.get(identity, ()))


def check_brakes(brakes: Mapping[str, BrakeModel], world: World) -> None:
    stored = dict(world.sql.rows("EXECUTE read_brakes"))
    assert stored.keys() == brakes.keys()
    for app, brake in brakes.items():
        brake.since = match_range(brake.since, stored[app], world)


def check_held(app: str, brake: BrakeModel, models: Iterable[ConnectionModel], world: World) -> None:
    """What the product reports of the brake of the app, whose models these are."""
    reported = world.stores_by_app[app].brake.read()
    brake.since = match_range(brake.since, reported.since, world)
    assert reported.held == sum(model.held_by_brake for model in models)


def _by_identity(rows: Sequence[tuple[Any, ...]]) -> Rows:
    """The first three columns are those of a ConnectionIdentity."""
    by_identity: dict[ConnectionIdentity, list[tuple[Any, ...]]] = {}
    for app, hub_id, user_id, *values in rows:
        by_identity.setdefault(ConnectionIdentity(app, hub_id, user_id), []).append(tuple(values))
    return by_identity


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


def _check_secrets(model: ConnectionModel, world: World, row: tuple[Any, ...]) -> None:
    ciphertext, access_token, due_at, not_before, lease_until, refresh_requested, pending_revocation, other = row
    assert world.decrypt(model.identity, ciphertext) == model.refresh_token, (
        "the newest refresh token of HubSpot is stored until the disconnect is finished"
    )
    assert world.decrypt(model.identity, other) == model.other_refresh_token
    assert access_token == (model.access and model.access.token)
    model.due = match_range(model.due, due_at, world)
    model.not_before = match_range(model.not_before, not_before, world)
    assert refresh_requested is model.refresh_requested
    assert (pending_revocation is not None) is model.held_by_brake
    assert (lease_until is not None) is (model.lease is not None)
    if model.lease is not None:
        assert world.to_model_time(lease_until) in model.lease.until


def _check_served(model: ConnectionModel, world: World, rows: Sequence[tuple[Any, ...]]) -> None:
    """No token expires while this runs: the state machine advances past such times."""
    at = TimeRange.at_instant(world.now())
    access = model.access
    if model.status not in LIVE or access is None or not access.is_valid(at):
        assert not rows
        return
    ((token, expires_at, scopes, refreshed_at),) = rows
    assert token == access.token
    assert world.to_model_time(expires_at) in access.expires()
    assert world.to_model_time(refreshed_at) in access.granted
    assert set(scopes) == set(model.scopes)


def _check_history(model: ConnectionModel, rows: Sequence[tuple[Any, ...]]) -> None:
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
