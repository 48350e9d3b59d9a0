"""What each database role may do, and that it may do nothing else.

That web and worker need no more is proven by every test that runs one of them: each has a login of its own there
(tests/support/databases.py).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg2
import pytest
from cryptography.fernet import Fernet
from psycopg2 import errors
from sqlalchemy import text

from shared.db.core.engine import make_engine as connect_engine
from shared.db.core.errors import SchemaError, StatementRejected
from shared.db.core.statements import Database, single_statement
from shared.db.schema.access import check_access
from shared.db.schema.migrate import create_roles, migrate
from shared.db.schema.privileges import PRIVILEGES, WEB, WORKER, Privilege
from shared.db.schema.roles import GRANTED_PRIVILEGES, Login, name_group_role
from shared.settings import Settings, SettingsError
from shared.startup_checks import check_database
from shared.token_cipher import TokenCipher
from tests.support.builders import HUB
from tests.support.command import Command
from tests.support.databases import Databases
from tests.support.environment import web_environment
from tests.support.stores import ConnectionFixture, SqlFixture, Stores

IN_SCHEMAS = "nspname IN ('tokenkeeper', 'hubspot')"
ROW = f"tokenkeeper.connections (hub_id, status, encrypted_refresh_token) VALUES ({HUB}, 'active', 'mine')"


@pytest.fixture
def web(databases: Databases, database_url: str, connect: Callable[..., Any]) -> SqlFixture:
    return SqlFixture(connect(databases.as_web(database_url)))


@pytest.fixture
def worker(databases: Databases, database_url: str, connect: Callable[..., Any]) -> SqlFixture:
    return SqlFixture(connect(databases.as_worker(database_url)))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT encrypted_refresh_token FROM tokenkeeper.connections",
        "SELECT access_token FROM tokenkeeper.connections",
        "SELECT * FROM tokenkeeper.connections",
        "SELECT c FROM tokenkeeper.connections AS c",
        "SELECT hub_id FROM tokenkeeper.connections WHERE encrypted_refresh_token LIKE 'a%%'",
        "SELECT hub_id FROM tokenkeeper.connections ORDER BY encrypted_refresh_token",
        "SELECT access_token FROM hubspot.tokens",
        "COPY tokenkeeper.connections (encrypted_refresh_token) TO STDOUT",
        "UPDATE tokenkeeper.connections SET status_reason = encrypted_refresh_token",
        "UPDATE tokenkeeper.connections SET failures = 1 RETURNING access_token",
        "UPDATE tokenkeeper.connections SET failures = 1 WHERE access_token > 'a'",
        f"INSERT INTO {ROW} ON CONFLICT (id) DO UPDATE SET last_error = excluded.access_token",
        f"INSERT INTO {ROW} RETURNING encrypted_refresh_token",
    ],
)
def test_web_can_read_no_token_by_any_statement(
    connections: ConnectionFixture, web: SqlFixture, statement: str
) -> None:
    connections.install()
    assert web.rows("SELECT status FROM tokenkeeper.connections") == [("active",)], (
        "the connection is there, so the refusal is about the column"
    )
    with pytest.raises(errors.InsufficientPrivilege):
        web.rows(statement)


def test_a_statement_that_the_login_may_not_execute_is_reported_with_where_to_read_about_roles(
    databases: Databases, database_url: str
) -> None:
    engine = connect_engine(databases.as_web(database_url))
    with pytest.raises(StatementRejected, match=r"may not do this: see docs/operations\.md, Database roles"):
        Database(engine).execute(single_statement("SELECT access_token FROM tokenkeeper.connections"))
    engine.dispose()


def test_web_can_read_no_token_from_the_planners_statistics(
    connections: ConnectionFixture, web: SqlFixture, sql: SqlFixture
) -> None:
    for hub_id in (1, 2):
        connections.install(hub_id, access_token="one of the most common values")
    sql.rows("ANALYZE tokenkeeper.connections")
    common = "SELECT most_common_vals::text FROM pg_stats WHERE tablename = 'connections' AND attname = 'access_token'"
    assert sql.rows(common) == [('{"one of the most common values"}',)]
    assert web.rows(common) == []


def test_web_can_ask_whether_there_is_a_refresh_token(
    connections: ConnectionFixture, web: SqlFixture, sql: SqlFixture
) -> None:
    connections.install()
    assert web.value("SELECT tokenkeeper.has_refresh_token(id) FROM tokenkeeper.connections") is True
    sql.set("status = 'disconnected', encrypted_refresh_token = NULL, access_token = NULL, expires_at = NULL")
    assert web.value("SELECT tokenkeeper.has_refresh_token(id) FROM tokenkeeper.connections") is False
    assert web.value("SELECT tokenkeeper.has_refresh_token(404)") is None


DDL = [
    "CREATE TABLE tokenkeeper.mine ()",
    "CREATE TABLE hubspot.mine ()",
    "CREATE TABLE public.mine ()",
    "CREATE SCHEMA mine",
    "CREATE ROLE mine",
    "ALTER TABLE tokenkeeper.connections ADD COLUMN mine text",
    "ALTER TABLE tokenkeeper.connections DISABLE TRIGGER ALL",
    "CREATE OR REPLACE VIEW hubspot.tokens AS SELECT 1",
    "CREATE FUNCTION tokenkeeper.mine() RETURNS void LANGUAGE sql AS ''",
    "DROP TABLE tokenkeeper.installs",
    "TRUNCATE tokenkeeper.connections",
    "DELETE FROM tokenkeeper.connections",
    "UPDATE tokenkeeper.history SET event = 'installed'",
    "UPDATE tokenkeeper.history SET id = DEFAULT",
    "DELETE FROM tokenkeeper.history",
    "INSERT INTO tokenkeeper.history (hub_id, event, at) VALUES (1, 'installed', '2020-01-01')",
    "INSERT INTO tokenkeeper.history (id, hub_id, event) OVERRIDING SYSTEM VALUE VALUES (1, 1, 'installed')",
    "SELECT FROM tokenkeeper.history FOR UPDATE",
    "UPDATE tokenkeeper.alembic_version SET version_num = '0001'",
    "GRANT hubspot_reader TO current_user",
    "SET ROLE pg_read_all_data",
]


@pytest.mark.parametrize("statement", DDL)
@pytest.mark.parametrize("who", ["web", "worker"])
def test_neither_web_nor_worker_can_change_the_schema_or_the_history(
    connections: ConnectionFixture, request: pytest.FixtureRequest, who: str, statement: str
) -> None:
    connections.install()
    with pytest.raises(errors.InsufficientPrivilege):
        request.getfixturevalue(who).rows(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tokenkeeper.connections SET lease_until = NULL",
        "UPDATE tokenkeeper.connections SET lease_number = 0",
        "UPDATE tokenkeeper.provider SET condition = 'ok'",
        "SELECT tokenkeeper.prune_history(1)",
        "INSERT INTO tokenkeeper.key_check (encrypted_check_value) VALUES ('mine')",
        "INSERT INTO tokenkeeper.refresh_counters (kind, name, total) VALUES ('attempts', 'refreshed', 1)",
    ],
)
def test_web_may_not_do_what_only_the_worker_does(
    connections: ConnectionFixture, web: SqlFixture, worker: SqlFixture, statement: str
) -> None:
    connections.install()
    with pytest.raises(errors.InsufficientPrivilege):
        web.rows(statement)
    worker.rows(statement)


def granted_privileges(sql: SqlFixture, role: str) -> set[Privilege]:
    return {Privilege(*row) for row in sql.rows(str(GRANTED_PRIVILEGES).replace(":role", "%s"), role)}


def test_a_reader_may_read_three_views_and_request_a_refresh_and_nothing_else(sql: SqlFixture) -> None:
    views = {Privilege("TABLE", f"hubspot.{name}", "", "SELECT") for name in ("tokens", "connections", "history")}
    more = {
        Privilege("SCHEMA", "hubspot", "", "USAGE"),
        Privilege("FUNCTION", "hubspot.request_refresh", "", "EXECUTE"),
    }
    assert granted_privileges(sql, "hubspot_reader") == views | more


def test_public_has_no_privileges(sql: SqlFixture) -> None:
    public_grants = sql.rows(
        f"""SELECT relname FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace, aclexplode(relacl)
             WHERE {IN_SCHEMAS} AND grantee = 0
            UNION SELECT proname FROM pg_proc JOIN pg_namespace AS n ON n.oid = pronamespace,
                         aclexplode(coalesce(proacl, acldefault('f', proowner)))
             WHERE {IN_SCHEMAS} AND grantee = 0
            UNION SELECT nspname FROM pg_namespace, aclexplode(nspacl) WHERE {IN_SCHEMAS} AND grantee = 0"""
    )
    assert public_grants == []


def test_every_function_has_a_fixed_search_path(sql: SqlFixture) -> None:
    functions = dict(
        sql.rows(
            f"SELECT proname, proconfig FROM pg_proc JOIN pg_namespace AS n ON n.oid = pronamespace WHERE {IN_SCHEMAS}"
        )  # type: ignore[arg-type]
    )
    assert functions.keys() >= {
        "request_refresh",
        "has_refresh_token",
        "track_inserted_connections",
        "track_deleted_connections",
        "notify_status_change",
    }
    assert {each[0] for each in functions.values()} == {"search_path=pg_catalog, pg_temp"}


def test_a_migration_corrects_privileges_and_then_changes_nothing(database_url: str, sql: SqlFixture) -> None:
    roles = create_roles(database_url, {})
    for process, wanted in PRIVILEGES.items():
        assert granted_privileges(sql, roles[process]) == wanted
    sql.rows(f"GRANT SELECT ON tokenkeeper.connections, hubspot.tokens TO {roles[WEB]}")
    sql.rows(f"REVOKE UPDATE ON tokenkeeper.provider FROM {roles[WORKER]}")
    sql.rows(f"GRANT CREATE ON SCHEMA tokenkeeper TO {roles[WORKER]}")
    migrate(database_url)
    assert {process: granted_privileges(sql, roles[process]) for process in PRIVILEGES} == PRIVILEGES
    before = sql.rows("SELECT oid, xmin::text FROM pg_class")
    migrate(database_url)
    assert sql.rows("SELECT oid, xmin::text FROM pg_class") == before


@pytest.fixture
def login(sql: SqlFixture) -> Iterator[Callable[[str], str]]:
    """Returns a URL with a login that does not exist yet: its name and password contain every special character."""
    name, password = f'it\'s "100% odd" {secrets.token_hex(4)}', f"p%s:/@'\"{secrets.token_hex(8)}"

    def at(url: str) -> str:
        parts = urlsplit(url)
        user = f"{quote(name, safe='')}:{quote(password, safe='')}"
        return urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}"))

    yield at
    sql.rows('DROP ROLE IF EXISTS "{}"'.format(name.replace('"', '""').replace("%", "%%")), 0)


def test_the_roles_command_creates_logins_and_may_be_repeated(
    environment: Callable[..., dict[str, str]],
    database_url: str,
    connect: Callable[..., Any],
    login: Callable[[str], str],
) -> None:
    url = login(database_url)
    command = Command(environment(DATABASE_URL=database_url, WEB_DATABASE_URL=url))
    for _ in range(2):
        result = command.run_process("roles")
        assert (result.status, result.err) == (0, "")
    role = f"tokenkeeper_worker_{urlsplit(database_url).path[1:]}"
    assert result.out.splitlines()[1] == f'{role}: then run: GRANT "{role}" TO <worker\'s login>'
    web_sql = SqlFixture(connect(url))
    assert web_sql.value("SELECT count(*) FROM tokenkeeper.connections") == 0
    with pytest.raises(errors.InsufficientPrivilege):
        web_sql.rows("SELECT encrypted_refresh_token FROM tokenkeeper.connections")
    with pytest.raises(psycopg2.OperationalError):
        connect(url.replace(quote("p%s", safe=""), "another"))


def test_no_password_is_sent_to_the_server(
    own_postgres: Any, connect: Callable[..., Any], login: Callable[[str], str]
) -> None:
    url = own_postgres.url()
    migrate(url)
    SqlFixture(connect(url)).rows("ALTER SYSTEM SET log_statement = 'all'")
    SqlFixture(connect(url)).rows("SELECT pg_reload_conf()")
    new_login = Login.from_url(login(url))
    create_roles(url, {WEB: new_login})
    server_log = (Path(SqlFixture(connect(url)).value("SHOW data_directory")).parent / "postgres.log").read_text()
    assert "SCRAM-SHA-256$" in server_log, "this is the log of the statements"
    assert new_login.password not in server_log
    assert new_login.password.rpartition('"')[2] not in server_log


def test_an_error_other_than_of_a_role_that_exists_is_not_hidden(database_url: str) -> None:
    with pytest.raises(StatementRejected, match="ReservedName"):
        create_roles(database_url, {WEB: Login("pg_web", "a-password")})


@pytest.mark.parametrize("powerful", ["current_user", "other"])
def test_a_powerful_login_is_refused(database_url: str, sql: SqlFixture, powerful: str) -> None:
    name = sql.value("SELECT current_user") if powerful == "current_user" else f"powerful_{secrets.token_hex(4)}"
    if powerful == "other":
        sql.rows(f"CREATE ROLE {name} SUPERUSER LOGIN")
    with pytest.raises(SchemaError, match="without power"):
        create_roles(database_url, {WEB: Login(name, "a-password")})
    if powerful == "other":
        sql.rows(f"DROP ROLE {name}")


@pytest.fixture
def make_owner(databases: Databases, connect: Callable[..., Any]) -> Iterator[Callable[..., str]]:
    """Returns the URL of a login that may do what `options` say, no more, and owns a new database."""
    admin = SqlFixture(connect(databases.url("postgres")))
    names: list[str] = []

    def make(options: str = "") -> str:
        name = f"owner_{secrets.token_hex(4)}"
        names.append(name)
        admin.rows(f"CREATE ROLE {name} LOGIN PASSWORD 'its-password' {options}")
        admin.rows(f"CREATE DATABASE {name} OWNER {name} TEMPLATE template0")
        parts = urlsplit(databases.url(name))
        return urlunsplit(parts._replace(netloc=f"{name}:its-password@{parts.netloc.rpartition('@')[2]}"))

    yield make
    for name in names:
        admin.rows(f"DROP DATABASE {name} WITH (FORCE)")
    for name in names:
        for role in (f"tokenkeeper_web_{name}", f"tokenkeeper_worker_{name}", f"{name}_web", f"{name}_worker", name):
            admin.rows(f"DROP ROLE IF EXISTS {role}")


def as_login(url: str, kind: str) -> str:
    """The URL of the login of web or the worker of the owner with this URL."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(":its", f"_{kind}:its")))


@pytest.mark.usefixtures("database_url")  # hubspot_reader exists in the cluster
def test_without_the_privilege_to_create_roles_the_command_says_what_to_run(
    environment: Callable[..., dict[str, str]], make_owner: Callable[..., str], connect: Callable[..., Any]
) -> None:
    """As the owner of the schemas, on a server where only an administrator may create roles."""
    owner = make_owner()
    name = urlsplit(owner).username
    migrate(owner)
    command = Command(environment(DATABASE_URL=owner, WEB_DATABASE_URL=as_login(owner, "web")))
    result = command("roles")
    assert (result.status, result.out) == (1, "")
    assert result.err.count("\n") == 1
    assert f'have an administrator run: CREATE ROLE "tokenkeeper_web_{name}" NOLOGIN; and' in result.err
    admin = SqlFixture(connect())
    for kind in ("web", "worker"):
        admin.rows(f"CREATE ROLE tokenkeeper_{kind}_{name} NOLOGIN")
    admin.rows(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
    admin.rows(f"ALTER DATABASE {name} OWNER TO CURRENT_USER")
    admin.rows(f"GRANT CONNECT ON DATABASE {name} TO {name}")
    result = command("roles")
    assert f'have an administrator run: GRANT CONNECT ON DATABASE "{name}" TO "tokenkeeper_web_{name}"' in result.err
    admin.rows(f"ALTER DATABASE {name} OWNER TO {name}")
    admin.rows(f"CREATE ROLE {name}_web LOGIN PASSWORD 'its-password' IN ROLE tokenkeeper_web_{name}")
    result = command("roles")
    assert (result.status, result.err) == (0, ""), "where an administrator has created them, nothing is missing"
    assert SqlFixture(connect(as_login(owner, "web"))).value("SELECT count(*) FROM tokenkeeper.connections") == 0


@pytest.mark.usefixtures("database_url")
def test_two_installations_of_one_cluster_with_owners_who_are_no_superusers_are_apart(
    environment: Callable[..., dict[str, str]], make_owner: Callable[..., str], connect: Callable[..., Any]
) -> None:
    production, staging = make_owner("CREATEROLE"), make_owner("CREATEROLE")
    for owner in (production, staging):
        migrate(owner)
        logins = {f"{kind.upper()}_DATABASE_URL": as_login(owner, kind) for kind in ("web", "worker")}
        result = Command(environment(DATABASE_URL=owner, **logins))("roles")
        assert (result.status, result.err) == (0, "")
        for kind in ("web", "worker"):
            check_database(Settings.from_env(environment(DATABASE_URL=as_login(owner, kind))), kind)
    database = urlsplit(production).path
    for kind in ("web", "worker"):
        trespasser = SqlFixture(connect(urlunsplit(urlsplit(as_login(staging, kind))._replace(path=database))))
        for table in ("tokenkeeper.connections", "hubspot.tokens", "hubspot.connections"):
            with pytest.raises(errors.InsufficientPrivilege):
                trespasser.rows(f"SELECT FROM {table}")


@pytest.mark.usefixtures("database_url")
def test_roles_of_an_older_version_that_all_databases_had_in_common_lose_their_privileges(
    make_owner: Callable[..., str], connect: Callable[..., Any]
) -> None:
    owner, admin = make_owner("CREATEROLE"), SqlFixture(connect())
    migrate(owner)
    admin.rows("CREATE ROLE tokenkeeper_worker NOLOGIN")
    try:
        sql = SqlFixture(connect(owner))
        sql.rows("GRANT USAGE ON SCHEMA tokenkeeper TO tokenkeeper_worker")
        sql.rows("GRANT SELECT ON tokenkeeper.connections TO tokenkeeper_worker")
        create_roles(owner, {})
        assert granted_privileges(sql, "tokenkeeper_worker") == set()
    finally:
        admin.rows("DROP ROLE tokenkeeper_worker")


@pytest.mark.parametrize(("kind", "names"), [("web", 20), ("worker", 70)])
def test_the_name_of_a_group_role_fits_and_differs_from_every_other_databases(kind: str, names: int) -> None:
    databases = ["a" * length for length in range(1, names)] + ["ü" * 31, "ü" * 30]
    roles = {name_group_role(kind, database) for database in databases}
    assert len(roles) == len(databases)
    assert all(len(role.encode()) <= 63 for role in roles)


def test_a_login_that_lacks_one_privilege_ends_the_start_with_its_name(
    environment: Callable[..., dict[str, str]], database_url: str, sql: SqlFixture
) -> None:
    environ = environment()
    sql.rows("REVOKE INSERT ON tokenkeeper.accounts FROM " + sql.value(GROUP_ROLE, "tokenkeeper_worker_%"))
    message = (
        "the login in DATABASE_URL lacks INSERT on table tokenkeeper.accounts: as the owner of the schemas, run: "
        "tokenkeeper migrate && tokenkeeper roles, with this login in WORKER_DATABASE_URL"
    )
    with pytest.raises(SchemaError, match=re.escape(message)):
        check_database(Settings.from_env(environ), WORKER)
    check_database(Settings.from_env(web_environment(environ)), WEB)
    with pytest.raises(SchemaError, match=r"lacks .* more privileges"):
        check_database(Settings.from_env(web_environment(environ)), WORKER)
    sql.rows("ALTER TABLE tokenkeeper.alembic_version RENAME COLUMN version_num TO number")
    with pytest.raises(SchemaError, match="UndefinedColumn"):
        check_database(Settings.from_env({**environ, "DATABASE_URL": database_url}), WORKER)


#: A group role that has privileges on a table of this database.
GROUP_ROLE = """
SELECT DISTINCT grantee::regrole::text FROM pg_class, aclexplode(relacl)
 WHERE oid = 'tokenkeeper.connections'::regclass AND grantee::regrole::text LIKE %s
"""


def test_row_level_security_that_an_administrator_turns_on_hides_no_row_without_a_word(
    databases: Databases, database_url: str, sql: SqlFixture
) -> None:
    sql.rows("ALTER TABLE tokenkeeper.connections ENABLE ROW LEVEL SECURITY")
    engine = connect_engine(databases.as_worker(database_url))
    with pytest.raises(SchemaError, match=r"run: ALTER TABLE tokenkeeper\.connections DISABLE ROW LEVEL SECURITY"):
        check_access(engine, WORKER)
    with pytest.raises(StatementRejected, match="may not do this"):
        Stores(engine).claims.claim(1)
    engine.dispose()


def read_check_value(sql: SqlFixture) -> str | None:
    rows = sql.rows("SELECT encrypted_check_value FROM tokenkeeper.key_check")
    return rows[0][0] if rows else None


def test_web_checks_its_keys_by_the_check_value_that_the_worker_writes(
    environment: Callable[..., dict[str, str]], sql: SqlFixture, connections: ConnectionFixture
) -> None:
    environ = environment()
    web, other = web_environment(environ), Fernet.generate_key().decode()
    connections.stores.key_check.write_check_value("encrypted with an unknown key")
    with pytest.raises(SettingsError, match="TOKEN_KEYS decrypts nothing"):
        check_database(Settings.from_env(web), WEB)
    # The worker's keys decrypt every row that there is, so they are right: it writes a new check value.
    check_database(Settings.from_env(environ), WORKER)
    check_database(Settings.from_env(web), WEB)
    check_value = read_check_value(sql)
    with pytest.raises(SettingsError, match="TOKEN_KEYS decrypts nothing"):
        check_database(Settings.from_env({**web, "TOKEN_KEYS": other}), WEB)
    assert read_check_value(sql) == check_value, "a refusal leaves the check value"
    check_database(Settings.from_env({**web, "TOKEN_KEYS": f"{other},{environ['TOKEN_KEYS']}"}), WEB)


def test_a_worker_with_wrong_keys_writes_no_check_value(
    environment: Callable[..., dict[str, str]], sql: SqlFixture, connections: ConnectionFixture
) -> None:
    environ = environment()
    encrypted = TokenCipher([environ["TOKEN_KEYS"]]).encrypt_refresh_token(HUB, "a-refresh-token")
    connections.install(encrypted_refresh_token=encrypted)
    check_database(Settings.from_env(environ), WORKER)
    check_value = read_check_value(sql)
    assert check_value
    with pytest.raises(SettingsError, match="TOKEN_KEYS decrypts nothing"):
        check_database(Settings.from_env({**environ, "TOKEN_KEYS": Fernet.generate_key().decode()}), WORKER)
    assert read_check_value(sql) == check_value


def test_after_a_rotation_the_newest_key_alone_decrypts_the_check_value(
    environment: Callable[..., dict[str, str]], sql: SqlFixture
) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    check_database(Settings.from_env(environment(TOKEN_KEYS=old)), WORKER)
    assert Command(environment(TOKEN_KEYS=f"{new},{old}"))("keys", "rotate").status == 0
    assert TokenCipher([new]).can_decrypt(read_check_value(sql) or "")


def test_one_login_for_everything_works(database_url: str) -> None:
    engine = connect_engine(database_url)
    stores = Stores(engine, lease_seconds=60)
    assert stores.key_check.can_read_refresh_tokens()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT current_setting('is_superuser')")) == "on"
    engine.dispose()
