"""Databases of one real PostgreSQL for tests: empty ones, and copies of one that was migrated once.

In a migrated one web and worker have logins of their own, with no more power than they need.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2
from psycopg2 import sql

from shared.db.schema.migrate import create_roles
from shared.db.schema.privileges import PRIVILEGES, WEB, WORKER
from shared.db.schema.roles import Login, name_group_role

#: Above every hub id of the tests but the highest possible one.
FIRST_CONNECTION_ID = 7_000_000_000_000


class Databases:
    """Databases of one PostgreSQL, made from a migrated template in 20 ms by the user of `admin_url`."""

    def __init__(self, admin_url: str, migrate: Callable[[str], None]) -> None:
        self._admin_url = admin_url.replace("postgresql+psycopg2://", "postgresql://", 1)
        self._migrate = migrate
        self._template = ""
        self._connection: Any = None
        self._logins = {
            role: Login(f"tokenkeeper_{role}_{secrets.token_hex(4)}", secrets.token_hex(8)) for role in (WEB, WORKER)
        }

    def as_web(self, url: str) -> str:
        """The URL of a migrated database, for web."""
        return _as(self._logins[WEB], url)

    def as_worker(self, url: str) -> str:
        return _as(self._logins[WORKER], url)

    def create_logins(self, url: str) -> None:
        """In a migrated database of this server that another instance of this class made."""
        create_roles(url, self._logins)

    def url(self, name: str) -> str:
        return urlunsplit(urlsplit(self._admin_url)._replace(path=f"/{name}"))

    @contextmanager
    def create_empty(self) -> Iterator[str]:
        """The URL of a database without a schema."""
        with self._temporary_database("template0") as name:
            yield self.url(name)

    @contextmanager
    def create_migrated(self) -> Iterator[str]:
        with self._temporary_database(self._make_template()) as name:
            yield self.url(name)

    def close(self) -> None:
        if self._template:
            self._drop(self._template)
            for login in self._logins.values():
                self._run(sql.SQL("DROP ROLE {}").format(sql.Identifier(login.name)))

    def _make_template(self) -> str:
        if not self._template:
            self._template = self._create("template0")
            self._migrate(self.url(self._template))
            _separate_ids(self.url(self._template))
            create_roles(self.url(self._template), self._logins)
        return self._template

    @contextmanager
    def _temporary_database(self, template: str) -> Iterator[str]:
        name = self._create(template)
        try:
            yield name
        finally:
            self._drop(name)

    def _create(self, template: str) -> str:
        name = f"test_{secrets.token_hex(6)}"
        # By default PostgreSQL logs every page of the copy, which takes twice the CPU time.
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        self._run(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def _drop(self, name: str) -> None:
        self._run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        for process in PRIVILEGES:
            role = name_group_role(process, name)
            self._run(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))

    def _run(self, statement: sql.Composed) -> None:
        try:
            self._execute(statement)
        except (psycopg2.OperationalError, psycopg2.InterfaceError):  # the server was restarted
            self._connection = None
            self._execute(statement)

    def _execute(self, statement: sql.Composed) -> None:
        if self._connection is None:
            self._connection = psycopg2.connect(self._admin_url)
            self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute(statement)


def _as(login: Login, url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{login.name}:{login.password}@{parts.netloc.rpartition('@')[2]}"))


def _separate_ids(url: str) -> None:
    """Let no connection have a small number as its id: in a new database it could be its hub id by chance."""
    connection = psycopg2.connect(url)
    with closing(connection), connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE tokenkeeper.connections ALTER COLUMN id RESTART WITH %s", (FIRST_CONNECTION_ID,))
