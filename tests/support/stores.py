"""Fixtures for tests of the stores: connections, results of refreshes, and a superuser's view of the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from threading import Barrier, Lock
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import Engine, text

from shared.db.lifecycle.account_info import AccountInfoStore, ClaimedAccount
from shared.db.lifecycle.disconnects import DisconnectStore
from shared.db.lifecycle.imports import ImportRow, ImportStore
from shared.db.lifecycle.installs import InstallResult, InstallStore, NewInstall
from shared.db.lifecycle.key_check import KeyCheckStore
from shared.db.lifecycle.key_rotation import KeyRotationStore
from shared.db.lifecycle.pruning import prune
from shared.db.refresh.brake import RevocationBrake
from shared.db.refresh.claims import ConnectionClaims
from shared.db.refresh.counters import CounterStore
from shared.db.refresh.late_results import apply_rotated_tokens
from shared.db.refresh.leases import ClaimedConnection, RefreshResult
from shared.db.refresh.provider import ProviderStore
from shared.db.refresh.requests import RefreshRequests
from shared.db.refresh.results import RefreshResults
from shared.db.reports.refresh_stats import RefreshStats, Totals
from shared.domain import connection as rules
from shared.domain.account import AccountDetails, AccountInfo
from shared.domain.errors import InvalidGrant, ProviderError, TemporarilyUnavailable
from shared.domain.grant import Introspection
from shared.domain.identity import DEFAULT_APP, ConnectionIdentity
from shared.domain.schedule import Schedule
from tests.support.builders import HUB, grant

T = TypeVar("T")

#: On a busy machine a statement with tens of thousands of rows exceeds the time limit of statements.
IMPORT_BATCH_SIZE = 5_000
SCHEDULE = Schedule()
READ_KEYS = text("SELECT id, generation FROM tokenkeeper.connections WHERE hub_id = :hub_id")
ROW = "SELECT to_jsonb(c) FROM tokenkeeper.connections AS c WHERE hub_id = %s"


class SqlFixture:
    """Reads and changes the database as a superuser, without product code."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._one_at_a_time = Lock()

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._one_at_a_time, self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall()) if cursor.description else []

    def value(self, statement: str, *values: Any) -> Any:
        return self.rows(statement, *values)[0][0]

    def row(self, hub_id: int = HUB) -> dict[str, Any]:
        row: dict[str, Any] = self.value(ROW, hub_id)
        return row

    def id_of(self, hub_id: int = HUB) -> int:
        """The key of the hub's one connection."""
        return int(self.value("SELECT id FROM tokenkeeper.connections WHERE hub_id = %s", hub_id))

    def set(self, assignments: str, hub_id: int | None = None) -> None:
        where = "" if hub_id is None else f" WHERE hub_id = {hub_id}"
        self.rows(f"UPDATE tokenkeeper.connections SET {assignments}{where}")

    def now(self) -> datetime:
        now: datetime = self.value("SELECT clock_timestamp()")
        return now

    def events(self, hub_id: int = HUB) -> list[str]:
        return [
            name for (name,) in self.rows("SELECT event FROM hubspot.history WHERE hub_id = %s ORDER BY at, id", hub_id)
        ]

    def count_lock_waits(self) -> int:
        """Statements in this database that wait for a lock of another transaction."""
        waiting = "wait_event_type = 'Lock' AND datname = current_database()"
        return int(self.value(f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}"))

    def read_served_token(self, hub_id: int = HUB) -> str | None:
        """The access token that a downstream job reads; None: none is served."""
        rows = self.rows("SELECT access_token FROM hubspot.tokens WHERE hub_id = %s", hub_id)
        return rows[0][0] if rows else None


class ConnectionFixture:
    """Adds connections to the stores, claims them, and makes the results of their refreshes."""

    def __init__(self, stores: Stores, sql: SqlFixture) -> None:
        self.stores = stores
        self.sql = sql

    def install(self, hub_id: int = HUB, *, ago: float = 0.0, **but: Any) -> InstallResult:
        """Add an install that was granted `ago` seconds before now."""
        values: dict[str, Any] = {
            "hub_id": hub_id,
            "granted_at": self.sql.now() - timedelta(seconds=ago),
            "encrypted_refresh_token": f"encrypted-of-{hub_id}",
            "due_at": SCHEDULE.due_at,
            "install_id": str(uuid4()),
            "access_token": f"access-of-{hub_id}",
            "expires_in": 1800,
            "scopes": ("oauth", "crm.objects.contacts.read"),
        }
        return self.stores.installs.add(NewInstall(**{**values, **but}))

    def id_of(self, hub_id: int = HUB) -> int:
        return self.sql.id_of(hub_id)

    def ids(self, *hub_ids: int) -> set[int]:
        """The keys of these hubs' connections."""
        return {self.sql.id_of(hub_id) for hub_id in hub_ids}

    def install_due(self, *hub_ids: int) -> None:
        """Install the connections and make them due."""
        for hub_id in hub_ids:
            self.install(hub_id)
            self.sql.set("due_at = now() - interval '1 second'", hub_id)

    def import_due(self, count: int) -> None:
        for first in range(1, count + 1, IMPORT_BATCH_SIZE):
            hub_ids = range(first, min(first + IMPORT_BATCH_SIZE, count + 1))
            self.stores.imports.import_rows([ImportRow(hub_id, "encrypted") for hub_id in hub_ids])

    def claim_one(self, hub_id: int = HUB) -> ClaimedConnection:
        self.sql.set("due_at = now() - interval '1 second'", hub_id)
        (claimed,) = self.stores.claims.claim(1).rows
        assert claimed.connection.identity.hub_id == hub_id
        return claimed

    def make_success(self, claimed: ClaimedConnection, access_token: str = "new-access", **but: Any) -> RefreshResult:
        values = {"granted_at": self.stores.claims.clock.now(), "access_token": access_token, "hub_id": None, **but}
        return RefreshResult(claimed.lease, rules.apply_refresh(claimed.connection, grant(**values), SCHEDULE))

    def make_failure(self, claimed: ClaimedConnection, error: ProviderError | None = None) -> RefreshResult:
        transition = rules.apply_failure(
            claimed.connection, error or TemporarilyUnavailable("timeout"), self.stores.claims.clock.now()
        )
        return RefreshResult(claimed.lease, transition)

    def make_revocation(self, claimed: ClaimedConnection) -> RefreshResult:
        error = InvalidGrant("BAD_REFRESH_TOKEN", http_status=400)
        transition = rules.apply_failure(claimed.connection, error, self.stores.claims.clock.now())
        return RefreshResult(claimed.lease, rules.apply_introspection(transition, error, Introspection(active=False)))


def read_totals(stats: RefreshStats) -> Totals:
    """Of the one app of most tests."""
    return stats.read_totals().get(DEFAULT_APP) or Totals.empty()


@contextmanager
def open_transaction(connect: Callable[..., Any], isolation: str = "READ COMMITTED") -> Iterator[SqlFixture]:
    """A session of its own within a transaction, which ends with the block."""
    sql = SqlFixture(connect())
    sql.rows(f"BEGIN ISOLATION LEVEL {isolation}")
    try:
        yield sql
    finally:
        sql.rows("ROLLBACK")


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Run the calls in threads that start at the same time."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        barrier.wait(60)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


class Stores:
    """Every class of `shared.db` that changes connections of an app, over one engine."""

    def __init__(
        self,
        engine: Engine,
        app: str = DEFAULT_APP,
        *,
        lease_seconds: float = 60,
        max_refreshes_per_second: float = 0.0,
    ) -> None:
        self._engine = engine
        self.claims = ConnectionClaims(
            engine,
            app,
            lease_seconds=lease_seconds,
            max_refreshes_per_second=max_refreshes_per_second,
            full_scan_seconds=0.0,  # tests change due times
        )
        self.results = RefreshResults(engine, app, lease_seconds=lease_seconds)
        self.provider = ProviderStore(engine, app)
        self.brake = RevocationBrake(engine, app)
        self.counters = CounterStore(engine, app)
        self.refresh_requests = RefreshRequests(engine)
        self.installs = InstallStore(engine)
        self.imports = ImportStore(engine)
        self.disconnects = DisconnectStore(engine)
        self.account_info = AccountInfoStore(
            engine, app, lease_seconds=lease_seconds, max_refreshes_per_second=max_refreshes_per_second
        )
        self.key_check = KeyCheckStore(engine)
        self.key_rotation = KeyRotationStore(engine)

    def save_account_info(
        self,
        hub_id: int,
        hub_domain: str | None,
        installed_by: str | None,
        details: AccountDetails | None = None,
    ) -> None:
        """As after an introspection of the connection's token; with `details`, after a call of HubSpot's API too."""
        with self._engine.connect() as connection:
            row = connection.execute(READ_KEYS, {"hub_id": hub_id}).one()
        identity = ConnectionIdentity(DEFAULT_APP, hub_id)
        info = AccountInfo(hub_domain, installed_by, details)
        self.account_info.save(ClaimedAccount(row.id, identity, row.generation, "access"), info)

    def disconnect(self, hub_id: int) -> None:
        """From beginning to end."""
        with self._engine.connect() as connection:
            connection_id = connection.execute(READ_KEYS, {"hub_id": hub_id}).one().id
        tokens = self.disconnects.mark_and_read_tokens(connection_id)
        assert tokens is not None
        assert self.disconnects.wipe_tokens(connection_id, tokens.generation)

    def apply_rotated_tokens(self) -> frozenset[int]:
        return apply_rotated_tokens(self._engine)

    def prune(self) -> int:
        return prune(self._engine)
