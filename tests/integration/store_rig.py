"""What tests of the store say again and again, in short words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier, Lock
from typing import Any, TypeVar
from uuid import uuid4

from shared.db.imports import ImportRow
from shared.db.installs import Added, NewInstall
from shared.db.leases import Claimed, Result
from shared.db.store import ConnectionStore
from shared.domain import connection as rules
from shared.domain.connection import Event, EventName, Status, Step
from shared.domain.errors import GrantDead, ProviderError, Unwell
from shared.domain.grant import Introspection
from shared.domain.schedule import Schedule
from tests.builders import HUB, grant

T = TypeVar("T")

SCHEDULE = Schedule()
ROW = "SELECT to_jsonb(c) FROM tokenkeeper.connections AS c WHERE hub_id = %s"


class Sql:
    """A superuser's look into the database, past all of our code."""

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
        found: dict[str, Any] = self.value(ROW, hub_id)
        return found

    def set(self, assignments: str, hub_id: int | None = None) -> None:
        where = "" if hub_id is None else f" WHERE hub_id = {hub_id}"
        self.rows(f"UPDATE tokenkeeper.connections SET {assignments}{where}")

    def now(self) -> datetime:
        now: datetime = self.value("SELECT clock_timestamp()")
        return now

    def events(self, hub_id: int = HUB) -> list[str]:
        return [
            name for (name,) in self.rows("SELECT event FROM hubspot.history WHERE hub_id = %s ORDER BY at", hub_id)
        ]

    def served(self, hub_id: int = HUB) -> str | None:
        found = self.rows("SELECT access_token FROM hubspot.tokens WHERE hub_id = %s", hub_id)
        return found[0][0] if found else None


class Town:
    """Connections in a store, and what happens to them."""

    def __init__(self, store: ConnectionStore, sql: Sql) -> None:
        self.store = store
        self.sql = sql

    def install(self, hub_id: int = HUB, *, ago: float = 0.0, **but: Any) -> Added:
        """Granted `ago` seconds before now."""
        values: dict[str, Any] = {
            "hub_id": hub_id,
            "granted_at": self.sql.now() - timedelta(seconds=ago),
            "sealed_refresh_token": f"sealed-of-{hub_id}",
            "due_at": SCHEDULE.due_at,
            "install_id": str(uuid4()),
            "access_token": f"access-of-{hub_id}",
            "expires_in": 1800,
            "scopes": ("oauth", "crm.objects.contacts.read"),
        }
        return self.store.add(NewInstall(**{**values, **but}))

    def due(self, *hub_ids: int) -> None:
        """Installed a while ago, and due now."""
        for hub_id in hub_ids:
            self.install(hub_id)
            self.sql.set("due_at = now() - interval '1 second'", hub_id)

    def many_due(self, count: int) -> None:
        self.store.import_([ImportRow(hub_id, "sealed") for hub_id in range(1, count + 1)])

    def claim_one(self, hub_id: int = HUB) -> Claimed:
        self.sql.set("due_at = now() - interval '1 second'", hub_id)
        (claimed,) = self.store.claim(1).rows
        assert claimed.connection.hub_id == hub_id
        return claimed

    def refreshed(self, claimed: Claimed, access_token: str = "new-access", **but: Any) -> Result:
        values = {"granted_at": self.store.clock.now(), "access_token": access_token, "hub_id": None, **but}
        return Result(claimed.lease, rules.refreshed(claimed.connection, grant(**values), SCHEDULE))

    def failed(self, claimed: Claimed, error: ProviderError | None = None) -> Result:
        step = rules.failed(claimed.connection, error or Unwell("timeout"), self.store.clock.now())
        return Result(claimed.lease, step)

    def revoked(self, claimed: Claimed) -> Result:
        dead = GrantDead("BAD_REFRESH_TOKEN", http_status=400)
        step = rules.failed(claimed.connection, dead, self.store.clock.now())
        return Result(claimed.lease, rules.witnessed(step, dead, Introspection(active=False)))


def told(hub_id: int, name: EventName, status: Status) -> Step:
    return Step(rules.Connection(hub_id, status), events=(Event(name, status=status),))


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Run them in threads that all start at the same moment."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        barrier.wait(10)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))
