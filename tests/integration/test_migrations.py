"""Migrations up, down and up, by two at once, by whom they may not, and what is said of other schemas."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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
from shared.db.core.errors import SchemaError, StoreUnavailable
from shared.db.schema.migrate import MIGRATIONS, REVISIONS, check_schema, downgrade, migrate
from shared.db.schema.tables import metadata
from tests.support.databases import Databases
from tests.support.stores import SqlFixture, at_once

OURS = "SELECT count(*) FROM pg_class WHERE relnamespace::regnamespace::text IN ('tokenkeeper', 'hubspot')"


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Engine]:
    engine = connect_engine(empty_database_url)
    yield engine
    engine.dispose()


def refusal(engine: Engine) -> str:
    with pytest.raises(SchemaError) as refused:
        check_schema(engine)
    message = str(refused.value)
    assert "\n" not in message
    return message


def differences(database_url: str, tables: MetaData) -> list[Any]:
    # With a user named as the schema, that schema would be the default one, and go by no name.
    engine = connect_engine(f"{database_url}?options=-csearch_path%3Dpublic")

    def ours(name: str | None, kind: str, _parents: object) -> bool:
        return name == "tokenkeeper" if kind == "schema" else True

    with engine.connect() as connection:
        options = {
            "include_schemas": True,
            "include_name": ours,
            "version_table_schema": "tokenkeeper",
            "compare_server_default": True,
        }
        found = list(compare_metadata(MigrationContext.configure(connection, opts=options), tables))
    engine.dispose()
    return found


def test_up_down_and_up_again(empty: Engine, empty_database_url: str, connect: Callable[..., Any]) -> None:
    migrate(empty_database_url)
    check_schema(empty)
    downgrade(empty_database_url, "base")
    assert "not migrated" in refusal(empty)
    assert SqlFixture(connect(empty_database_url)).value(OURS) == 2, "Alembic's own table and its index"
    migrate(empty_database_url)
    check_schema(empty)


OF_BEFORE = """
INSERT INTO tokenkeeper.connections (hub_id, status, sealed_refresh_token, hub_domain, installed_by, due_at)
VALUES (1, 'active', 'sealed', 'Acme.example', 'mia@acme.example', now()), (2, 'suspect', 'sealed', NULL, NULL, NULL);
CREATE VIEW public.somebodys AS SELECT hub_id, hub_domain FROM hubspot.connections;
"""
SEEN = "SELECT hub_id, status, hub_domain, installed_by FROM hubspot.connections ORDER BY hub_id"


def test_a_database_with_connections_keeps_all_of_them_on_the_way_up_and_down(
    empty_database_url: str, connect: Callable[..., Any]
) -> None:
    migrate(empty_database_url)
    downgrade(empty_database_url, "0001")
    sql = SqlFixture(connect(empty_database_url))
    sql.rows(OF_BEFORE)
    before = sql.rows(SEEN)
    migrate(empty_database_url)
    assert sql.rows(SEEN) == before
    assert sql.value("SELECT hub_domain FROM public.somebodys WHERE hub_id = 1") == "Acme.example"
    assert sql.value("SELECT has_table_privilege('hubspot_reader', 'hubspot.connections', 'SELECT')")
    assert sql.value("SELECT reloptions FROM pg_class WHERE oid = 'hubspot.connections'::regclass") == [
        "security_barrier=true"
    ]
    assert sql.rows("SELECT hub_id, listed FROM tokenkeeper.accounts ORDER BY listed") == [
        (1, "\tacme.example"),
        (2, "\n"),
    ]
    downgrade(empty_database_url, "0001")
    assert sql.rows(SEEN) == before


def test_the_tables_that_the_code_knows_are_the_ones_that_are_there(database_url: str) -> None:
    assert differences(database_url, metadata) == []
    assert differences(database_url, MetaData(schema="tokenkeeper")), "else this proves nothing"


def test_migrating_again_changes_nothing(database_url: str, sql: SqlFixture) -> None:
    before = sql.rows("SELECT oid, relname, xmin::text FROM pg_class ORDER BY oid")
    migrate(database_url)
    assert sql.rows("SELECT oid, relname, xmin::text FROM pg_class ORDER BY oid") == before


def test_the_code_knows_its_revisions_as_alembic_does() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    assert tuple(revision.revision for revision in reversed(list(script.walk_revisions()))) == REVISIONS


def test_two_at_once_are_safe(empty: Engine, empty_database_url: str) -> None:
    at_once([lambda: migrate(empty_database_url)] * 3)
    check_schema(empty)


@pytest.fixture
def own_databases(own_postgres: EmbeddedPostgres) -> Databases:
    """Databases of a server without the role, which belongs to a whole server."""
    return Databases(own_postgres.url(), migrate)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_databases_of_one_server_do_not_fight_over_the_role(
    own_databases: Databases, own_postgres: EmbeddedPostgres, connect: Callable[..., Any], end: str
) -> None:
    sql, rival = SqlFixture(connect(own_postgres.url())), connect(own_postgres.url())
    rival.autocommit = False
    SqlFixture(rival).rows("CREATE ROLE hubspot_reader NOLOGIN")
    with own_databases.empty() as one, own_databases.empty() as other:
        children = [subprocess.Popen([sys.executable, "-c", MIGRATE], env={"URL": url}) for url in (one, other)]
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid'"
        until(lambda: sql.value(waiting) == 2)
        getattr(rival, end)()
        assert [child.wait(30) for child in children] == [0, 0]
        for url in (one, other):
            engine = connect_engine(url)
            check_schema(engine)
            engine.dispose()


MIGRATE = "import os; from shared.db.schema.migrate import migrate; migrate(os.environ['URL'])"


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def humble(own_databases: Databases, connect: Callable[..., Any]) -> Iterator[tuple[str, str, SqlFixture]]:
    """A login that may do nothing in particular: its name, its URL of a database, and a superuser's look."""
    with own_databases.empty() as url:
        sql = SqlFixture(connect(url))
        sql.rows("CREATE ROLE humble LOGIN PASSWORD 'humble'")
        parts = urlsplit(url)
        where = parts.netloc.rpartition("@")[2]
        yield parts.path[1:], urlunsplit(parts._replace(netloc=f"humble:humble@{where}")), sql


def test_who_may_not_create_schemas_is_told_what_to_grant(humble: tuple[str, str, SqlFixture]) -> None:
    with pytest.raises(SchemaError, match="GRANT CREATE ON DATABASE"):
        migrate(humble[1])


def test_who_may_not_create_roles_is_told_to_have_one_created(humble: tuple[str, str, SqlFixture]) -> None:
    database, url, sql = humble
    sql.rows(f"GRANT CREATE ON DATABASE {database} TO humble")
    with pytest.raises(SchemaError, match="CREATE ROLE hubspot_reader NOLOGIN"):
        migrate(url)
    assert sql.value(OURS) == 0, "nothing of it stays"
    sql.rows("CREATE ROLE hubspot_reader NOLOGIN")
    migrate(url)
    assert sql.value("SELECT has_table_privilege('hubspot_reader', 'hubspot.tokens', 'SELECT')")
    migrate(url)


def test_a_database_that_is_not_migrated_says_what_to_run(empty: Engine) -> None:
    assert refusal(empty) == "this database is not migrated: run: tokenkeeper migrate"


def test_a_database_that_is_behind_says_what_to_run(engine: Engine) -> None:
    with pytest.raises(SchemaError, match=r"at revision .* the code at 9999: run: tokenkeeper migrate"):
        check_schema(engine, (*REVISIONS, "9999"))


def test_a_newer_database_is_left_alone(engine: Engine, sql: SqlFixture, database_url: str) -> None:
    sql.rows("UPDATE tokenkeeper.alembic_version SET version_num = '9999'")
    assert refusal(engine) == "this database was migrated by a newer tokenkeeper: upgrade the code"
    with pytest.raises(SchemaError, match="newer tokenkeeper"):
        migrate(database_url)
    assert sql.value("SELECT version_num FROM tokenkeeper.alembic_version") == "9999"


def test_a_server_that_is_not_there_is_unavailable_in_one_line() -> None:
    with pytest.raises(StoreUnavailable) as refused:
        migrate("postgresql://user:passw0rd@127.0.0.1:1/nothing")
    assert "connection refused" in str(refused.value)
    assert "passw0rd" not in str(refused.value)
