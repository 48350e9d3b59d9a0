"""The database servers of one run: embedded ones, except where a URL of another server is given."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.embedded import EmbeddedPostgres, EmbeddedValkey
from sandbox.embedded.databases import create_database

#: Runs with the simulator (True) and with HubSpot (False) keep their data apart: the tokens of one mean nothing to
#: the other.
DATABASE_NAMES = {True: "simulated", False: "tokenkeeper"}
REDIS_DATABASE_NUMBERS = {True: 1, False: 0}
POLL_SECONDS = 1.0


@dataclass(slots=True)
class Servers:
    urls: dict[str, str] = field(default_factory=dict, repr=False)  #: settings, of the embedded servers alone
    postgres: EmbeddedPostgres | None = None
    valkey: EmbeddedValkey | None = None
    database: str = ""

    def addresses(self) -> dict[str, str]:
        """Where the embedded servers listen, by their names."""
        addresses = {}
        if self.postgres:
            addresses["PostgreSQL"] = f"127.0.0.1:{self.postgres.port}, database {self.database}"
        if self.valkey:
            addresses["Valkey"] = f"127.0.0.1:{self.valkey.port}"
        return addresses

    def by_name(self) -> dict[str, EmbeddedPostgres | EmbeddedValkey]:
        servers = {"PostgreSQL": self.postgres, "Valkey": self.valkey}
        return {name: server for name, server in servers.items() if server}

    def wait_until_one_ends(self) -> str:
        """The name of the embedded server that ended. Does not return while all run."""
        while True:
            for name, server in self.by_name().items():
                if server.process and server.process.poll() is not None:
                    return name
            time.sleep(POLL_SECONDS)


@contextmanager
def run_servers(
    state: Path, given: Mapping[str, str], say: Callable[[str], None], *, is_simulated: bool
) -> Iterator[Servers]:
    """Raises EmbeddedError. At the end all embedded servers are stopped; a second Ctrl-C does not interrupt that."""
    servers = Servers(database=DATABASE_NAMES[is_simulated])
    start = time.monotonic()
    try:
        if not given.keys() & {"DATABASE_URL", "DATABASE_URL_FILE"}:
            servers.postgres = EmbeddedPostgres(state)
            servers.postgres.start()
            if state.resolve() not in servers.postgres.folder.parents:
                say(f"PostgreSQL runs as `nobody`, who may not enter {state}: its data is in {servers.postgres.folder}")
            servers.urls["DATABASE_URL"] = create_database(servers.postgres, servers.database)
        if not given.keys() & {"REDIS_URL", "REDIS_URL_FILE"}:
            servers.valkey = EmbeddedValkey(state)
            servers.valkey.start()
            servers.urls["REDIS_URL"] = servers.valkey.url(REDIS_DATABASE_NUMBERS[is_simulated])
        if addresses := servers.addresses():
            say(f"{' and '.join(addresses)} started in {time.monotonic() - start:.1f} s")
        yield servers
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)
        for server in (servers.valkey, servers.postgres):
            if server:
                server.stop()
