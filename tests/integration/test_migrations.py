"""Migrations of a new database and of one of 0.1.0, concurrent migrations, missing privileges, other revisions."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, MetaData

from sandbox.embedded import EmbeddedPostgres
from shared.db.core.engine import make_engine as connect_engine
from shared.db.core.errors import SchemaError, StatementRejected, StoreError, StoreUnavailable
from shared.db.schema.migrate import MIGRATIONS, REVISIONS, check_schema, migrate
from shared.db.schema.tables import metadata
from tests.support.databases import Databases
from tests.support.polling import until
from tests.support.stores import SqlFixture, at_once, open_transaction

COUNT_RELATIONS = "SELECT count(*) FROM pg_class WHERE relnamespace::regnamespace::text IN ('tokenkeeper', 'hubspot')"


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Engine]:
    engine = connect_engine(empty_database_url)
    yield engine
    engine.dispose()


def read_refusal(engine: Engine) -> str:
    with pytest.raises(SchemaError) as refused:
        check_schema(engine)
    message = str(refused.value)
    assert "\n" not in message
    return message


def compare_with_tables(database_url: str, tables: MetaData) -> list[Any]:
    # A user named like the schema would have it as default schema, which Alembic does not name.
    engine = connect_engine(f"{database_url}?options=-csearch_path%3Dpublic")

    def include_name(name: str | None, kind: str, _parents: object) -> bool:
        return name == "tokenkeeper" if kind == "schema" else True

    with engine.connect() as connection:
        options = {
            "include_schemas": True,
            "include_name": include_name,
            "version_table_schema": "tokenkeeper",
            "compare_server_default": True,
        }
        found = list(compare_metadata(MigrationContext.configure(connection, opts=options), tables))
    engine.dispose()
    return found


@pytest.fixture
def database_0_1(empty_database_url: str, connect: Callable[..., Any]) -> SqlFixture:
    """A database of tokenkeeper 0.1.0 with rows in every table; every column has a value in one of them."""
    sql = SqlFixture(connect(empty_database_url))
    sql.rows(SCHEMA_0_1.read_text())
    sql.rows(ROWS_0_1)
    return sql


SCHEMA_0_1 = Path(__file__).with_name("schema_0_1.sql")
ROWS_0_1 = (Path(__file__).with_name("rows_0_1.sql")).read_text()
#: Tables and columns of 0.1.0 that have another name now.
RENAMED_TABLES = {
    "totals": "connection_counts",
    "minutes": "refreshes_by_minute",
    "tally": "refresh_counters",  # words: ok
    "pruned": "pruning_state",
}
RENAMED_COLUMNS = {
    "connections": {
        "hub_id": "id",
        "life": "lifetime_seconds",
        "sealed_refresh_token": "encrypted_refresh_token",  # words: ok
        "identify_due_at": "account_info_due_at",
        "not_before": "retry_not_before",
        "condemned": "pending_revocation",  # words: ok
        "lease_no": "lease_number",
        "revocation_told": "revocation_alerted",
    },
    "accounts": {"hub_id": "connection_id", "listed": "sort_key", "sought": "search_text"},
    "installs": {"hub_id": "connection_id"},
    "alerts": {"stands_for": "summarized_count"},
    "provider": {
        "silent": "consecutive_no_answer",
        "refused": "consecutive_unknown",
        "allowance": "bucket_level",
        "refilled_at": "bucket_refilled_at",
    },
    "pruned": {"one": "singleton", "at": "pruned_at"},
    "key_check": {"one": "singleton", "sealed": "encrypted_check_value"},  # words: ok
}
TABLES = """
SELECT relname FROM pg_class
 WHERE relnamespace = 'tokenkeeper'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
"""
PUBLIC_VIEWS = ("tokens", "connections", "history")


def read_tables(sql: SqlFixture) -> dict[str, list[dict[str, Any]]]:
    """Every row of every internal table, by table."""
    return {
        table: [row for (row,) in sql.rows(f"SELECT to_jsonb(t) FROM tokenkeeper.{table} AS t ORDER BY t::text")]
        for (table,) in sql.rows(TABLES)
    }


def read_public_views(sql: SqlFixture) -> dict[str, list[tuple[Any, ...]]]:
    return {view: sql.rows(f"SELECT to_jsonb(v) - 'expires_in' FROM hubspot.{view} AS v") for view in PUBLIC_VIEWS}


#: In this version only.
NEW_TABLES = {
    "single_uses",
    "refresh_requests",
    "rotated_tokens",
    "install_locks",
    "uncertain_installs",
    "oldest_snapshot",
    "apps",
    "journals",
    "reported_uninstalls",
    "history_order",
    "event_delivery",
    "event_retries",
}
NEW_COLUMNS = {
    "connections": {"requested_refresh_at", "hub_id", "app", "user_id", "customer"},
    "accounts": {"account_name", "account_type", "region"},
    "history": {"app", "user_id", "customer"},
    "alerts": {"app"},
    "provider": {"has_postponed", "swept_without_beat_since", "app"},
    "connection_counts": {"app"},
    "refresh_counters": {"app"},
}
#: In 0.1.0 only.
OLD_COLUMNS = {"provider": {"one"}, "totals": {"one"}}


def read_old_tables(sql: SqlFixture) -> dict[str, list[dict[str, Any]]]:
    """What a database of 0.1.0 had, under the new names."""
    return {
        table: [{name: row[name] for name in row if name not in NEW_COLUMNS.get(table, ())} for row in rows]
        for table, rows in read_tables(sql).items()
        if table not in NEW_TABLES
    }


def rename(tables: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    return {
        RENAMED_TABLES.get(table, table): [
            {
                RENAMED_COLUMNS.get(table, {}).get(column, column): value
                for column, value in row.items()
                if column not in OLD_COLUMNS.get(table, ())
            }
            for row in rows
        ]
        for table, rows in tables.items()
    }


def test_a_database_of_0_1_keeps_every_row_under_the_new_names(
    empty_database_url: str, database_0_1: SqlFixture
) -> None:
    before, views_before = read_tables(database_0_1), read_public_views(database_0_1)
    for table, rows in before.items():
        columns = {column for row in rows for column, value in row.items() if value is not None}
        assert columns == set(rows[0]), f"a column of {table} has no value in the test's data"
    migrate(empty_database_url)
    assert read_old_tables(database_0_1) == rename(before)
    for view, rows in read_public_views(database_0_1).items():
        assert [row.items() >= old.items() for (row,), (old,) in zip(rows, views_before[view], strict=True)]
    assert (
        database_0_1.value("SELECT count(*) FROM tokenkeeper.connections WHERE hub_id <> id OR app <> 'default'") == 0
    )
    engine = connect_engine(empty_database_url)
    check_schema(engine)
    engine.dispose()


def test_a_database_of_0_1_gets_the_same_schema_as_a_new_one(
    empty_database_url: str, database_0_1: SqlFixture, sql: SqlFixture
) -> None:
    migrate(empty_database_url)
    migrated, new = describe_schema(database_0_1), describe_schema(sql)
    for kind, definitions in new.items():
        assert migrated[kind] == definitions
        assert definitions, "an empty description proves nothing"


def describe_schema(sql: SqlFixture) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that PostgreSQL knows about both schemas."""
    return {kind: sorted(sql.rows(query), key=repr) for kind, query in SCHEMA_QUERIES.items()}


_IN_SCHEMAS = "nspname IN ('tokenkeeper', 'hubspot')"
#: Those are of one database; tests/integration/test_roles.py compares their privileges with the list.
_NO_GROUP_ROLE = "grantee NOT IN (SELECT oid FROM pg_roles WHERE rolname LIKE 'tokenkeeper\\_%%')"
SCHEMA_QUERIES = {
    "columns": f"""
        SELECT c.oid::regclass::text, row_number() OVER (PARTITION BY c.oid ORDER BY attnum), attname,
               format_type(atttypid, atttypmod), attnotnull, attgenerated, attidentity,
               attcollation::regcollation::text, pg_get_expr(adbin, adrelid)
          FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace JOIN pg_attribute ON attrelid = c.oid
          LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
         WHERE {_IN_SCHEMAS} AND attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'v')""",
    "relations": f"""
        SELECT c.oid::regclass::text, relkind, reloptions
          FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
         WHERE {_IN_SCHEMAS}""",
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'tokenkeeper'",
    "constraints": f"""
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(k.oid)
          FROM pg_constraint AS k JOIN pg_namespace AS n ON n.oid = connamespace
         WHERE {_IN_SCHEMAS} AND contype <> 'n'""",
    "views": "SELECT viewname, definition FROM pg_views WHERE schemaname = 'hubspot'",
    "functions": f"""
        SELECT pg_get_functiondef(p.oid) FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = pronamespace
         WHERE {_IN_SCHEMAS}""",
    "triggers": f"""
        SELECT pg_get_triggerdef(t.oid) FROM pg_trigger AS t
          JOIN pg_class AS c ON c.oid = tgrelid JOIN pg_namespace AS n ON n.oid = relnamespace
         WHERE {_IN_SCHEMAS} AND NOT tgisinternal""",
    "privileges": f"""
        SELECT c.oid::regclass::text, acl.* FROM pg_namespace AS n JOIN pg_class AS c ON relnamespace = n.oid,
               aclexplode(coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)))
                   AS acl
         WHERE {_IN_SCHEMAS} AND relkind IN ('r', 'v', 'S') AND {_NO_GROUP_ROLE}
        UNION ALL
        SELECT c.oid::regclass || '.' || attname, acl.* FROM pg_namespace AS n
          JOIN pg_class AS c ON relnamespace = n.oid JOIN pg_attribute ON attrelid = c.oid,
               aclexplode(attacl) AS acl WHERE {_IN_SCHEMAS} AND {_NO_GROUP_ROLE}
        UNION ALL
        SELECT p.oid::regprocedure::text, acl.* FROM pg_namespace AS n JOIN pg_proc AS p ON pronamespace = n.oid,
               aclexplode(proacl) AS acl WHERE {_IN_SCHEMAS} AND {_NO_GROUP_ROLE}
        UNION ALL
        SELECT nspname, acl.* FROM pg_namespace, aclexplode(nspacl) AS acl
         WHERE {_IN_SCHEMAS} AND {_NO_GROUP_ROLE}""",
}


def test_views_and_grants_of_others_on_the_public_schema_survive_the_migration_from_0_1(
    empty_database_url: str, database_0_1: SqlFixture
) -> None:
    database_0_1.rows("CREATE VIEW public.report AS SELECT hub_id, hub_domain FROM hubspot.connections")
    migrate(empty_database_url)
    assert database_0_1.value("SELECT hub_domain FROM public.report WHERE hub_id = 1") == "Acme.example"
    assert database_0_1.value("SELECT has_table_privilege('hubspot_reader', 'hubspot.connections', 'SELECT')")


def test_three_concurrent_migrations_from_0_1_are_safe(empty_database_url: str, database_0_1: SqlFixture) -> None:
    before = read_tables(database_0_1)
    at_once([lambda: migrate(empty_database_url)] * 3)
    assert read_old_tables(database_0_1) == rename(before)


def test_a_migration_from_0_1_that_fails_changes_nothing(empty_database_url: str, database_0_1: SqlFixture) -> None:
    before = read_tables(database_0_1)
    database_0_1.rows("ALTER TABLE tokenkeeper.key_check RENAME CONSTRAINT key_check_is_one TO changed_by_hand")
    with pytest.raises(StoreError):
        migrate(empty_database_url)
    assert read_tables(database_0_1) == before
    assert database_0_1.value("SELECT version_num FROM tokenkeeper.alembic_version") == "0003"


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_a_database_older_than_0_1_says_what_to_run(
    empty: Engine, empty_database_url: str, database_0_1: SqlFixture, revision: str
) -> None:
    database_0_1.rows("UPDATE tokenkeeper.alembic_version SET version_num = %s", revision)
    message = (
        f"this database is at revision {revision}, older than tokenkeeper 0.1.0: "
        "run: tokenkeeper migrate, of version 0.1.0, then of this version"
    )
    assert read_refusal(empty) == message
    with pytest.raises(SchemaError, match="older than tokenkeeper"):
        migrate(empty_database_url)


def test_a_database_of_0_1_says_what_to_run(empty: Engine, database_0_1: SqlFixture) -> None:
    head = REVISIONS[-1]
    assert read_refusal(empty) == f"this database is at revision 0003, the code at {head}: run: tokenkeeper migrate"


def test_every_table_with_columns_can_be_changed_while_it_is_published(sql: SqlFixture) -> None:
    """A publication FOR ALL TABLES, as of a logical replica, rejects changes of rows without a replica identity."""
    without = sql.rows(
        "SELECT relname FROM pg_class AS c WHERE relnamespace = 'tokenkeeper'::regnamespace AND relkind = 'r'"
        " AND relnatts > 0 AND relreplident <> 'f'"
        " AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)"
    )
    assert without == []


def test_tables_py_equals_what_the_migrations_create(database_url: str) -> None:
    assert compare_with_tables(database_url, metadata) == []
    assert compare_with_tables(database_url, MetaData(schema="tokenkeeper")), "the comparison finds a missing table"


def test_migrating_again_changes_nothing(database_url: str, sql: SqlFixture) -> None:
    before = sql.rows("SELECT oid, relname, xmin::text FROM pg_class ORDER BY oid")
    migrate(database_url)
    assert sql.rows("SELECT oid, relname, xmin::text FROM pg_class ORDER BY oid") == before


def test_the_revisions_of_the_code_are_those_of_alembic() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    assert tuple(revision.revision for revision in reversed(list(script.walk_revisions()))) == REVISIONS


def test_concurrent_migrations_of_a_new_database_are_safe(empty: Engine, empty_database_url: str) -> None:
    at_once([lambda: migrate(empty_database_url)] * 3)
    check_schema(empty)


@pytest.mark.usefixtures("database_url")  # hubspot_reader exists in the cluster
def test_the_revision_table_of_another_program_in_the_same_database_is_left_alone(
    empty: Engine, empty_database_url: str, connect: Callable[..., Any]
) -> None:
    sql = SqlFixture(connect(empty_database_url))
    sql.rows("CREATE TABLE public.alembic_version (version_num text PRIMARY KEY)")
    sql.rows("INSERT INTO public.alembic_version VALUES ('of-another-program')")
    for _ in range(2):
        migrate(empty_database_url)
    check_schema(empty)
    assert sql.rows("SELECT version_num FROM public.alembic_version") == [("of-another-program",)]


def test_a_migration_waits_for_another_one_of_the_same_database(
    database_url: str, connect: Callable[..., Any], sql: SqlFixture
) -> None:
    with open_transaction(connect) as other, ThreadPoolExecutor(1) as pool:
        other.rows("LOCK TABLE tokenkeeper.alembic_version IN SHARE ROW EXCLUSIVE MODE")  # as a migration does
        migration = pool.submit(migrate, database_url)
        until(lambda: sql.value(TRIES_AGAIN))
        assert not migration.done()
        other.rows("ROLLBACK")
        migration.result(60)


#: It holds no lock, and does not wait for one, between two tries.
TRIES_AGAIN = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'ROLLBACK TO SAVEPOINT%'
"""


@pytest.fixture
def own_databases(own_postgres: EmbeddedPostgres) -> Databases:
    """Databases of a server that does not have the role yet: it belongs to the whole server."""
    return Databases(own_postgres.url())


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_migrations_of_two_databases_of_one_server_may_create_the_role_at_once(
    own_databases: Databases, own_postgres: EmbeddedPostgres, connect: Callable[..., Any], end: str
) -> None:
    sql, other_connection = SqlFixture(connect(own_postgres.url())), connect(own_postgres.url())
    other_connection.autocommit = False
    SqlFixture(other_connection).rows("CREATE ROLE hubspot_reader NOLOGIN")
    with own_databases.create_empty() as one, own_databases.create_empty() as other:
        children = [subprocess.Popen([sys.executable, "-c", MIGRATE], env={"URL": url}) for url in (one, other)]
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid'"
        until(lambda: sql.value(waiting) == 2, 60)
        getattr(other_connection, end)()
        assert [child.wait(60) for child in children] == [0, 0]
        for url in (one, other):
            engine = connect_engine(url)
            check_schema(engine)
            engine.dispose()


MIGRATE = "import os; from shared.db.schema.migrate import migrate; migrate(os.environ['URL'])"


@pytest.fixture
def limited_login(own_databases: Databases, connect: Callable[..., Any]) -> Iterator[tuple[str, str, SqlFixture]]:
    """A login without privileges: its database, its URL, and a superuser's connection to the same database."""
    with own_databases.create_empty() as url:
        sql = SqlFixture(connect(url))
        sql.rows("CREATE ROLE unprivileged LOGIN PASSWORD 'unprivileged'")
        parts = urlsplit(url)
        where = parts.netloc.rpartition("@")[2]
        yield parts.path[1:], urlunsplit(parts._replace(netloc=f"unprivileged:unprivileged@{where}")), sql


def test_without_the_privilege_to_create_schemas_the_error_says_what_to_grant(
    limited_login: tuple[str, str, SqlFixture],
) -> None:
    with pytest.raises(SchemaError, match="GRANT CREATE ON DATABASE"):
        migrate(limited_login[1])


def test_without_the_privilege_to_create_roles_the_error_says_what_to_run(
    limited_login: tuple[str, str, SqlFixture],
) -> None:
    database, url, sql = limited_login
    sql.rows(f"GRANT CREATE ON DATABASE {database} TO unprivileged")
    with pytest.raises(SchemaError, match="CREATE ROLE hubspot_reader NOLOGIN"):
        migrate(url)
    assert sql.value(COUNT_RELATIONS) == 0, "a failed migration leaves nothing"
    sql.rows("CREATE ROLE hubspot_reader NOLOGIN")
    migrate(url)
    assert sql.value("SELECT has_table_privilege('hubspot_reader', 'hubspot.tokens', 'SELECT')")
    migrate(url)


def test_a_database_that_is_not_migrated_says_what_to_run(empty: Engine) -> None:
    assert read_refusal(empty) == "this database is not migrated: run: tokenkeeper migrate"


def test_a_database_that_is_behind_says_what_to_run(engine: Engine) -> None:
    with pytest.raises(SchemaError, match=r"at revision .* the code at 9999: run: tokenkeeper migrate"):
        check_schema(engine, (*REVISIONS, "9999"))


def test_an_error_other_than_of_a_missing_privilege_or_another_migration_is_not_hidden(
    engine: Engine, sql: SqlFixture, empty_database_url: str, connect: Callable[..., Any]
) -> None:
    sql.rows("ALTER TABLE tokenkeeper.alembic_version RENAME COLUMN version_num TO number")
    with pytest.raises(StatementRejected, match="UndefinedColumn"):
        check_schema(engine)
    SqlFixture(connect(empty_database_url)).rows(REFUSE_SCHEMAS)
    with pytest.raises(StatementRejected, match="RaiseException"):
        migrate(empty_database_url)


#: As an administrator may forbid changes by an event trigger.
REFUSE_SCHEMAS = """
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$refused$$; END';
CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE SCHEMA') EXECUTE FUNCTION refuse();
"""


def test_a_database_of_a_newer_version_is_left_unchanged(engine: Engine, sql: SqlFixture, database_url: str) -> None:
    sql.rows("UPDATE tokenkeeper.alembic_version SET version_num = '9999'")
    assert read_refusal(engine) == "this database was migrated by a newer tokenkeeper: upgrade the code"
    with pytest.raises(SchemaError, match="newer tokenkeeper"):
        migrate(database_url)
    assert sql.value("SELECT version_num FROM tokenkeeper.alembic_version") == "9999"


def test_a_server_that_refuses_connections_is_unavailable_and_the_error_has_no_password() -> None:
    with pytest.raises(StoreUnavailable) as refused:
        migrate("postgresql://user:passw0rd@127.0.0.1:1/nothing")
    assert "connection refused" in str(refused.value)
    assert "passw0rd" not in str(refused.value)


@pytest.fixture
def make_login(connect: Callable[..., Any], empty_database_url: str) -> Iterator[Callable[..., str]]:
    """Returns the URL of a new login for the empty database, with these defaults and privileges."""
    admin, names = SqlFixture(connect(empty_database_url)), []

    def make(options: str = "", **defaults: str) -> str:
        name = f"login_{secrets.token_hex(4)}"
        names.append(name)
        admin.rows(f"CREATE ROLE {name} LOGIN PASSWORD 'its-password' {options}")
        for default, value in defaults.items():
            admin.rows(f"ALTER ROLE {name} SET {default} = %s", value)
        parts = urlsplit(empty_database_url)
        return urlunsplit(parts._replace(netloc=f"{name}:its-password@{parts.netloc.rpartition('@')[2]}"))

    yield make
    for name in names:
        admin.rows(f"DROP OWNED BY {name} CASCADE")
        admin.rows(f"DROP ROLE {name}")


def read_migration_refusal(url: str) -> str:
    with pytest.raises(SchemaError) as refused:
        migrate(url)
    assert "\n" not in str(refused.value)
    return str(refused.value)


ODD_DEFAULTS = {
    "statement_timeout": "300ms",
    "lock_timeout": "10ms",
    "idle_in_transaction_session_timeout": "5s",
    "default_transaction_isolation": "repeatable read",
    "search_path": "nowhere",
    "default_transaction_deferrable": "on",
    "DateStyle": "German",
    "TimeZone": "Asia/Kathmandu",
}


@pytest.mark.usefixtures("database_url")  # hubspot_reader exists in the cluster
def test_migrations_set_what_they_need_whatever_the_logins_defaults_are(
    make_login: Callable[..., str], connect: Callable[..., Any], empty_database_url: str
) -> None:
    url = make_login(**ODD_DEFAULTS)
    SqlFixture(connect(empty_database_url)).rows(
        f"GRANT CREATE ON DATABASE {urlsplit(url).path[1:]} TO {urlsplit(url).username}"
    )
    at_once([lambda: migrate(url)] * 3)
    engine = connect_engine(url)
    check_schema(engine)
    engine.dispose()


def test_a_login_that_may_create_no_schema_is_named_with_the_statement_to_run(make_login: Callable[..., str]) -> None:
    url = make_login()
    name, database = urlsplit(url).username, urlsplit(url).path[1:]
    assert f"run: GRANT CREATE ON DATABASE {database} TO {name}" in read_migration_refusal(url)


@pytest.mark.usefixtures("database_url")
def test_empty_schemas_that_an_administrator_has_made_for_the_login_are_used(
    make_login: Callable[..., str], connect: Callable[..., Any], empty_database_url: str
) -> None:
    url, admin = make_login(), SqlFixture(connect(empty_database_url))
    admin.rows(f"CREATE SCHEMA tokenkeeper AUTHORIZATION {urlsplit(url).username}")
    assert "have an administrator run: GRANT CREATE ON DATABASE" in read_migration_refusal(url), "hubspot is missing"
    admin.rows("CREATE SCHEMA hubspot")
    assert f"have an administrator run: ALTER SCHEMA hubspot OWNER TO {urlsplit(url).username}" in (
        read_migration_refusal(url)
    )
    admin.rows(f"ALTER SCHEMA hubspot OWNER TO {urlsplit(url).username}")
    at_once([lambda: migrate(url)] * 3)


@pytest.mark.parametrize("schema", ["hubspot", "tokenkeeper"])
def test_a_schema_of_another_program_is_named_and_left_alone(
    empty_database_url: str, connect: Callable[..., Any], schema: str
) -> None:
    sql = SqlFixture(connect(empty_database_url))
    sql.rows(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.contact (id int)")
    assert read_migration_refusal(empty_database_url) == (
        f"schema {schema} exists already, with contact in it, which tokenkeeper has not made: give tokenkeeper a "
        "database of its own, or rename that schema"
    )
    assert sql.rows("SELECT nspname FROM pg_namespace WHERE nspname IN ('hubspot', 'tokenkeeper')") == [(schema,)]


def test_a_login_that_is_not_the_owner_is_told_who_is(
    make_login: Callable[..., str], connect: Callable[..., Any], empty_database_url: str
) -> None:
    url, admin = make_login(), SqlFixture(connect(empty_database_url))
    migrate(empty_database_url)
    assert "the login in DATABASE_URL may not read tokenkeeper's tables" in read_migration_refusal(url)
    admin.rows(f"GRANT USAGE ON SCHEMA tokenkeeper TO {urlsplit(url).username}")
    admin.rows(f"GRANT SELECT ON tokenkeeper.alembic_version TO {urlsplit(url).username}")
    migrate(url)  # there is nothing to do
    admin.rows("UPDATE tokenkeeper.alembic_version SET version_num = '0003'")
    owner = admin.value("SELECT current_user")
    assert f"belongs to {owner}, and the login in DATABASE_URL is {urlsplit(url).username}: run this as {owner}" in (
        read_migration_refusal(url)
    )


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_whose_encoding_cannot_hold_every_name_is_refused(
    databases: Databases, connect: Callable[..., Any], encoding: str
) -> None:
    admin, name = SqlFixture(connect(databases.url("postgres"))), f"test_{secrets.token_hex(4)}"
    admin.rows(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0")
    try:
        message = read_migration_refusal(databases.url(name))
    finally:
        admin.rows(f"DROP DATABASE {name} WITH (FORCE)")
    assert message.startswith(f"the encoding of database {name} is {encoding}, which cannot hold every name")
