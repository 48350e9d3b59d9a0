"""A product on servers of its own, a few connections that it keeps, and what must be true after every fault."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import redis

from sandbox.child_processes import ChildProcess
from sandbox.embedded import EmbeddedPostgres, EmbeddedValkey
from sandbox.simulator.control import SimulatorControl
from shared.db.schema.migrate import migrate
from tests.journeys.world import World
from tests.support.databases import Databases
from tests.support.environment import product_environment
from tests.support.folders import server_folder
from tests.support.polling import until
from tests.support.product import Product
from tests.support.stores import SqlFixture
from tests.support.token_watcher import Watch

#: The lease stays legal: twice the timeout plus 5.
HASTE = {"SWEEP_SECONDS": "0.5", "HTTP_TIMEOUT_SECONDS": "1", "LEASE_SECONDS": "7"}
#: Long enough that no test waits for it, short enough that a retry comes within two seconds.
LIFETIME = 60
FIRST_HUB, HUBS = 1_000, 12
#: Seconds. A lease runs out, HubSpot is probed six times a minute, then the ramp.
PATIENCE = 40.0
CUT = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE application_name = 'tokenkeeper' AND datname = current_database()
"""


class SteadySql(SqlFixture):
    """Asks again, on a new connection, where the server was restarted or ours was cut."""

    def __init__(self, url: str) -> None:
        self._url = url
        super().__init__(self._opened())

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        (rows,) = until(lambda: self._tried(statement, values))
        return rows  # type: ignore[no-any-return]

    def close(self) -> None:
        self._connection.close()

    def _opened(self) -> Any:
        connection = psycopg2.connect(self._url, connect_timeout=2)
        connection.autocommit = True
        return connection

    def _tried(self, statement: str, values: tuple[Any, ...]) -> tuple[list[tuple[Any, ...]]] | None:
        try:
            if self._connection.closed:
                self._connection = self._opened()
            return (super().rows(statement, *values),)
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            self._connection.close()
            return None


class Servers:
    """PostgreSQL and Valkey that a test may ruin. Both come back on their ports, Valkey with nothing in it."""

    def __init__(self, folder: Path) -> None:
        # Durable: an immediate stop must not lose what was committed, and that is what is tested.
        self.postgres = EmbeddedPostgres(folder, durable=True)
        self.valkey = EmbeddedValkey(folder, durable=False)
        self.postgres.start()
        self.valkey.start()

    def stop(self) -> None:
        self.valkey.stop()
        self.postgres.stop()

    def crash_postgres(self) -> None:
        """`pg_ctl stop -m immediate`: no word to anybody, recovery at the next start."""
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
    def frozen_valkey(self) -> Iterator[None]:
        assert self.valkey.process is not None
        with _frozen([psutil.Process(self.valkey.process.pid)]):
            yield

    @contextmanager
    def frozen_postgres(self) -> Iterator[None]:
        """Its sockets stay open and take what is sent; nobody answers."""
        assert self.postgres.process is not None
        main = psutil.Process(self.postgres.process.pid)
        with _frozen([main, *main.children(recursive=True)]):
            yield


@contextmanager
def _frozen(processes: Sequence[psutil.Process]) -> Iterator[None]:
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


class Fleet:
    """`world` runs on `servers` and keeps `hubs`. `watch` has been looking since the test began."""

    def __init__(self, world: World, servers: Servers, database_url: str) -> None:
        self.world = world
        self.servers = servers
        self.simulator = world.simulator
        self.sql = world.sql
        self.database_url = database_url
        self.hubs: list[int] = []
        self.watch = self.watching()

    def watching(self, *, every: float = 0.05) -> Watch:
        return Watch(self.database_url, self.simulator.base_url, every=every)

    def imported(self, count: int = HUBS, first: int = FIRST_HUB) -> Fleet:
        """Their tokens are due at once; whoever calls waits for them."""
        tokens = self.simulator.install_many(count, first)
        lines = "".join(f"{hub_id},{token}\n" for hub_id, token in tokens.items())
        told = self.world.product.tokenkeeper("import", "-", stdin=f"hub_id,refresh_token\n{lines}")
        assert told.returncode == 0, told.stderr
        self.hubs += tokens
        return self

    def due(self, *hubs: int) -> dict[int, str]:
        """Theirs, or everybody's, refresh is due now. The tokens of before."""
        before = self.world.tokens()
        listed = list(hubs or self.hubs)
        self.sql.rows("UPDATE tokenkeeper.connections SET due_at = now() WHERE hub_id = ANY(%s)", listed)
        return {hub_id: before.get(hub_id, "") for hub_id in listed}

    def under_way(self) -> int:
        """Refreshes at HubSpot this moment."""
        by_hub: Mapping[str, Mapping[str, int]] = self.simulator.get_stats()["by_hub"]
        return sum(row["in_flight"] for row in by_hub.values())

    def due_and_under_way(self, *hubs: int, at_least: int = 3) -> dict[int, str]:
        before = self.due(*hubs)
        until(lambda: self.under_way() >= at_least)
        return before

    def replaced(self, before: Mapping[int, str], seconds: float = PATIENCE) -> None:
        """Wait until each has another token than before."""

        def all_new() -> bool:
            now = self.world.tokens()
            return all(now.get(hub_id, old) != old for hub_id, old in before.items())

        until(all_new, seconds)

    def cut_connections(self) -> int:
        """All that the product has to PostgreSQL. How many there were."""
        return int(self.sql.value(CUT))

    def calls(self) -> int:
        """Refreshes that HubSpot was asked for so far."""
        return sum(row["refreshes"] for row in self.simulator.get_stats()["by_hub"].values())

    def condition(self) -> str:
        return str(self.sql.value("SELECT condition FROM tokenkeeper.provider"))

    def newest(self, name: str) -> ChildProcess:
        return self.world.named(name)[-1]

    def children(self, name: str) -> list[int]:
        return [child.pid for child in psutil.Process(self.newest(name).pid).children()]

    def signal_child(self, name: str, signum: int) -> int:
        """Its first child. The child's number."""
        child = self.children(name)[0]
        os.kill(child, signum)
        return child

    def well_again(self, but: Collection[int] = ()) -> None:
        """None lost, none falsely revoked, none asked for twice at once, no dead token served, all fresh again."""
        self.simulator.clear_faults()
        hubs = [hub_id for hub_id in self.hubs if hub_id not in but]
        self.replaced(self.due(*hubs))
        standing = dict(self.sql.rows("SELECT hub_id, status FROM hubspot.connections"))
        assert [hub_id for hub_id in hubs if standing.get(hub_id) != "active"] == []
        assert self.watch.ended <= set(but)
        assert self.world.never_two_at_once(), self.simulator.get_stats()["violation_details"]
        assert self.world.live(*(self.world.tokens()[hub_id] for hub_id in hubs))
        assert self.watch.faultless(), self.watch.refused[:5]


@contextmanager
def servers_and_product(logs: Path, simulator_url: str, settings: Mapping[str, str]) -> Iterator[Fleet]:
    """Servers of its own, and a product of which nothing runs yet. What its processes say goes to `logs`."""
    with ExitStack() as stack:
        servers = Servers(stack.enter_context(server_folder("faults")))
        stack.callback(servers.stop)
        url = stack.enter_context(Databases(servers.postgres.url(), migrate).migrated())
        simulator = stack.enter_context(SimulatorControl(simulator_url))
        simulator.reset(settings=True, accounts=True)
        simulator.change_settings(lifetime=LIFETIME)
        environment = product_environment(url, servers.valkey.url(), simulator_url, **{**HASTE, **settings})
        product = Product(environment, logs)
        sql = SteadySql(url)
        stack.callback(sql.close)
        stack.callback(product.stop)
        yield Fleet(World(product, simulator, sql), servers, url)
