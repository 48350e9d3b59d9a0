"""Databases of one real PostgreSQL for tests: empty ones, and copies of one that was migrated once.

In a migrated one web and worker have logins of their own, with no more power than they need.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2
from psycopg2 import sql
from sqlalchemy import Engine

from shared.db.schema.migrate import create_roles, migrate
from shared.db.schema.privileges import PRIVILEGES, WEB, WORKER
from shared.db.schema.roles import Login, name_group_role
from tests.support.reusable_database import ReusableDatabase

#: Above every hub id of the tests but the highest possible one.
FIRST_CONNECTION_ID = 7_000_000_000_000
#: The template of a server that was migrated before it was copied, and its logins.
MIGRATED = "migrated"
LOGINS = {WEB: Login("login_of_web", "password-of-web"), WORKER: Login("login_of_worker", "password-of-worker")}


class Databases:
    """Databases of one PostgreSQL, made by the user of `admin_url`: copies of `template`, a database with `LOGINS`.

    Where there is no template, the first copy makes one, with logins that have names of their own.
    """

    def __init__(self, admin_url: str, template: str = "") -> None:
        self._admin_url = admin_url.replace("postgresql+psycopg2://", "postgresql://", 1)
        self._template = template
        self._has_own_template = not template
        self._connection: Any = None
        self._logins: Mapping[str, Login] = LOGINS if template else _new_logins()
        self._reusable: list[ReusableDatabase] = []  #: those that no test uses now
        self._borrowed: dict[str, ReusableDatabase] = {}  #: by URL

    def as_web(self, url: str) -> str:
        """The URL of a migrated database, for web."""
        return _as(self._logins[WEB], url)

    def as_worker(self, url: str) -> str:
        return _as(self._logins[WORKER], url)

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

    @contextmanager
    def borrow_migrated(self) -> Iterator[str]:
        """As `create_migrated`, at a fifth of the cost: others have used the database, and their rows are deleted."""
        database = self._reusable.pop() if self._reusable else self._create_reusable()
        self._borrowed[database.url] = database
        try:
            yield database.url
        finally:
            del self._borrowed[database.url]
            if database.reset():
                self._reusable.append(database)
            else:
                database.close()
                self._drop(database.name)

    def lend_session(self, url: str) -> Any:
        """A superuser's session in a borrowed database, which stays open; None: in another database there is none."""
        database = self._borrowed.get(url)
        return database and database.lend_session()

    def lend_connection(self, engine: Engine, url: str) -> AbstractContextManager[None]:
        """Let this engine of the worker's, for a borrowed database, begin with a connection that others have used."""
        return self._borrowed[url].worker_connection.lend_to(engine)

    def close(self) -> None:
        for database in self._reusable:
            database.close()
            self._drop(database.name)
        if self._has_own_template and self._template:
            self._drop(self._template)
            for login in self._logins.values():
                self._run(sql.SQL("DROP ROLE {}").format(sql.Identifier(login.name)))

    def _make_template(self) -> str:
        if not self._template:
            self._template = self._create("template0")
            migrate_as_template(self.url(self._template), self._logins)
        return self._template

    def _create_reusable(self) -> ReusableDatabase:
        return ReusableDatabase(self.url(self._create(self._make_template())))

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


def migrate_as_template(url: str, logins: Mapping[str, Login]) -> None:
    """Give an empty database the newest schema, and the logins their privileges in it."""
    migrate(url)
    _separate_ids(url)
    create_roles(url, logins)


def _new_logins() -> Mapping[str, Login]:
    return {role: Login(f"tokenkeeper_{role}_{secrets.token_hex(4)}", secrets.token_hex(8)) for role in (WEB, WORKER)}


def _as(login: Login, url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{login.name}:{login.password}@{parts.netloc.rpartition('@')[2]}"))


def _separate_ids(url: str) -> None:
    """Let no connection have a small number as its id: in a new database it could be its hub id by chance."""
    connection = psycopg2.connect(url)
    with closing(connection), connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE tokenkeeper.connections ALTER COLUMN id RESTART WITH %s", (FIRST_CONNECTION_ID,))
