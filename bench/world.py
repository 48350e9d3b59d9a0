"""What every figure of a run is measured on: real servers, the settings of a real product, one simulated HubSpot."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg2
import requests

from bench.processes import Process, run
from sandbox.embedded import EmbeddedPostgres, EmbeddedValkey
from sandbox.embedded.databases import create_database
from sandbox.ports import find_free_port
from sandbox.run_config import Ports, load_secrets, make_run_config

#: What every process may know of the machine; the rest of its environment is ours.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
#: PostgreSQL's own record of when each row's newest version was committed: how late a refresh was is read from it.
COMMIT_TIMES = "ALTER SYSTEM SET track_commit_timestamp = on"


#: Seconds between two looks whether it is quiet.
REST = 0.05


@dataclass(frozen=True, slots=True)
class Answers:
    """What the simulated HubSpot has answered so far."""

    at: float  #: seconds, by the monotonic clock of the machine
    answered: dict[str, int]
    at_once: int  #: refreshes of a hub whose refresh was being answered


class HubSpotHandle:
    """Asks and sets the simulated HubSpot."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port
        self._session = requests.Session()
        self._session.trust_env = False

    def set(self, *, delay: float, life: int) -> None:
        """Seconds that an answer takes, and that an access token lives. Only while nobody asks."""
        self._told(f"?delay={delay}&life={life}")

    def answers(self) -> Answers:
        told = self._told("")
        return Answers(told["at"], told["answered"], told["at_once"])

    def refreshes(self) -> int:
        return self.answers().answered.get("refresh", 0)

    def newest(self) -> dict[int, int]:
        """By hub, the number of the token that it was given last, since this was asked before."""
        return {int(hub_id): number for hub_id, number in self._told("/newest").items()}

    def rest(self) -> None:
        """Wait until nobody waits for an answer: those who asked may be gone."""
        while self._told("")["waiting"]:
            time.sleep(REST)

    def _told(self, query: str) -> Any:
        return self._session.get(f"http://127.0.0.1:{self.port}/bench{query}", timeout=20).json()


@dataclass(frozen=True, slots=True)
class World:
    folder: Path
    environment: dict[str, str] = field(repr=False)  #: of the product's processes
    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    hubspot: HubSpotHandle

    @property
    def database_url(self) -> str:
        return self.environment["DATABASE_URL"]

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(self.database_url)) as connection:
            connection.autocommit = True  # VACUUM runs in no transaction
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []

    def value(self, statement: str, *values: Any) -> Any:
        return self.sql(statement, *values)[0][0]

    def elsewhere(self, redis_number: int) -> World:
        """The same with another Redis database: a baseline's messages are no business of the product's."""
        return replace(self, environment={**self.environment, "REDIS_URL": self.valkey.url(redis_number)})


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """In the end nothing of it runs any more. Raises EmbeddedError, Failed."""
    with ExitStack() as ending:
        postgres, valkey = EmbeddedPostgres(folder), EmbeddedValkey(folder)
        ending.callback(postgres.stop)
        postgres.start()
        with closing(psycopg2.connect(postgres.url())) as connection:
            connection.autocommit = True
            connection.cursor().execute(COMMIT_TIMES)
        postgres.stop()
        postgres.start()
        ending.callback(valkey.stop)
        valkey.start()
        secrets = load_secrets(folder / "secrets", {})
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}  # noqa: TID251
        port_free = {"HUBSPOT_CLIENT_SECRET": secrets["SIMULATOR_CLIENT_SECRET"], "PYTHONUNBUFFERED": "1"}
        process = Process("hubspot", ["python", "-m", "bench.hubspot"], {**inherited, **port_free}, folder)
        ending.callback(process.kill)
        port = int(process.says(r"listens on port (\d+)")[1])
        urls = {"DATABASE_URL": create_database(postgres, "bench"), "REDIS_URL": valkey.url(1)}
        ports = Ports(web=find_free_port(), flower=0, simulator=port)
        settings = make_run_config({}, ports, secrets, urls).settings
        environment = {**inherited, **settings, "PYTHONUNBUFFERED": "1"}
        run("migrate", ["tokenkeeper", "migrate"], environment)
        yield World(folder, environment, postgres, valkey, HubSpotHandle(process, port))
