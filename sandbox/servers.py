"""The servers of one run: ours, but for those whose URL is given."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.embedded import EmbeddedPostgres, EmbeddedValkey
from sandbox.embedded.databases import create_database

#: A world each: the simulator's tokens are nothing to show to HubSpot. Names of a database and numbers of Redis.
DATABASES = {True: "simulated", False: "tokenkeeper"}
REDIS_NUMBERS = {True: 1, False: 0}
WATCH_SECONDS = 1.0


@dataclass(slots=True)
class Servers:
    urls: dict[str, str] = field(default_factory=dict, repr=False)  #: of those that are ours
    postgres: EmbeddedPostgres | None = None
    valkey: EmbeddedValkey | None = None
    database: str = ""

    def places(self) -> dict[str, str]:
        """Where those that are ours listen."""
        places = {}
        if self.postgres:
            places["PostgreSQL"] = f"127.0.0.1:{self.postgres.port}, database {self.database}"
        if self.valkey:
            places["Valkey"] = f"127.0.0.1:{self.valkey.port}"
        return places

    def homes(self) -> dict[str, Path]:
        ours = {"PostgreSQL": self.postgres, "Valkey": self.valkey}
        return {name: server.home for name, server in ours.items() if server}

    def wait_until_one_is_lost(self) -> str:
        """Its name. Never returns while all run."""
        while True:
            for name, server in (("PostgreSQL", self.postgres), ("Valkey", self.valkey)):
                if server and server.process and server.process.poll() is not None:
                    return name
            time.sleep(WATCH_SECONDS)


@contextmanager
def started(state: Path, given: Mapping[str, str], say: Callable[[str], None], *, simulated: bool) -> Iterator[Servers]:
    """Raises EmbeddedError. In the end they stop, and no second Ctrl-C comes in between."""
    servers = Servers(database=DATABASES[simulated])
    began = time.monotonic()
    try:
        if not given.keys() & {"DATABASE_URL", "DATABASE_URL_FILE"}:
            _start_postgres(servers, state, say)
        if not given.keys() & {"REDIS_URL", "REDIS_URL_FILE"}:
            servers.valkey = EmbeddedValkey(state)
            servers.valkey.start()
            servers.urls["REDIS_URL"] = servers.valkey.url(REDIS_NUMBERS[simulated])
        if ours := servers.places():
            say(f"{' and '.join(ours)} started in {time.monotonic() - began:.1f} s")
        yield servers
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)
        for server in (servers.valkey, servers.postgres):
            if server:
                server.stop()


def _start_postgres(servers: Servers, state: Path, say: Callable[[str], None]) -> None:
    servers.postgres = EmbeddedPostgres(state)
    servers.postgres.start()
    if state.resolve() not in servers.postgres.home.parents:
        say(f"PostgreSQL runs as `nobody`, who may not enter {state}: its data is in {servers.postgres.home}")
    servers.urls["DATABASE_URL"] = create_database(servers.postgres, servers.database)
