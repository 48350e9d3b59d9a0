"""Brings a database to this code's schema, and says plainly where it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from shared.db.core.engine import make_engine
from shared.db.core.errors import SchemaError, translate_errors
from shared.db.schema import roles

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["SchemaError", "check_schema", "downgrade", "migrate"]

MIGRATIONS = Path(__file__).parent / "migrations"
#: Every revision of this code, oldest first: the first four letters of its file's name.
REVISIONS = tuple(sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")))
#: Two keys, so that no hub's own lock (shared/db/lifecycle/installs.py) is ever this one.
ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(1953459562, 1)"
NO_ROLE = (
    "the role hubspot_reader does not exist, and this login may not create it: "
    "have an administrator run: CREATE ROLE hubspot_reader NOLOGIN;"
)
NO_PRIVILEGE = (
    "this login may not create what the schema needs: have an administrator run: "
    "GRANT CREATE ON DATABASE … TO the user in DATABASE_URL"
)
TOO_NEW = "this database was migrated by a newer tokenkeeper: upgrade the code"


def migrate(database_url: str) -> None:
    """To the newest revision, in one transaction; where it is there already, nothing changes.

    Two at once are safe: the second waits for the first. Raises SchemaError, StoreUnavailable.
    """
    engine = make_engine(database_url, pool_size=1, statement_seconds=None)
    try:
        with translate_errors(), _privileged(), engine.begin() as connection:
            _alone(connection)
            if connection.scalar(text("SELECT to_regnamespace('tokenkeeper')")) is None:
                connection.execute(text("CREATE SCHEMA tokenkeeper"))
            _refuse_newer(_revision(connection))
            _upgrade(connection)
            roles.settle(connection)
    finally:
        engine.dispose()


def create_roles(database_url: str, logins: Mapping[str, roles.Login]) -> None:
    """The group roles with their privileges, and a login in each that `logins` names. May be repeated.

    Raises SchemaError, StoreUnavailable.
    """
    engine = make_engine(database_url, pool_size=1, statement_seconds=None)
    try:
        check_schema(engine)
        with translate_errors(), _privileged(), engine.begin() as connection:
            _alone(connection)
            roles.create(connection)
            roles.settle(connection)
            for role, login in logins.items():
                roles.admit(connection, role, login)
    finally:
        engine.dispose()


def downgrade(database_url: str, revision: str) -> None:
    """Back to `revision` ("base": nothing), and what is stored is gone."""
    from alembic import command  # noqa: PLC0415  see _upgrade

    engine = make_engine(database_url, pool_size=1, statement_seconds=None)
    try:
        with translate_errors(), engine.begin() as connection:
            _alone(connection)
            command.downgrade(_config(connection), revision)
    finally:
        engine.dispose()


def check_schema(engine: Engine, revisions: Sequence[str] = REVISIONS) -> None:
    """Raises SchemaError where the schema is not this code's, StoreUnavailable where PostgreSQL is silent."""
    with translate_errors(), engine.connect() as connection:
        revision = _revision(connection)
    if revision is None:
        raise SchemaError("this database is not migrated: run: tokenkeeper migrate")
    _refuse_newer(revision)
    if revision != revisions[-1]:
        raise SchemaError(
            f"this database is at revision {revision}, the code at {revisions[-1]}: run: tokenkeeper migrate"
        )


def _alone(connection: Connection) -> None:
    connection.execute(text("SET LOCAL lock_timeout = '60s'"))
    connection.execute(text(ONE_AT_A_TIME))
    # From here on we hold up readers: rather fail than let everybody queue behind a lock of ours.
    connection.execute(text("SET LOCAL lock_timeout = '5s'"))


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415  workers check the schema without carrying Alembic in memory

    command.upgrade(_config(connection), "head")


def _config(connection: Connection) -> Config:
    from alembic.config import Config  # noqa: PLC0415  see _upgrade

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _revision(connection: Connection) -> str | None:
    if connection.scalar(text("SELECT to_regclass('tokenkeeper.alembic_version')")) is None:
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM tokenkeeper.alembic_version"))
    return revision


def _refuse_newer(revision: str | None) -> None:
    if revision is not None and revision not in REVISIONS:
        raise SchemaError(TOO_NEW)


class _privileged:  # noqa: N801  used as a statement: with _privileged()
    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        cause = error.orig if isinstance(error, DBAPIError) else None
        if getattr(cause, "pgcode", None) == "TK001":
            raise SchemaError(NO_ROLE) from None
        if isinstance(cause, psycopg2.errors.InsufficientPrivilege):
            raise SchemaError(NO_PRIVILEGE) from None
