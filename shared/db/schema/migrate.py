"""Brings a database to the schema of this code, and says in one line what to do where it is not there.

Alembic runs the revisions under migrations/versions. The first one, 0004, creates everything. A database of the
released 0.1.0 (revision 0003) is first brought to 0004 by upgrade_from_0_1.sql: see docs/adr/0015.

A new database gets all revisions in one transaction. One that is in use gets one after the other, each in a transaction
of its own that is short: what takes long is done before, while everything runs (online.py).
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
from shared.db.schema import online, roles
from shared.db.schema.access import check_encoding
from shared.db.schema.privileges import PRIVILEGES

__all__ = ["SchemaError", "check_schema", "create_roles", "migrate"]

MIGRATIONS = Path(__file__).parent / "migrations"
#: Every revision of this code, oldest first: the first four characters of its file's name.
REVISIONS = tuple(sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")))
#: The revision of tokenkeeper 0.1.0.
REVISION_0_1 = "0003"
#: How long to wait for another migration, and between two looks at it. A million rows take some minutes.
OTHER_MIGRATION_SECONDS, OTHER_MIGRATION_POLL_SECONDS = 900.0, 0.1
NO_ROLE = (
    "the role hubspot_reader does not exist, and this login may not create it: "
    "have an administrator run: CREATE ROLE hubspot_reader NOLOGIN;"
)
NO_PRIVILEGE = (
    "the login {login} may not create schemas in database {database}: have an administrator run: "
    "GRANT CREATE ON DATABASE {database} TO {login}"
)
NOT_OWNER = (
    "schema {schema} belongs to {owner}, and the login in DATABASE_URL is {login}: "
    "run this as {owner}, or have an administrator run: ALTER SCHEMA {schema} OWNER TO {login}"
)
FOREIGN_SCHEMA = (
    "schema {schema} exists already, with {content} in it, which tokenkeeper has not made: give tokenkeeper a database "
    "of its own, or rename that schema"
)
NOT_READABLE = (
    "the login in DATABASE_URL may not read tokenkeeper's tables: as the owner of the schemas, run: tokenkeeper roles, "
    "with this login in WEB_DATABASE_URL or WORKER_DATABASE_URL (docs/operations.md, Database roles)"
)
#: `owns_schema` and `may_lock_revision` are null where there is no such schema or table.
DESCRIBE_LOGIN = text("""
SELECT current_user AS login, current_database() AS database,
       has_database_privilege(current_database(), 'CREATE') AS may_create_schemas,
       (SELECT pg_catalog.pg_has_role(nspowner, 'USAGE')
          FROM pg_catalog.pg_namespace WHERE nspname = 'tokenkeeper') AS owns_schema,
       (SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'UPDATE')
          FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname = 'tokenkeeper' AND c.relname = 'alembic_version') AS may_lock_revision
""")
#: A schema that exists, its owner, and one relation in it.
DESCRIBE_SCHEMAS = text("""
SELECT n.nspname AS schema, pg_catalog.pg_get_userbyid(n.nspowner) AS owner,
       pg_catalog.pg_has_role(n.nspowner, 'USAGE') AS is_own,
       (SELECT min(relname::text) FROM pg_catalog.pg_class WHERE relnamespace = n.oid) AS content
  FROM pg_catalog.pg_namespace AS n WHERE n.nspname IN ('tokenkeeper', 'hubspot')
""")
HAS_REVISION = text("""
SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                WHERE n.nspname = 'tokenkeeper' AND c.relname = 'alembic_version')
""")
#: What a migration needs, whatever the defaults of the login, the database and the server are. The last one is of
#: PostgreSQL 17 and later.
TRANSACTION_SETTINGS = """
SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL lock_timeout = '60s';
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL default_tablespace = '';
SET LOCAL default_table_access_method = heap;
SET LOCAL check_function_bodies = on;
SELECT set_config(name, '0', true) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout';
"""
DEPENDENT = (
    "the columns of a view change, and something else depends on it ({detail}): drop that, run: tokenkeeper migrate, "
    "and create it again"
)
NOT_MIGRATED = "this database is not migrated: run: tokenkeeper migrate"
TOO_NEW = "this database was migrated by a newer tokenkeeper: upgrade the code"
TOO_OLD = (
    "this database is at revision {revision}, older than tokenkeeper 0.1.0: "
    "run: tokenkeeper migrate, of version 0.1.0, then of this version"
)
OUTDATED = "this database is at revision {revision}, the code at {head}: run: tokenkeeper migrate"


def migrate(database_url: str, *, prepare_only: bool = False, last_revision: str = REVISIONS[-1]) -> None:
    """Bring the database to the newest revision; where it is there already, nothing changes.

    Two at once are safe: the second waits for the first. One that is interrupted can be repeated.
    `prepare_only`: of a database in use only what the next revision can do while processes of the old version run.
    `last_revision`: for tests, an earlier one. Raises SchemaError, StoreUnavailable.
    """
    while not _migrate_one_step(database_url, prepare_only, last_revision):
        pass


def _migrate_one_step(database_url: str, prepare_only: bool, last_revision: str) -> bool:
    """All revisions of a new database, or the next one of a database in use. Whether no more is to be done."""
    with _schema_transaction(database_url) as connection:
        check_encoding(connection)
        revision = _read_revision(connection)
        _check_supported(revision)
        if revision != REVISIONS[-1]:
            for schema in sorted(_check_schemas(connection, is_new=revision is None)):
                connection.execute(text(f"CREATE SCHEMA {schema}"))
        if revision == REVISION_0_1:
            connection.exec_driver_sql((MIGRATIONS / "upgrade_from_0_1.sql").read_text(encoding="utf-8"))
            return False
        if revision is None or revision == REVISIONS[-1]:
            _run_alembic(connection, last_revision)
            if last_revision == REVISIONS[-1]:
                roles.sync_privileges(connection)
            return True
        next_revision = REVISIONS[REVISIONS.index(revision) + 1]
        online.run_online(connection.engine, next_revision)
        if prepare_only:
            return True
        with online.autovacuum_off(connection.engine):
            online.retry_for_lock(lambda: _run_next_revision(connection, next_revision))
        return False


def create_roles(database_url: str, logins: Mapping[str, roles.Login]) -> dict[str, str]:
    """Create the group roles with their privileges, and the login of each process in `logins`. May be repeated.

    Returns process to group role. Raises SchemaError, StoreUnavailable.
    """
    with _schema_transaction(database_url) as connection:
        _check_current(_read_revision(connection), REVISIONS)
        _check_schemas(connection, is_new=False)
        roles.create_group_roles(connection)
        roles.sync_privileges(connection)
    # Each login is tried, which needs what the first transaction has granted.
    with _schema_transaction(database_url) as connection:
        for process, login in logins.items():
            roles.create_login(connection, process, login)
        return {process: roles.find_group_role(connection, process) for process in PRIVILEGES}


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
            connection.exec_driver_sql(TRANSACTION_SETTINGS)
            try:
                _wait_for_other_migrations(connection)
                # A statement that waits for a table's lock makes every reader wait behind it: better to fail soon.
                connection.execute(text("SET LOCAL lock_timeout = '5s'"))
                yield connection
            except DBAPIError as error:
                if getattr(error.orig, "pgcode", None) == "TK001":  # raised by 0004_public.sql
                    raise SchemaError(NO_ROLE) from None
                if isinstance(error.orig, psycopg2.errors.DependentObjectsStillExist):
                    detail = (error.orig.diag.message_detail or "").partition("\n")[0]
                    raise SchemaError(DEPENDENT.format(detail=detail)) from None
                raise
    finally:
        engine.dispose()


def _wait_for_other_migrations(connection: Connection) -> None:
    """One at a time, by locks that only the owner can take: any login that can connect may take an advisory lock.

    In a new database it is the name of the schema, of which PostgreSQL lets only one transaction insert a row.
    """
    login = connection.execute(DESCRIBE_LOGIN).one()
    if login.owns_schema is None:
        if not login.may_create_schemas:
            raise SchemaError(NO_PRIVILEGE.format(login=login.login, database=login.database))
        try:
            with connection.begin_nested():
                connection.execute(text("CREATE SCHEMA tokenkeeper"))
        except DBAPIError as error:
            if not isinstance(error.orig, (psycopg2.errors.UniqueViolation, psycopg2.errors.DuplicateSchema)):
                raise
        login = connection.execute(DESCRIBE_LOGIN).one()
    if login.may_lock_revision:
        _lock_revision(connection)
    elif login.owns_schema:  # it has no tables: an administrator has made it, or this transaction
        connection.execute(text("COMMENT ON SCHEMA tokenkeeper IS NULL"))


def _lock_revision(connection: Connection) -> None:
    """Raises StoreUnavailable where another migration runs for longer than about OTHER_MIGRATION_SECONDS.

    It is tried for, not waited for: a statement that waits holds a snapshot, and the other migration's indexes are
    complete only when no older snapshot is left.
    """

    def lock() -> None:
        with connection.begin_nested():
            connection.execute(text("LOCK TABLE tokenkeeper.alembic_version IN SHARE ROW EXCLUSIVE MODE NOWAIT"))

    online.retry_for_lock(
        lock,
        "another migration still runs, or holds its lock: tokenkeeper migrate may be repeated",
        max_attempts=int(OTHER_MIGRATION_SECONDS / OTHER_MIGRATION_POLL_SECONDS),
        pause_seconds=OTHER_MIGRATION_POLL_SECONDS,
    )


def _read_revision(connection: Connection) -> str | None:
    """None: the database was never migrated."""
    if not connection.scalar(HAS_REVISION):
        return None
    try:
        revision: str | None = connection.scalar(text("SELECT version_num FROM tokenkeeper.alembic_version"))
    except DBAPIError as error:
        if isinstance(error.orig, psycopg2.errors.InsufficientPrivilege):
            raise SchemaError(NOT_READABLE) from None
        raise
    return revision


def _check_schemas(connection: Connection, *, is_new: bool) -> set[str]:
    """Those that do not exist. Raises SchemaError where one cannot be used, or this login is not the owner."""
    login = connection.execute(DESCRIBE_LOGIN).one()
    schemas = {row.schema: row for row in connection.execute(DESCRIBE_SCHEMAS)}
    for schema in schemas.values():
        if is_new and schema.content:
            raise SchemaError(FOREIGN_SCHEMA.format(schema=schema.schema, content=schema.content))
        if not schema.is_own:
            raise SchemaError(NOT_OWNER.format(schema=schema.schema, owner=schema.owner, login=login.login))
    missing = {"tokenkeeper", "hubspot"} - schemas.keys()
    if missing and not login.may_create_schemas:
        raise SchemaError(NO_PRIVILEGE.format(login=login.login, database=login.database))
    return missing


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


def _run_next_revision(connection: Connection, revision: str) -> None:
    """In a savepoint, so that a lock that is not to be had costs none of those that the transaction holds already."""
    with connection.begin_nested():
        connection.execute(text(f"SET LOCAL lock_timeout = {online.LOCK_TIMEOUT_MILLISECONDS}"))
        _run_alembic(connection, revision, is_prepared=True)
        connection.exec_driver_sql(online.AUTOVACUUM_ON)


def _run_alembic(connection: Connection, revision: str, *, is_prepared: bool = False) -> None:
    # Imported here because web and worker only check the schema: they need not hold Alembic in memory.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes.update(connection=connection, is_prepared=is_prepared)
    command.upgrade(config, revision)
