"""A product on servers of its own that tests break, and the check that it recovered."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import redis

from sandbox.child_processes import ChildProcess
from sandbox.embedded import EmbeddedValkey
from sandbox.simulator.control import SimulatorControl
from tests.support.deployment import Deployment
from tests.support.environment import product_environment
from tests.support.folders import server_folder
from tests.support.polling import until
from tests.support.postgres import make_migrated_postgres
from tests.support.product import Product
from tests.support.stores import SqlFixture
from tests.support.token_watcher import TokenWatcher

#: A lease must be at least twice the timeout plus 5.
SHORT_TIMEOUTS = {"SWEEP_SECONDS": "0.5", "HTTP_TIMEOUT_SECONDS": "1", "LEASE_SECONDS": "7"}
#: Long enough that no token expires in a test, short enough that a retry comes within two seconds.
TOKEN_LIFETIME_SECONDS = 60
FIRST_HUB_ID, HUBS = 1_000, 12
#: A lease expires, HubSpot is probed six times a minute, and then the rate rises in steps.
RECOVERY_SECONDS = 90.0
#: Processes of PostgreSQL, by a part of their titles.
WRITERS = ("checkpointer", "background writer", "walwriter")
#: As an administrator, autovacuum or pg_repack runs it: indexes that are built, rebuilt and dropped, tables that are
#: rewritten and swapped, a vacuum that freezes every row (as to prevent wraparound).
MAINTENANCE = (
    "VACUUM (FREEZE, ANALYZE) tokenkeeper.connections",
    "VACUUM FULL tokenkeeper.connections",
    "CLUSTER tokenkeeper.connections USING connections_pkey",
    "REINDEX TABLE tokenkeeper.connections",
    "REINDEX TABLE CONCURRENTLY tokenkeeper.connections",
    "CREATE INDEX of_an_administrator ON tokenkeeper.connections (scopes)",
    "DROP INDEX tokenkeeper.of_an_administrator",
    "CREATE INDEX CONCURRENTLY of_an_administrator ON tokenkeeper.history (detail)",
    "DROP INDEX CONCURRENTLY tokenkeeper.of_an_administrator",
    "VACUUM FULL tokenkeeper.history",
    "REINDEX SCHEMA CONCURRENTLY tokenkeeper",
    "VACUUM FULL",
)
TERMINATE_SESSIONS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE application_name = 'tokenkeeper' AND datname = current_database()
"""


class ReconnectingSql(SqlFixture):
    """Repeats a statement on a new connection where the server was restarted or the connection was ended."""

    def __init__(self, url: str) -> None:
        self._url = url
        super().__init__(self._connect())

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        (rows,) = until(lambda: self._try_rows(statement, values))
        return rows  # type: ignore[no-any-return]

    def close(self) -> None:
        self._connection.close()

    def _connect(self) -> Any:
        connection = psycopg2.connect(self._url, connect_timeout=2)
        connection.autocommit = True
        return connection

    def _try_rows(self, statement: str, values: tuple[Any, ...]) -> tuple[list[tuple[Any, ...]]] | None:
        try:
            if self._connection.closed:
                self._connection = self._connect()
            return (super().rows(statement, *values),)
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            self._connection.close()
            return None


class Servers:
    """PostgreSQL and Valkey that a test may stop or kill. Both restart on the same ports, Valkey empty."""

    def __init__(self, folder: Path) -> None:
        # Durable: the tests check that an immediate stop loses nothing that was committed.
        self.postgres = make_migrated_postgres(folder, durable=True)
        self.valkey = EmbeddedValkey(folder, durable=False)
        self.postgres.start()
        self.valkey.start()

    def stop(self) -> None:
        self.valkey.stop()
        self.postgres.stop()

    def crash_postgres(self) -> None:
        """As `pg_ctl stop -m immediate`: without a shutdown checkpoint, so that the next start recovers."""
        assert self.postgres.process is not None
        self.postgres.process.send_signal(signal.SIGQUIT)
        self.postgres.process.wait(30)

    def kill_valkey(self) -> None:
        assert self.valkey.process is not None
        self.valkey.process.kill()
        self.valkey.process.wait(30)

    def flush(self) -> None:
        with redis.Redis.from_url(self.valkey.url()) as broker:
            broker.flushall()

    @contextmanager
    def freeze_valkey(self) -> Iterator[None]:
        assert self.valkey.process is not None
        with _freeze([psutil.Process(self.valkey.process.pid)]):
            yield

    @contextmanager
    def freeze_postgres_writers(self) -> Iterator[None]:
        """What writes to the disk beside the sessions, as where the disk takes nothing for a while."""
        assert self.postgres.process is not None
        postgres = self.postgres.process.pid

        def find_writers() -> list[psutil.Process]:
            """All of them; else none: the server starts some after it is ready."""
            writers = [
                process
                for process in psutil.process_iter(["ppid", "cmdline"])  # without those that end meanwhile
                if process.info["ppid"] == postgres and any(name in str(process.info["cmdline"]) for name in WRITERS)
            ]
            return writers if len(writers) == len(WRITERS) else []

        with _freeze(until(find_writers)):
            yield

    @contextmanager
    def freeze_postgres(self) -> Iterator[None]:
        """Its sockets stay open and accept data, but no process answers."""
        assert self.postgres.process is not None
        main = psutil.Process(self.postgres.process.pid)
        with _freeze([main]):
            until(lambda: main.status() == psutil.STATUS_STOPPED)  # from then on it starts no further process
            with _freeze(main.children(recursive=True)):
                yield


@contextmanager
def _freeze(processes: Sequence[psutil.Process]) -> Iterator[None]:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


class FaultDeployment(Deployment):
    """A product on servers of its own, with imported connections. `watcher` checks every served token meanwhile."""

    def __init__(
        self, product: Product, simulator: SimulatorControl, sql: SqlFixture, servers: Servers, database_url: str
    ) -> None:
        super().__init__(product, simulator, sql)
        self.servers = servers
        self.database_url = database_url
        self.hubs: list[int] = []
        self.watcher = self.new_watcher()

    def default_hub_ids(self) -> list[int]:
        return self.hubs

    def new_watcher(self, *, interval_seconds: float = 0.1) -> TokenWatcher:
        return TokenWatcher(self.database_url, self.simulator.base_url, interval_seconds=interval_seconds)

    def import_connections(self, count: int = HUBS, first: int = FIRST_HUB_ID) -> FaultDeployment:
        """Import accounts whose tokens are due at once. Returns before they have tokens."""
        self.hubs += self.import_accounts(count, first)
        return self

    def count_calls_in_flight(self) -> int:
        """The number of refreshes that HubSpot is answering now."""
        by_hub: Mapping[str, Mapping[str, int]] = self.simulator.get_stats()["by_hub"]
        return sum(row["in_flight"] for row in by_hub.values())

    def make_due_and_await_calls(self, *hub_ids: int, at_least: int = 3) -> dict[int, str]:
        before = self.make_due(*hub_ids)
        until(lambda: self.count_calls_in_flight() >= at_least)
        return before

    def wait_for_new_tokens(self, before: Mapping[int, str], seconds: float = RECOVERY_SECONDS) -> None:
        """Wait until each account has another token than before."""

        def all_new() -> bool:
            tokens = self.tokens()
            return all(tokens.get(hub_id, old) != old for hub_id, old in before.items())

        until(all_new, seconds)

    def terminate_sessions(self) -> int:
        """End the product's connections to PostgreSQL. Returns their number."""
        return int(self.sql.value(TERMINATE_SESSIONS))

    def count_refreshes(self) -> int:
        """The number of refreshes that HubSpot received so far."""
        return sum(row["refreshes"] for row in self.simulator.get_stats()["by_hub"].values())

    def count_events(self, name: str) -> int:
        """The number of lines with this event in the history of all connections."""
        return int(self.sql.value("SELECT count(*) FROM hubspot.history WHERE event = %s", name))

    def count_introspections(self) -> int:
        """The number of introspections that HubSpot answered so far."""
        return sum(self.simulator.get_stats()["calls"].get("introspect", {}).values())

    def hubspot_condition(self) -> str:
        return str(self.sql.value("SELECT condition FROM tokenkeeper.provider"))

    def newest_process(self, name: str) -> ChildProcess:
        return self.processes_named(name)[-1]

    def child_pids(self, name: str) -> list[int]:
        return [child.pid for child in psutil.Process(self.newest_process(name).pid).children()]

    def signal_child(self, name: str, signum: int) -> int:
        """Signal the first child of the newest process of that name. Returns the child's pid."""
        child = self.child_pids(name)[0]
        os.kill(child, signum)
        return child

    def check_recovered(self, except_for: Collection[int] = ()) -> None:
        """Every connection is active with a new, live token; none was refreshed twice at once or served a dead one."""
        self.simulator.clear_faults()
        hub_ids = [hub_id for hub_id in self.hubs if hub_id not in except_for]
        self.wait_for_new_tokens(self.make_due(*hub_ids))
        status_by_hub = dict(self.sql.rows("SELECT hub_id, status FROM hubspot.connections"))
        assert [hub_id for hub_id in hub_ids if status_by_hub.get(hub_id) != "active"] == []
        assert self.watcher.ended_hub_ids <= set(except_for)
        assert self.never_refreshed_twice_at_once(), self.simulator.get_stats()["violation_details"]
        assert self.are_live(*(self.tokens()[hub_id] for hub_id in hub_ids))
        assert self.watcher.found_no_refused_token(), self.watcher.refused[:5]


@contextmanager
def start_fault_deployment(logs: Path, simulator_url: str, settings: Mapping[str, str]) -> Iterator[FaultDeployment]:
    """New servers, and a product of which no process runs yet. The output of its processes goes to `logs`."""
    with ExitStack() as stack:
        servers = Servers(stack.enter_context(server_folder("faults")))
        stack.callback(servers.stop)
        url = servers.postgres.url()
        simulator = stack.enter_context(SimulatorControl(simulator_url))
        simulator.reset(settings=True, accounts=True)
        simulator.change_settings(lifetime=TOKEN_LIFETIME_SECONDS)
        environment = product_environment(url, servers.valkey.url(), simulator_url, **{**SHORT_TIMEOUTS, **settings})
        product = Product(environment, logs)
        sql = ReconnectingSql(url)
        stack.callback(sql.close)
        stack.callback(product.stop)
        yield FaultDeployment(product, simulator, sql, servers, url)
