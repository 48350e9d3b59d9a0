"""The real store with a clock that can be advanced: all times in the database are moved into the past instead."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from cryptography.fernet import Fernet
from sqlalchemy import Engine

from shared.db.core.clock import DatabaseClock
from shared.db.lifecycle.key_rotation import KeyRotationStore
from shared.db.refresh.leases import ClaimedConnection
from shared.db.reports.connections import ConnectionReports
from shared.domain.identity import DEFAULT_APP, ConnectionIdentity
from shared.domain.schedule import Schedule
from shared.token_cipher import TokenCipher
from tests.model.answers import Answer, ScriptedHubSpot
from tests.model.connection_state import LEASE_SECONDS
from tests.support.stores import SqlFixture, Stores
from worker.refresh.refresher import RefreshAttempt, Refresher

CALL_SECONDS = 20.0
APPS = (DEFAULT_APP, "seats")
#: An SQL condition, with the fields of a ConnectionIdentity as values.
IS_SAME = "app = %s AND hub_id = %s AND user_id IS NOT DISTINCT FROM %s"
TIMESTAMP_COLUMNS = """
SELECT table_name, column_name FROM information_schema.columns
 WHERE table_schema = 'tokenkeeper' AND data_type = 'timestamp with time zone'
   AND table_name IN (SELECT relname FROM pg_class WHERE relkind = 'r')
 ORDER BY 1, 2
"""
DELETE_ALL_ROWS = """
DELETE FROM tokenkeeper.connections;
DELETE FROM tokenkeeper.refresh_requests;
DELETE FROM tokenkeeper.rotated_tokens;
DELETE FROM tokenkeeper.history;
DELETE FROM tokenkeeper.installs;
DELETE FROM tokenkeeper.alerts;
DELETE FROM tokenkeeper.provider;
INSERT INTO tokenkeeper.provider (app) VALUES ('default'), ('seats');
"""


@dataclass(frozen=True, slots=True)
class ModelDatabase:
    """One database; `make_world` empties it."""

    engine: Engine
    superuser: SqlFixture
    reader: SqlFixture  #: as the role that downstream jobs have
    listener: Any  #: a psycopg2 connection
    ageing_statement: str  #: of `make_ageing_statement`

    def make_world(self) -> World:
        self.superuser.rows(DELETE_ALL_ROWS)
        self.superuser.rows("UPDATE tokenkeeper.connection_counts SET connections = 0")
        world = World(self)
        world.read_notifications()
        return world


class World:
    """Model time is PostgreSQL's plus the seconds that were advanced."""

    def __init__(self, database: ModelDatabase) -> None:
        self.sql, self.reader = database.superuser, database.reader
        self.stores_by_app = {app: Stores(database.engine, app, lease_seconds=LEASE_SECONDS) for app in APPS}
        self.stores = self.stores_by_app[DEFAULT_APP]  #: where the app makes no difference
        self.reports, self.key_rotation = ConnectionReports(database.engine), KeyRotationStore(database.engine)
        self.keys = [Fernet.generate_key().decode()]
        self._ids: dict[ConnectionIdentity, int] = {}
        self._listener = database.listener
        self._advanced = timedelta()
        self._read_at = self.sql.now()
        self._ageing_statement = database.ageing_statement

    @property
    def cipher(self) -> TokenCipher:
        return TokenCipher(self.keys)

    def id_of(self, identity: ConnectionIdentity) -> int:
        """The key of the connection, which stays the same; of none, where there is none."""
        if identity not in self._ids:
            rows = self.sql.rows(f"SELECT id FROM tokenkeeper.connections WHERE {IS_SAME}", *astuple(identity))
            if not rows:
                return 0
            self._ids[identity] = int(rows[0][0])
        return self._ids[identity]

    def decrypt(self, identity: ConnectionIdentity, ciphertext: str | None) -> str | None:
        return None if ciphertext is None else self.cipher.decrypt_refresh_token(identity.hub_id, ciphertext)

    def now(self) -> datetime:
        """As it was when `read_clock` was last called: no operation has begun earlier."""
        return self._read_at + self._advanced

    def read_clock(self) -> datetime:
        """Now, of PostgreSQL's clock."""
        self._read_at = self.sql.now()
        return self.now()

    def to_model_time(self, stored: datetime) -> datetime:
        """A time in the database as model time."""
        return stored + self._advanced

    def to_database_time(self, model_time: datetime) -> datetime:
        return model_time - self._advanced

    def advance(self, seconds: float) -> None:
        """Advance model time: every time in the database moves into the past."""
        by = timedelta(seconds=seconds)
        if by:
            self._advanced += by
            self.sql.rows(
                self._ageing_statement.format(by=f"interval '{by // timedelta(microseconds=1)} microseconds'")
            )

    @property
    def advanced(self) -> timedelta:
        """The sum of all advances."""
        return self._advanced

    def read_notifications(self) -> list[tuple[ConnectionIdentity, str]]:
        """Connection and event of every NOTIFY since the last call. Sends a last NOTIFY and reads up to it."""
        with self._listener.cursor() as cursor:
            cursor.execute("NOTIFY hubspot_connections, 'end of test'")
        notifications: list[tuple[ConnectionIdentity, str]] = []
        while True:
            self._listener.poll()
            while self._listener.notifies:
                payload = self._listener.notifies.pop(0).payload
                if payload == "end of test":
                    return notifications
                message = json.loads(payload)
                assert set(message) == {"hub_id", "event", "app", "user_id", "customer"}
                identity = ConnectionIdentity(message["app"], message["hub_id"], message["user_id"])
                notifications.append((identity, message["event"]))


@dataclass(frozen=True, slots=True)
class ClaimedRow:
    """A row as it was claimed when model time had `advanced` so far."""

    claimed: ClaimedConnection
    advanced: timedelta

    def attempt(self, world: World, answer: Answer, number: int) -> tuple[RefreshAttempt, ScriptedHubSpot]:
        """The worker's attempt with this answer of HubSpot, now."""
        claimed = self.claimed
        lease = replace(claimed.lease, until=claimed.lease.until - (world.advanced - self.advanced))
        hub_id = claimed.connection.identity.hub_id
        expected = world.cipher.decrypt_refresh_token(hub_id, claimed.encrypted_refresh_token)
        hubspot = ScriptedHubSpot(answer, hub_id, expected, number)
        refresher = _make_refresher(
            hubspot, world.cipher, world.stores_by_app[claimed.connection.identity.app].claims.clock
        )
        return hubspot.run(refresher.refresh_steps(refresher.decrypt(replace(claimed, lease=lease)))), hubspot


def age_attempt(attempt: RefreshAttempt, by: timedelta) -> RefreshAttempt:
    """Move the times in an unsaved attempt as those in the database."""
    lease = replace(attempt.lease, until=attempt.lease.until - by)
    if attempt.result is None:
        return replace(attempt, lease=lease)
    transition = attempt.result.transition
    connection = replace(
        transition.connection,
        due_at=_age_instant(transition.connection.due_at, by),
        retry_not_before=_age_instant(transition.connection.retry_not_before, by),
    )
    grant = None if transition.grant is None else replace(transition.grant, granted_at=transition.grant.granted_at - by)
    result = replace(attempt.result, lease=lease, transition=replace(transition, connection=connection, grant=grant))
    return replace(attempt, lease=lease, result=result)


def _age_instant(instant: datetime | None, by: timedelta) -> datetime | None:
    return None if instant is None else instant - by


def _make_refresher(hubspot: ScriptedHubSpot, cipher: TokenCipher, clock: DatabaseClock) -> Refresher:
    refresher: Callable[..., Refresher] = Refresher  # to mypy, ScriptedHubSpot is another type than HubSpot
    return refresher(hubspot, cipher, clock, Schedule(), CALL_SECONDS)


def make_ageing_statement(sql: SqlFixture) -> str:
    """Moves every time in the database into the past, once it is formatted with the interval `by`."""
    columns: dict[str, list[str]] = {}
    for table, column in sql.rows(TIMESTAMP_COLUMNS):
        columns.setdefault(table, []).append(column)
    return ";".join(_age_table(table, names) for table, names in columns.items() if table != "alembic_version")


def _age_table(table: str, names: Sequence[str]) -> str:
    return f"UPDATE tokenkeeper.{table} SET " + ", ".join(f"{name} = {name} - {{by}}" for name in names)
