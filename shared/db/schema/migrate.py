"""Brings a database to the schema of this code, and says in one line what to do where it is not there.

Alembic runs the revisions under migrations/versions. The first one, 0004, creates everything. A database of the
released 0.1.0 (revision 0003) is first brought to 0004 by upgrade_from_0_1.sql: see docs/adr/0015.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg2
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from shared.db.core.engine import make_engine
from shared.db.core.errors import SchemaError, translate_errors
from shared.db.schema import roles

__all__ = ["SchemaError", "check_schema", "create_roles", "migrate"]

MIGRATIONS = Path(__file__).parent / "migrations"
#: Every revision of this code, oldest first: the first four characters of its file's name.
REVISIONS = tuple(sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")))
#: The revision of tokenkeeper 0.1.0.
REVISION_0_1 = "0003"
#: Whether there is a table by which to lock, and this login may.
CAN_LOCK_MIGRATIONS = text("""
SELECT has_table_privilege(to_regclass('tokenkeeper.alembic_version'), 'UPDATE')
""")
LOCK_MIGRATIONS = text("LOCK TABLE tokenkeeper.alembic_version IN SHARE ROW EXCLUSIVE MODE")
NO_ROLE = (
    "the role hubspot_reader does not exist, and this login may not create it: "
    "have an administrator run: CREATE ROLE hubspot_reader NOLOGIN;"
)
NO_PRIVILEGE = (
    "this login may not create what the schema needs: have an administrator run: "
    "GRANT CREATE ON DATABASE … TO the user in DATABASE_URL"
)
NOT_MIGRATED = "this database is not migrated: run: tokenkeeper migrate"
TOO_NEW = "this database was migrated by a newer tokenkeeper: upgrade the code"
TOO_OLD = (
    "this database is at revision {revision}, older than tokenkeeper 0.1.0: "
    "run: tokenkeeper migrate, of version 0.1.0, then of this version"
)
OUTDATED = "this database is at revision {revision}, the code at {head}: run: tokenkeeper migrate"


def migrate(database_url: str) -> None:
    """Bring the database to the newest revision, in one transaction; where it is there already, nothing changes.

    Two at once are safe: the second waits for the first. Raises SchemaError, StoreUnavailable.
    """
    with _schema_transaction(database_url) as connection:
        revision = _read_revision(connection)
        _check_supported(revision)
        if revision == REVISION_0_1:
            connection.exec_driver_sql((MIGRATIONS / "upgrade_from_0_1.sql").read_text(encoding="utf-8"))
        _run_alembic(connection)
        roles.sync_privileges(connection)


def create_roles(database_url: str, logins: Mapping[str, roles.Login]) -> None:
    """Create the group roles with their privileges, and a login in each role that `logins` names. May be repeated.

    Raises SchemaError, StoreUnavailable.
    """
    with _schema_transaction(database_url) as connection:
        _check_current(_read_revision(connection), REVISIONS)
        roles.create_group_roles(connection)
        roles.sync_privileges(connection)
        for role, login in logins.items():
            roles.create_login(connection, role, login)


def check_schema(engine: Engine, revisions: Sequence[str] = REVISIONS) -> None:
    """Raise SchemaError where the schema is not this code's, StoreUnavailable where PostgreSQL does not answer."""
    with translate_errors(), engine.connect() as connection:
        revision = _read_revision(connection)
    _check_current(revision, revisions)


@contextmanager
def _schema_transaction(database_url: str) -> Iterator[Connection]:
    """A transaction in which nothing else migrates. Raises SchemaError (a privilege is missing), StoreUnavailable."""
    engine = make_engine(database_url, pool_size=1, statement_seconds=None)
    try:
        with translate_errors(), engine.begin() as connection:
            try:
                connection.execute(text("SET LOCAL lock_timeout = '60s'"))
                _wait_for_other_migrations(connection)
                # A statement that waits for a table's lock makes every reader wait behind it: better to fail soon.
                connection.execute(text("SET LOCAL lock_timeout = '5s'"))
                yield connection
            except DBAPIError as error:
                if getattr(error.orig, "pgcode", None) == "TK001":  # raised by 0004_public.sql
                    raise SchemaError(NO_ROLE) from None
                if isinstance(error.orig, psycopg2.errors.InsufficientPrivilege):
                    raise SchemaError(NO_PRIVILEGE) from None
                raise
    finally:
        engine.dispose()


def _wait_for_other_migrations(connection: Connection) -> None:
    """One at a time, by locks that only the owner can take: any login that can connect may take an advisory lock.

    In a new database it is the name of the schema, of which PostgreSQL lets only one transaction insert a row.
    """
    if connection.scalar(text("SELECT to_regnamespace('tokenkeeper')")) is None:
        try:
            with connection.begin_nested():
                connection.execute(text("CREATE SCHEMA tokenkeeper"))
        except DBAPIError as error:
            if not isinstance(error.orig, (psycopg2.errors.UniqueViolation, psycopg2.errors.DuplicateSchema)):
                raise
    if connection.scalar(CAN_LOCK_MIGRATIONS):
        connection.execute(LOCK_MIGRATIONS)


def _read_revision(connection: Connection) -> str | None:
    """None: the database was never migrated."""
    if connection.scalar(text("SELECT to_regclass('tokenkeeper.alembic_version')")) is None:
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM tokenkeeper.alembic_version"))
    return revision


def _check_supported(revision: str | None) -> None:
    """Raise SchemaError where this code cannot migrate from `revision`."""
    if revision is None or revision in (REVISION_0_1, *REVISIONS):
        return
    raise SchemaError(TOO_OLD.format(revision=revision) if revision < REVISION_0_1 else TOO_NEW)


def _check_current(revision: str | None, revisions: Sequence[str]) -> None:
    _check_supported(revision)
    if revision is None:
        raise SchemaError(NOT_MIGRATED)
    if revision != revisions[-1]:
        raise SchemaError(OUTDATED.format(revision=revision, head=revisions[-1]))


def _run_alembic(connection: Connection) -> None:
    # Imported here because web and worker only check the schema: they need not hold Alembic in memory.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
