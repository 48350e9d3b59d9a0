"""New PostgreSQL servers for tests, each with a copy of the same data folder: initdb takes four times as long.

A migrated server has a database that was migrated before the copy was made: a migration takes half a second.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psycopg2

from sandbox.embedded import EmbeddedPostgres
from tests.support.databases import LOGINS, MIGRATED, Databases, migrate_as_template
from tests.support.folders import make_once, server_folder

Server = TypeVar("Server", bound=EmbeddedPostgres)


class MigratedPostgres(EmbeddedPostgres):
    def url(self, database: str = MIGRATED) -> str:
        """The superuser's URL: of the migrated database, where none is given."""
        return super().url(database)

    @property
    def databases(self) -> Databases:
        return Databases(self.url("postgres"), template=MIGRATED)


def make_postgres(folder: Path, *, durable: bool) -> EmbeddedPostgres:
    """Not started. `folder` is a `server_folder` that has no PostgreSQL yet."""
    _copy_server(make_once("initialised", _initialise), folder)
    return EmbeddedPostgres(folder, durable=durable)


def make_migrated_postgres(folder: Path, *, durable: bool) -> MigratedPostgres:
    """Not started. `folder` is a `server_folder` that has no PostgreSQL yet."""
    _copy_server(make_once("migrated", _initialise_and_migrate), folder)
    return MigratedPostgres(folder, durable=durable)


@contextmanager
def running(make: Callable[..., Server]) -> Iterator[Server]:
    """A server in a folder of its own, which the test may stop, kill by its `process`, and start on the same port."""
    with server_folder("own") as folder:
        server = make(folder, durable=False)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _copy_server(source: Path, folder: Path) -> None:
    if not (folder / "postgres").exists():
        # Of root, and so by an external command: Python copies no owners.
        subprocess.run(["cp", "-a", source / "postgres", folder / "postgres"], check=True)


def _initialise(folder: Path) -> None:
    _run_once(EmbeddedPostgres(folder, durable=False), lambda server: None)


def _initialise_and_migrate(folder: Path) -> None:
    def add_database(server: EmbeddedPostgres) -> None:
        connection = psycopg2.connect(server.url())
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {MIGRATED} TEMPLATE template0 STRATEGY file_copy")
        connection.close()
        migrate_as_template(server.url(MIGRATED), LOGINS)

    _run_once(make_postgres(folder, durable=False), add_database)


def _run_once(server: EmbeddedPostgres, use: Callable[[EmbeddedPostgres], None]) -> None:
    server.start()
    use(server)
    server.stop()
    for name in ("port", "postgres.log"):
        (server.folder / name).unlink()
