"""Connections to PostgreSQL: every wait has a limit, and nothing needs a session, so PgBouncer may stand in between.

After a failover a name leads to another server, and the old one may live on as a standby or read-only. So each
connection is checked when it is taken from the pool (docs/adr/0029): it must lead to a server that accepts writes, and
now and then to the same one as a new connection, for which the name is resolved again. The hot path checks one that
leads to a process of the server, and to no pooler, once a second and after each failure: it cannot come to lead to
another (docs/adr/0039).

Other programs may use up the connections that the server, the database or the login has. So a process keeps what it
has: a connection is closed once there is one to another server, and a statement that gets no further connection waits
for one of the pool's. And a process keeps few idle ones, so that our other processes get some; of those that it does
not use for a while it keeps one (shared/db/core/idle_connections.py).

libpq's timeouts end the wait for a dead network, not for a server that is up and does not answer (it is frozen, or its
disk is). So psycopg2 waits through wait_for_server(), which also obeys the thread's deadline (shared/net/deadline.py).
psycopg2 has this setting per process, not per connection.
"""

from __future__ import annotations

import itertools
import select
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import psycopg2
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT, POLL_OK, POLL_READ, STATUS_SETUP, set_wait_callback
from psycopg2.extensions import connection as Psycopg2Connection  # noqa: N812  its own name is too short
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError, InvalidatePoolError

from shared.database_url import parse_database_url
from shared.db.core.connection_errors import OUT_OF_CONNECTIONS, TIMED_OUT, explain_connection_error
from shared.db.core.errors import READ_ONLY, StoreReadOnly, translate_errors
from shared.db.core.idle_connections import IdleConnections
from shared.db.core.server_watch import OPTION, ServerWatch
from shared.net.deadline import deadline, seconds_left

CONNECT_TIMEOUT_SECONDS = 2.0
#: How often a wait for the server is measured.
WAIT_STEP_SECONDS = 0.25
#: For one statement; the server itself cancels it a little sooner (shared/db/core/statements.py).
STATEMENT_TIMEOUT_SECONDS = 12.0
#: To wait for one of the pool's connections.
POOL_TIMEOUT_SECONDS = 5.0
#: Connections of a process that stay open while it does not use them, and in all.
IDLE_CONNECTIONS, MAX_CONNECTIONS = 2, 10
#: Until a connection is tried again, or compared with a new one, where the server has none left.
OUT_OF_CONNECTIONS_PAUSE_SECONDS, COMPARE_PAUSE_SECONDS = 0.1, 5.0
#: After so long a connection is compared with a new one: where a name leads to another server now, while the old one
#: still accepts writes, nothing else would lead there. Below the time for which saved results are remembered
#: (recent_writes.py). Of two to the same server the old one stays: its session has read the catalogues and prepared
#: statements, which takes ten times as long as to connect.
COMPARE_SECONDS = 40.0
#: Until a direct connection is checked again on the hot path.
CHECK_INTERVAL_SECONDS = 1.0
#: pg_postmaster_start_time() is a mark of the server that PgBouncer does not hide. As quick as SELECT 1. The process id
#: differs from the one that the connection was given at its start where a pooler stands in between.
CHECK_SERVER = (
    "SELECT pg_catalog.pg_postmaster_start_time(),"
    " pg_catalog.current_setting('transaction_read_only'::pg_catalog.text), pg_catalog.pg_backend_pid()"
)
LIBPQ_OPTIONS = {
    "application_name": "tokenkeeper",
    "connect_timeout": int(CONNECT_TIMEOUT_SECONDS),
    "keepalives": 1,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds until what was sent must be acknowledged
    "target_session_attrs": "read-write",  # of several hosts, or addresses of a name, the one that accepts writes
}


_checkout = threading.local()  #: `is_hot` of this thread's newest call of connect()


def make_engine(
    database_url: str,
    *,
    pool_size: int = IDLE_CONNECTIONS,
    statement_seconds: float | None = STATEMENT_TIMEOUT_SECONDS,
) -> Engine:
    """Connects at the first statement, not now.

    `pool_size`: connections that stay open. `statement_seconds`: time limit of each statement; None: no limit.
    """
    set_wait_callback(wait_for_server)
    watch = ServerWatch()
    replacements, idle = threading.local(), IdleConnections()
    engine = create_engine(
        "postgresql+psycopg2://",
        connect_args={**LIBPQ_OPTIONS, **parse_database_url(database_url), "connection_factory": ServerConnection},
        pool_size=pool_size,
        max_overflow=max(pool_size, MAX_CONNECTIONS - pool_size),
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_use_lifo=True,  # most work is done by one connection, whose session knows the tables already
        hide_parameters=True,
        use_native_hstore=False,  # asks the server about an unused type at each connect
        execution_options={OPTION: watch},
    )

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: object, _record: object, _arguments: object, options: dict[str, Any]) -> Any:
        watch.check_open()
        replacement, replacements.connection = getattr(replacements, "connection", None), None
        return replacement or _connect_to_one_host(options)

    @event.listens_for(engine, "connect")
    def _set_statement_limit(connection: Any, _record: object) -> None:
        connection.statement_seconds = statement_seconds

    @event.listens_for(engine, "checkin")
    def _close_idle(connection: Any, _record: object) -> None:
        if connection is not None:  # it was not lost
            idle.add(connection, time.monotonic())

    @event.listens_for(engine, "checkout")
    def _check(connection: Any, _record: object, _fairy: object) -> None:
        idle.take(connection)
        if time.monotonic() > connection.compare_at and not connection.closed:
            replacements.connection = _open_replacement(connection)  # the pool takes it once it has closed this one
        _check_connection(connection, watch)

    @event.listens_for(engine, "invalidate")
    def _note_loss(_connection: object, _record: object, error: BaseException | None) -> None:
        if not isinstance(error, _ConnectionReplaced):
            watch.note_lost_connection()

    @event.listens_for(engine, "engine_disposed")
    def _close(_engine: Engine) -> None:
        watch.closed.set()

    return engine


def ping(engine: Engine, seconds: float = 2.5) -> None:
    """Raises StoreUnavailable within `seconds` where PostgreSQL does not answer."""
    with deadline(seconds), translate_errors(), connect(engine):
        pass  # it was checked as it left the pool


def connect(engine: Engine, *, is_hot: bool = False) -> Connection:
    """Waits for one of the pool's own where PostgreSQL has no further connection for us. SQLAlchemy's errors.

    `is_hot`: the caller tries again where the connection turns out to be lost, so a recent check is enough.
    """
    ends_at = time.monotonic() + POOL_TIMEOUT_SECONDS
    while True:
        try:
            _checkout.is_hot = is_hot
            return engine.connect()
        except DBAPIError as error:
            left = seconds_left()
            is_late = time.monotonic() > ends_at or (left is not None and left < OUT_OF_CONNECTIONS_PAUSE_SECONDS)
            if is_late or explain_connection_error(str(error.orig)) is not OUT_OF_CONNECTIONS:
                raise
        time.sleep(OUT_OF_CONNECTIONS_PAUSE_SECONDS)


class ServerConnection(Psycopg2Connection):
    statement_seconds: float | None = None  #: time limit of each statement; None: no limit
    was_checked = False
    idle_since = 0.0  #: by time.monotonic(), while it is in the pool
    is_direct = False  #: it leads to one process of the server, not to any of a pooler's

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.options: Mapping[str, Any] = {}  #: with which it was opened
        self.compare_at = time.monotonic() + COMPARE_SECONDS
        self.server_started_at: datetime | None = None  #: at the newest check
        self.check_at = 0.0  #: by time.monotonic()
        self.checked_losses = 0  #: ServerWatch.losses at the newest check
        self.prepared: set[str] = set()  #: names of statements that this session has prepared
        self.has_lost_prepared = False

    def was_checked_recently(self, watch: ServerWatch, now: float) -> bool:
        return self.is_direct and now < self.check_at and self.checked_losses == watch.losses

    @property
    def can_prepare(self) -> bool:
        """Whether a statement that was prepared on this connection is found again."""
        return self.is_direct and not self.has_lost_prepared

    def set_isolation_level(self, level: int | None) -> None:
        """SQLAlchemy's, which sets the server's default again after AUTOCOMMIT.

        From then on psycopg2 itself would send `SET default_transaction_isolation` whenever autocommit ends, twice for
        each statement. The level of a transaction is set in its first message (STATEMENT_LIMITS), not here.
        """
        self.autocommit = level == ISOLATION_LEVEL_AUTOCOMMIT

    def ask_server(self) -> tuple[datetime, bool]:
        """When the server was started, and whether it is read-only. Leaves no transaction open."""
        in_autocommit, self.autocommit = self.autocommit, True
        try:
            with self.cursor() as cursor:
                cursor.execute(CHECK_SERVER)
                row: tuple[Any, ...] = cursor.fetchone() or ()
        finally:
            if not self.closed:
                self.autocommit = in_autocommit
        started_at, is_read_only, pid = row
        self.server_started_at = started_at
        self.is_direct = pid == self.info.backend_pid
        return started_at, is_read_only == "on"


def _connect_to_one_host(options: Mapping[str, Any]) -> ServerConnection:
    """A connection to the first host that accepts one, each within CONNECT_TIMEOUT_SECONDS.

    Given all hosts, libpq would spend that time, which psycopg2 limits as a whole, on a first one that does not answer.
    """
    hosts, ports = (str(options.get(name, "")).split(",") for name in ("host", "port"))
    for host, port in itertools.zip_longest(hosts, ports, fillvalue=ports[-1]):
        own = {**options, **({"host": host} if host else {}), **({"port": port} if port else {})}
        try:
            connection: ServerConnection = psycopg2.connect(**own)
        except psycopg2.OperationalError as error:
            failure = error
        except UnicodeDecodeError as error:
            # A server whose messages are neither in English nor in UTF-8: psycopg2 cannot tell what it says.
            failure = psycopg2.OperationalError(bytes(error.object).decode("latin-1"))
        else:
            connection.options = options
            return connection
    raise failure


def _open_replacement(old: ServerConnection) -> ServerConnection | None:
    """A connection to another server than `old`. None where there is none.

    `old` stays for a while where both lead to the same server, or where that has no connection left.
    """
    new = None
    try:
        new = _connect_to_one_host(old.options)
        new.statement_seconds = CONNECT_TIMEOUT_SECONDS
        if new.ask_server()[0] != old.server_started_at:
            return new
        old.compare_at = time.monotonic() + COMPARE_SECONDS
    except psycopg2.Error as error:
        if explain_connection_error(str(error)) is OUT_OF_CONNECTIONS:
            old.compare_at = time.monotonic() + COMPARE_PAUSE_SECONDS
    if new is not None:
        new.close()
    return None


class _ConnectionReplaced(DisconnectionError):
    """The pool replaces this connection alone."""


def _check_connection(connection: ServerConnection, watch: ServerWatch) -> None:
    """Called as a connection leaves the pool. The pool replaces it, or all, where this raises a DisconnectionError.

    Raises StoreReadOnly or psycopg2's error where a new connection is no better.
    """
    is_new, connection.was_checked = not connection.was_checked, True
    now = time.monotonic()
    if now > connection.compare_at or connection.closed:
        raise _ConnectionReplaced
    if getattr(_checkout, "is_hot", False) and connection.was_checked_recently(watch, now):
        return
    try:
        started_at, is_read_only = connection.ask_server()
    except psycopg2.Error:
        if is_new:
            raise
        raise InvalidatePoolError from None
    watch.note_server(started_at)
    if is_read_only:
        raise StoreReadOnly(READ_ONLY) if is_new else InvalidatePoolError
    connection.check_at, connection.checked_losses = now + CHECK_INTERVAL_SECONDS, watch.losses


def wait_for_server(connection: Psycopg2Connection) -> None:
    """Wait for the server's answer, until the connection's own limit or the thread's deadline.

    In steps, so that of a time in which this process stands still, as on a busy machine, at most a step counts towards
    the connection's limit: the server has not been silent for so long.
    """
    is_connecting = connection.status == STATUS_SETUP
    own_limit = CONNECT_TIMEOUT_SECONDS if is_connecting else getattr(connection, "statement_seconds", None)
    waited_seconds = 0.0
    while (state := connection.poll()) != POLL_OK:
        limits = (WAIT_STEP_SECONDS, own_limit and own_limit - waited_seconds, seconds_left())
        step_seconds = min(limit for limit in limits if limit is not None)
        if step_seconds <= 0:
            raise psycopg2.OperationalError(TIMED_OUT)  # psycopg2 closes the connection
        # poll, not select: a worker's file numbers go past 1,024
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN if state == POLL_READ else select.POLLOUT)
        began_at = time.monotonic()
        poll.poll(step_seconds * 1000)
        waited_seconds += min(step_seconds, time.monotonic() - began_at)
