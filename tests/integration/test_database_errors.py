"""Errors while PostgreSQL is down, frozen, restarted or rejecting: named, in time, and without values."""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from sandbox.embedded import EmbeddedPostgres
from shared.database_url import parse_database_url
from shared.db.core.engine import make_engine as connect_engine
from shared.db.core.engine import ping
from shared.db.core.errors import StatementRejected, StoreReadOnly, StoreUnavailable, translate_errors
from shared.db.core.server_watch import server_watch
from shared.db.core.statements import Database, single_statement
from shared.db.schema.migrate import migrate
from shared.net.deadline import deadline
from tests.support.builders import HUB
from tests.support.databases import Databases
from tests.support.log_capture import capturing_log
from tests.support.polling import until
from tests.support.replication import open_sql
from tests.support.stores import ConnectionFixture, SqlFixture, Stores, at_once
from tests.support.tcp_server import TcpServer
from web.monitoring.health import NotReady, readiness_checks

SECRET = "do-not-show-this-token"
#: Of a ping that is answered: no busy machine takes so long.
PING_SECONDS = 30.0


def format_error(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.args)


def test_the_error_of_a_rejected_statement_contains_none_of_its_values(connections: ConnectionFixture) -> None:
    connections.install_due(HUB)
    result = connections.make_success(connections.claim_one(), f"{SECRET}\x00")
    (why,) = connections.stores.results.save([result]).rejected.values()
    assert SECRET not in why
    assert "22P05" in why


def test_the_error_of_a_violated_constraint_names_it_but_not_its_row(connections: ConnectionFixture) -> None:
    connections.install(access_token=SECRET)
    with pytest.raises(StatementRejected) as raised:
        Database(connections.stores.imports._database._engine).execute(
            single_statement(
                "UPDATE tokenkeeper.connections SET status = 'nonsense', encrypted_refresh_token = :token"
            ),
            token=SECRET,
        )
    assert SECRET not in format_error(raised.value)
    assert "connections_status_known" in str(raised.value)


def test_a_result_that_cannot_be_stored_does_not_keep_the_others_from_being_saved(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install_due(1, 2, 3)
    rows = {row.connection.identity.hub_id: row for row in connections.stores.claims.claim(3).rows}
    results = [
        connections.make_success(rows[1]),
        connections.make_success(rows[2], f"{SECRET}\x00"),
        connections.make_success(rows[3]),
    ]
    outcome = connections.stores.results.save(results)
    assert (outcome.saved, outcome.rejected.keys()) == (connections.ids(1, 3), connections.ids(2))
    assert SECRET not in str(outcome)
    assert (sql.read_served_token(1), sql.read_served_token(2), sql.read_served_token(3)) == (
        "new-access",
        "access-of-2",
        "new-access",
    )
    assert sql.row(2)["lease_until"] is not None, "it is not claimed again at once"


def test_what_was_saved_before_a_result_that_cannot_be_stored_counts_as_saved(
    connections: ConnectionFixture, sql: SqlFixture
) -> None:
    """Results with a line for the history are saved after the others, by a statement of their own."""
    connections.install_due(1, 2)
    sql.set("status = 'suspect', failures = 1", 2)
    rows = {row.connection.identity.hub_id: row for row in connections.stores.claims.claim(2).rows}
    results = [
        connections.make_success(rows[1]),
        connections.make_success(rows[2], f"{SECRET}\x00"),
    ]
    assert [bool(result.transition.events) for result in results] == [False, True]
    outcome = connections.stores.results.save(results)
    assert (outcome.saved, outcome.rejected.keys()) == (connections.ids(1), connections.ids(2))
    assert sql.read_served_token(1) == "new-access"


def test_every_statement_has_a_limit_on_the_server_and_leaves_the_session_unchanged(engine: Engine) -> None:
    database = Database(engine)
    assert database.execute(single_statement("SHOW statement_timeout"))[0][0] == "10s"
    with database.transaction() as connection:
        assert connection.scalar(text("SHOW lock_timeout")) == "8s"
    with engine.connect() as connection:
        assert connection.scalar(text("SHOW statement_timeout")) == "0"


def test_a_refused_connection_is_reported_without_the_password() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"postgres://user:{SECRET}@127.0.0.1:{unused.getsockname()[1]}/db?connect_timeout=9"
        stores = Stores(connect_engine(url), lease_seconds=60)
        with pytest.raises(StoreUnavailable, match="connection refused") as raised:
            stores.claims.claim(1)
    assert SECRET not in format_error(raised.value)


class _Refuses(socketserver.BaseRequestHandler):
    """As a server of PostgreSQL with lc_messages = de_DE.ISO-8859-1: neither English nor UTF-8."""

    def handle(self) -> None:
        fields = ("SFATAL", "C28P01", "MPasswort-Authentifizierung für Benutzer »keeper« fehlgeschlagen")
        body = b"".join(field.encode("latin-1") + b"\0" for field in fields) + b"\0"
        self.request.recv(1024)
        self.request.sendall(b"E" + (len(body) + 4).to_bytes(4, "big") + body)


def test_a_refusal_in_another_language_and_encoding_is_shown() -> None:
    with TcpServer(_Refuses) as server:
        engine = connect_engine(f"postgresql://keeper:{SECRET}@127.0.0.1:{server.port}/db?sslmode=disable")
        with pytest.raises(StoreUnavailable, match="Passwort-Authentifizierung für Benutzer »keeper«") as raised:
            ping(engine, PING_SECONDS)
    assert SECRET not in format_error(raised.value)


def test_a_host_that_accepts_and_does_not_answer_is_given_two_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = connect_engine(f"postgresql://user@127.0.0.1:{silent.getsockname()[1]}/db")
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            Stores(engine, lease_seconds=60).claims.count_due(1)
        assert 1.5 < time.monotonic() - began < 30


def test_a_wrong_password_and_a_wrong_database_have_different_errors(own_postgres: EmbeddedPostgres) -> None:
    url = make_url(own_postgres.url())
    for wrong, words in (
        (url.set(password="wrong"), "user or the password"),
        (url.set(database="nowhere"), "does not exist"),
    ):
        engine = connect_engine(wrong.render_as_string(hide_password=False))
        with pytest.raises(StoreUnavailable, match=words):
            ping(engine, PING_SECONDS)


@pytest.fixture
def frozen(engine: Engine) -> Iterator[int]:
    """The server process of the pool's only connection is stopped: its kernel acknowledges, it does not answer."""
    with engine.connect() as connection:
        pid = int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)
    os.kill(pid, signal.SIGSTOP)
    yield pid
    os.kill(pid, signal.SIGCONT)


def test_the_wait_for_a_frozen_server_ends_at_the_deadline(engine: Engine, frozen: int) -> None:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="no answer in time"), deadline(1.0):
        Stores(engine, lease_seconds=60).claims.count_due(1)
    assert 0.9 < time.monotonic() - began < 30
    assert Stores(engine, lease_seconds=60).claims.count_due(1) == 0, "the next statement gets another connection"


def test_a_statement_that_takes_too_long_ends_at_its_own_limit(database_url: str) -> None:
    engine = connect_engine(database_url, statement_seconds=0.5)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="no answer in time"), translate_errors(), engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(60)"))
    assert 0.4 < time.monotonic() - began < 40
    until(lambda: succeeds(lambda: ping(engine)))  # a busy machine takes longer for the first statement of a session
    engine.dispose()


def test_after_ctrl_c_during_a_statement_nothing_is_logged(engine: Engine, sql: SqlFixture) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    main_thread = threading.get_ident()

    def interrupt() -> None:
        until(lambda: sql.value(waiting))
        signal.pthread_kill(main_thread, signal.SIGUSR1)

    usual_handler = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        with ThreadPoolExecutor(1) as pool, capturing_log() as log:
            pool.submit(interrupt)
            with pytest.raises(KeyboardInterrupt):
                Database(engine).execute(single_statement("SELECT pg_sleep(60)"))
    finally:
        signal.signal(signal.SIGUSR1, usual_handler)
    assert log.text == ""
    ping(engine, PING_SECONDS)


def test_after_a_restart_of_the_server_no_statement_fails_and_claims_wait_for_lost_commits(
    own_postgres: EmbeddedPostgres,
) -> None:
    url = own_postgres.url()
    migrate(url)
    engine = connect_engine(url)
    stores = Stores(engine, lease_seconds=60)
    assert stores.claims.claim(1).rows == []
    own_postgres.stop()
    with pytest.raises(StoreUnavailable):
        stores.claims.claim(1)
    own_postgres.start()
    assert stores.claims.count_due(1) == 0
    server_watch(engine)._changed_at += 60  # a busy machine may take longer than claims wait
    with pytest.raises(StoreUnavailable, match="lost commits are repeated first"):
        stores.claims.claim(1)
    engine.dispose()


def test_a_row_locked_for_too_long_is_reported_as_unavailable(
    connections: ConnectionFixture, connect: Callable[..., Any], engine: Engine
) -> None:
    connections.install()
    other = connect()
    other.autocommit = False
    SqlFixture(other).rows("SELECT FROM tokenkeeper.connections FOR UPDATE")
    update = text("SET LOCAL lock_timeout = '50ms'; UPDATE tokenkeeper.connections SET failures = 1")
    with pytest.raises(StoreUnavailable, match="55P03"):
        Database(engine).execute(update)
    assert connections.stores.claims.claim(1).rows == [], "a claim skips locked rows"
    other.rollback()


def test_a_statement_in_a_database_that_is_not_migrated_is_rejected(empty_database_url: str) -> None:
    engine = connect_engine(empty_database_url)
    with pytest.raises(StatementRejected, match="42P01"):
        Stores(engine, lease_seconds=60).claims.claim(1)
    engine.dispose()


def test_a_server_that_becomes_read_only_is_left_at_the_next_statement_and_taken_again_later(
    own_postgres: EmbeddedPostgres,
) -> None:
    """As a former primary does that stays up: its connections live on, and reads would succeed."""
    engine = connect_engine(own_postgres.url())
    ping(engine)
    sql = open_sql(own_postgres)
    sql.rows("SET default_transaction_read_only = off")
    try:
        set_read_only(sql, "ALTER SYSTEM SET default_transaction_read_only = on")
        with pytest.raises(StoreReadOnly, match="PostgreSQL is read-only"):
            until(lambda: ping(engine, PING_SECONDS))
        with pytest.raises(StoreReadOnly, match="PostgreSQL is read-only"):
            ping(connect_engine(f"{own_postgres.url()}?target_session_attrs=any"), PING_SECONDS)
        with pytest.raises(NotReady, match="read-only"):
            readiness_checks(engine, "redis://unused")["postgres"]()
    finally:
        set_read_only(sql, "ALTER SYSTEM RESET default_transaction_read_only")
    until(lambda: succeeds(lambda: ping(engine)))


def set_read_only(sql: SqlFixture, statement: str) -> None:
    sql.rows(statement)
    sql.rows("SELECT pg_reload_conf()")


def succeeds(call: Callable[[], None]) -> bool:
    try:
        call()
    except StoreUnavailable:
        return False
    return True


def test_each_of_several_hosts_has_a_time_limit_of_its_own(own_postgres: EmbeddedPostgres) -> None:
    url = make_url(own_postgres.url())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = (f"127.0.0.1:{silent.getsockname()[1]}", f"127.0.0.1:{url.port}")
        ping(connect_engine(own_postgres.url().replace(f"127.0.0.1:{url.port}", ",".join(hosts))), PING_SECONDS)


def test_where_postgresql_has_no_connection_left_the_pool_keeps_its_own_and_statements_wait_for_them(
    database_url: str, databases: Databases, sql: SqlFixture
) -> None:
    engine = connect_engine(databases.as_worker(database_url), pool_size=1)
    database = Database(engine)
    (backend,) = database.execute(single_statement("SELECT pg_backend_pid()"))[0]
    login = make_url(databases.as_worker(database_url)).username
    sql.rows(f"ALTER ROLE {login} CONNECTION LIMIT 1")
    try:
        with engine.connect() as connection:
            connection.connection.dbapi_connection.compare_at -= 60  # type: ignore[union-attr]
        calls = [lambda: database.execute(single_statement("SELECT pg_sleep(0.1), pg_backend_pid()"))[0][1]] * 4
        assert at_once(calls) == [backend] * 4
    finally:
        sql.rows(f"ALTER ROLE {login} CONNECTION LIMIT -1")
    engine.dispose()


def test_an_old_connection_is_replaced_where_its_name_leads_to_another_server_now(
    engine: Engine, own_postgres: EmbeddedPostgres
) -> None:
    def take_session(*, is_old: bool = False) -> Any:
        with engine.connect() as connection:
            session: Any = connection.connection.dbapi_connection
            session.compare_at -= 60 * is_old
            return session

    first = take_session(is_old=True)
    assert take_session() == first, "it leads to the same server, and its session knows the tables"
    compared_again_at = first.compare_at
    losses = server_watch(engine).losses
    first.options = {**first.options, **parse_database_url(own_postgres.url())}
    assert take_session() == first, "the server's name is not resolved for each statement"
    assert (first.compare_at, server_watch(engine).losses) == (compared_again_at, losses)
    take_session(is_old=True)
    second = take_session()
    assert first.closed
    assert second.info.port == own_postgres.port
    assert server_watch(engine).losses == losses + 1, "the other server may lack the newest commits"


def test_a_process_closes_connections_that_it_has_not_used_for_a_while_and_keeps_the_last_one(
    engine: Engine, sql: SqlFixture
) -> None:
    def open_connections(count: int) -> list[Any]:
        """As a burst of work does: the pool gets them back, the first one last."""
        with ExitStack() as stack:
            connections = [stack.enter_context(engine.connect()) for _ in range(count)]
            return [connection.connection.dbapi_connection for connection in reversed(connections)]

    def list_backends() -> list[tuple[int]]:
        return sql.rows(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tokenkeeper'"
        )

    sessions = open_connections(3)
    assert open_connections(3) == sessions, "the pool keeps them for the next burst of work"
    for session in sessions:
        session.idle_since -= 60
    *others, newest = sessions
    assert open_connections(1) == [newest]
    assert [bool(session.closed) for session in sessions] == [True, True, False]
    until(lambda: list_backends() == [(newest.info.backend_pid,)])
    assert len({*open_connections(3), *others, newest}) == 5, "the next burst gets as many new ones"
