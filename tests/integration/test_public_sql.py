"""The schema `hubspot` as a downstream job has it: logged in as a role with nothing but `hubspot_reader`."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
from psycopg2 import errors
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS

from tests.support.builders import HUB
from tests.support.polling import list_readable, until
from tests.support.stores import ConnectionFixture, SqlFixture

COUNT_SERVED = "SELECT count(*) FROM hubspot.tokens"


@pytest.fixture
def job_url(sql: SqlFixture, database_url: str) -> Iterator[str]:
    name, password = f"job_{secrets.token_hex(4)}", secrets.token_hex(8)
    sql.rows(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE hubspot_reader")
    parts = urlsplit(database_url)
    where = parts.netloc.rpartition("@")[2]
    yield urlunsplit(parts._replace(scheme="postgresql", netloc=f"{name}:{password}@{where}"))
    sql.rows(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
def job(job_url: str) -> Iterator[SqlFixture]:
    connection = psycopg2.connect(job_url)
    connection.autocommit = True
    yield SqlFixture(connection)
    connection.close()


def columns(job: SqlFixture, view: str) -> list[tuple[str, str]]:
    found = job.rows(
        """SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
            WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum""",
        f"hubspot.{view}",
    )
    return [(name, kind) for name, kind in found]


def test_a_job_reads_a_token_with_one_select(connections: ConnectionFixture, job: SqlFixture) -> None:
    connections.install()
    hub_id, token, expires_at, expires_in, scopes, refreshed_at, *identity = job.rows(
        "SELECT * FROM hubspot.tokens WHERE hub_id = %s", HUB
    )[0]
    assert (hub_id, token, identity) == (HUB, f"access-of-{HUB}", ["default", None, None])
    assert 1790 < expires_in <= 1800
    assert isinstance(expires_in, int)
    assert scopes == ["oauth", "crm.objects.contacts.read"]
    assert (expires_at - refreshed_at).total_seconds() == 1800


def test_the_views_have_the_columns_of_the_contract(job: SqlFixture) -> None:
    instant = "timestamp with time zone"
    assert columns(job, "tokens") == [
        ("hub_id", "bigint"),
        ("access_token", "text"),
        ("expires_at", instant),
        ("expires_in", "integer"),
        ("scopes", "text[]"),
        ("refreshed_at", instant),
        ("app", "text"),
        ("user_id", "bigint"),
        ("customer", "text"),
    ]
    assert columns(job, "connections") == [
        ("hub_id", "bigint"),
        ("status", "text"),
        ("hub_domain", "text"),
        ("installed_by", "text"),
        ("scopes", "text[]"),
        ("installed_at", instant),
        ("expires_at", instant),
        ("next_refresh_at", instant),
        ("failures", "integer"),
        ("last_error", "text"),
        ("status_reason", "text"),
        ("status_since", instant),
        ("app", "text"),
        ("user_id", "bigint"),
        ("customer", "text"),
        ("account_name", "text"),
        ("account_type", "text"),
        ("region", "text"),
        ("missing_scopes", "text[]"),
    ]
    assert columns(job, "history") == [
        ("id", "bigint"),
        ("hub_id", "bigint"),
        ("at", instant),
        ("event", "text"),
        ("detail", "jsonb"),
        ("app", "text"),
        ("user_id", "bigint"),
        ("customer", "text"),
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM tokenkeeper.connections",
        "SELECT encrypted_refresh_token FROM tokenkeeper.connections",
        "SELECT * FROM tokenkeeper.history",
        "SELECT * FROM tokenkeeper.installs",
        "SELECT * FROM tokenkeeper.provider",
        "SELECT * FROM tokenkeeper.alembic_version",
        "UPDATE hubspot.tokens SET access_token = 'mine'",
        "DELETE FROM hubspot.connections",
        "INSERT INTO hubspot.history (hub_id) VALUES (1)",
        "CREATE TABLE hubspot.mine ()",
        "SELECT tokenkeeper.tell()",
        "DROP VIEW hubspot.tokens",
        "SET ROLE pg_read_all_data",
    ],
)
def test_a_reader_is_refused_everything_but_the_views_and_the_function(
    connections: ConnectionFixture, job: SqlFixture, statement: str
) -> None:
    connections.install()
    with pytest.raises(psycopg2.Error) as refused:
        job.rows(statement)
    assert isinstance(
        refused.value, errors.InsufficientPrivilege | errors.ObjectNotInPrerequisiteState | errors.FeatureNotSupported
    )


def test_a_role_that_is_no_reader_reads_nothing(
    connections: ConnectionFixture, sql: SqlFixture, job: SqlFixture
) -> None:
    connections.install()
    sql.rows(f"REVOKE hubspot_reader FROM {job.value('SELECT current_user')}")
    for statement in ("SELECT * FROM hubspot.tokens", "SELECT hubspot.request_refresh(1)"):
        with pytest.raises(errors.InsufficientPrivilege):
            job.rows(statement)


@pytest.mark.parametrize("hidden", ["status = 'disconnected'", "expires_at = now() - interval '1 millisecond'"])
def test_a_function_in_a_readers_where_clause_sees_no_token_that_is_not_served(
    connections: ConnectionFixture, sql: SqlFixture, job: SqlFixture, hidden: str
) -> None:
    """Cheap, and it divides by zero: PostgreSQL evaluates it first, for every row, and it would fail for a token."""
    connections.install()
    read = "SELECT * FROM hubspot.tokens WHERE 1 / length(replace(access_token, access_token, '')) = 1"
    with pytest.raises(errors.DivisionByZero):
        job.rows(read)  # the control: a token that is served
    sql.set(hidden)
    assert job.rows(read) == []


def test_a_read_of_a_token_is_one_lookup_in_an_index_without_a_subquery(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install()
    sql.set("customer = 'acme'")
    sql.rows("SET enable_seqscan = off; SET enable_bitmapscan = off")
    for condition, index in (("hub_id = 1", "connections_identity"), ("customer = 'acme'", "connections_customer")):
        plan = sql.rows(f"EXPLAIN (COSTS off) SELECT access_token FROM hubspot.tokens WHERE {condition}")
        assert plan[0] == (f"Index Scan using {index} on connections",)


@pytest.mark.parametrize(
    "ended",
    [
        "expires_at = now() - interval '1 millisecond'",
        "status = 'disconnected'",
        "status = 'revoked', access_token = NULL, expires_at = NULL",
        "access_token = NULL, expires_at = NULL",
    ],
)
def test_a_token_that_does_not_work_is_not_in_the_view(
    connections: ConnectionFixture, sql: SqlFixture, job: SqlFixture, ended: str
) -> None:
    connections.install()
    assert job.read_served_token() is not None
    sql.set(ended)
    assert job.read_served_token() is None


def test_the_token_of_a_suspect_connection_is_served_until_it_expires(
    connections: ConnectionFixture, sql: SqlFixture, job: SqlFixture
) -> None:
    connections.install()
    sql.set("status = 'suspect'")
    assert job.read_served_token() == f"access-of-{HUB}"


def test_a_token_leaves_the_view_inside_an_open_transaction(
    connections: ConnectionFixture, sql: SqlFixture, job_url: str
) -> None:
    connections.install()
    connection = psycopg2.connect(job_url)
    connection.set_session(isolation_level="REPEATABLE READ")
    job, seconds_left = SqlFixture(connection), 0.25

    def expires_after_the_first_read() -> bool:
        nonlocal seconds_left
        connection.rollback()
        seconds_left *= 2  # on a busy machine the first read may come too late
        sql.set(f"expires_at = clock_timestamp() + interval '{seconds_left} seconds'")
        return bool(job.value(COUNT_SERVED) == 1)

    until(expires_after_the_first_read)
    until(lambda: job.value(COUNT_SERVED) == 0, 60)
    assert connection.info.transaction_status == TRANSACTION_STATUS_INTRANS
    connection.close()


def test_the_view_of_connections_has_their_state_and_no_secret(
    connections: ConnectionFixture, sql: SqlFixture, job: SqlFixture
) -> None:
    connections.install(1)
    connections.install(2)
    sql.set("status = 'revoked', access_token = NULL, expires_at = NULL, due_at = now()", 2)
    seen = job.rows("SELECT hub_id, status, next_refresh_at IS NULL, failures FROM hubspot.connections ORDER BY 1")
    assert seen == [(1, "active", False, 0), (2, "revoked", True, 0)]
    assert "encrypted-of" not in str(job.rows("SELECT * FROM hubspot.connections"))


def test_a_job_that_got_a_401_can_request_a_refresh(connections: ConnectionFixture, job: SqlFixture) -> None:
    connections.install()
    token = job.read_served_token()
    assert job.value("SELECT hubspot.request_refresh(%s, %s)", HUB, token) is True
    connections.stores.refresh_requests.apply()
    assert connections.stores.claims.count_due(1) == 1
    assert job.value("SELECT hubspot.request_refresh(hub_id => %s)", HUB) is False


def test_no_object_in_the_callers_search_path_is_used(
    connections: ConnectionFixture, sql: SqlFixture, job: SqlFixture
) -> None:
    """A security definer function must not call a caller's own `now` or `greatest`."""
    assert sql.value("SELECT proconfig FROM pg_proc WHERE proname = 'request_refresh'") == [
        "search_path=pg_catalog, pg_temp",
        "lock_timeout=100ms",
        "enable_seqscan=off",
    ]
    connections.install()
    job.rows("CREATE TEMP TABLE connections (hub_id bigint)")
    job.rows("SET search_path = pg_temp, pg_catalog")
    assert job.value("SELECT hubspot.request_refresh(%s)", HUB) is True
    assert job.value("SELECT hubspot.request_refresh(%s)", HUB) is False


def test_every_change_of_status_is_sent_by_notify(connections: ConnectionFixture, job_url: str) -> None:
    listener = psycopg2.connect(job_url)
    listener.autocommit = True
    with listener.cursor() as cursor:
        cursor.execute("LISTEN hubspot_connections")
    connections.install()
    connections.stores.results.save([connections.make_failure(connections.claim_one())])
    connections.stores.results.save([connections.make_revocation(connections.claim_one())])
    connections.install()
    connections.install(scopes=("oauth",))
    connections.stores.disconnects.mark_and_read_tokens(connections.id_of(HUB))
    assert [tuple(sorted(payload.items())) for payload in read_notifications(listener, 5)] == [
        (("app", "default"), ("customer", None), ("event", event), ("hub_id", HUB), ("user_id", None))
        for event in ("installed", "suspected", "revoked", "reinstalled", "disconnected")
    ]
    listener.close()


def read_notifications(listener: Any, count: int) -> list[dict[str, Any]]:
    while len(listener.notifies) < count:
        ready = list_readable([listener], 60)
        assert ready, f"only {len(listener.notifies)} notifications came"
        listener.poll()
    assert {notice.channel for notice in listener.notifies} == {"hubspot_connections"}
    return [json.loads(notice.payload) for notice in listener.notifies]


def test_a_lookup_by_hub_or_by_customer_uses_an_index(
    connections: ConnectionFixture, sql: SqlFixture, connect: Callable[..., Any]
) -> None:
    connections.import_due(2000)
    sql.rows("ANALYZE tokenkeeper.connections")
    plan = str(sql.rows("EXPLAIN SELECT access_token FROM hubspot.tokens WHERE hub_id = 7"))
    assert "connections_identity" in plan
    plan = str(sql.rows("EXPLAIN SELECT access_token FROM hubspot.tokens WHERE customer = 'acme'"))
    assert "connections_customer" in plan
