"""Connections to PostgreSQL: every wait has a limit, and nothing needs a session, so PgBouncer may stand in between.

libpq's timeouts end the wait for a dead network, not for a server that is up and does not answer (it is frozen, or its
disk is). So psycopg2 waits through _wait_for_server(), which also obeys the thread's deadline (shared/net/deadline.py).
psycopg2 has this setting per process, not per connection.
"""

from __future__ import annotations

import math
import select
import time
from typing import Any

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ, STATUS_SETUP, set_wait_callback
from psycopg2.extensions import connection as Psycopg2Connection  # noqa: N812  its own name is too short
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url

from shared.db.core.errors import TIMED_OUT, translate_errors
from shared.net.deadline import deadline, seconds_left

CONNECT_TIMEOUT_SECONDS = 2.0
#: For one statement; the server itself cancels it a little sooner (shared/db/core/statements.py).
STATEMENT_TIMEOUT_SECONDS = 12.0
#: To wait for one of the pool's connections.
POOL_TIMEOUT_SECONDS = 5.0
LIBPQ_OPTIONS = {
    "application_name": "tokenkeeper",
    "connect_timeout": int(CONNECT_TIMEOUT_SECONDS),
    "keepalives": 1,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds until what was sent must be acknowledged
}


def make_engine(
    database_url: str, *, pool_size: int = 5, statement_seconds: float | None = STATEMENT_TIMEOUT_SECONDS
) -> Engine:
    """Connects at the first statement, not now. `statement_seconds`: time limit of each statement; None: no limit."""
    set_wait_callback(_wait_for_server)
    url = make_url(database_url).set(drivername="postgresql+psycopg2")
    options = {name: value for name, value in LIBPQ_OPTIONS.items() if name not in url.query}
    engine = create_engine(
        url,
        connect_args={**options, "connection_factory": _Connection},
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_pre_ping=True,  # after a restart of the server no statement fails
        hide_parameters=True,
        use_native_hstore=False,  # asks the server about an unused type at each connect
    )

    @event.listens_for(engine, "connect")
    def _set_statement_limit(connection: Any, _record: object) -> None:
        connection.statement_seconds = statement_seconds

    return engine


def ping(engine: Engine, seconds: float = 2.5) -> None:
    """Raises StoreUnavailable within `seconds` where PostgreSQL does not answer."""
    with deadline(seconds), translate_errors(), engine.connect() as connection:
        connection.execute(text("SELECT 1"))


class _Connection(Psycopg2Connection):
    statement_seconds: float | None = None  #: time limit of each statement; None: no limit


def _wait_for_server(connection: Psycopg2Connection) -> None:
    """Wait for the server's answer, until the connection's own limit or the thread's deadline."""
    is_connecting = connection.status == STATUS_SETUP
    own_limit = CONNECT_TIMEOUT_SECONDS if is_connecting else getattr(connection, "statement_seconds", None)
    own_end = None if own_limit is None else time.monotonic() + own_limit
    while (state := connection.poll()) != POLL_OK:
        left = seconds_left()
        if own_end is not None:
            left = min(own_end - time.monotonic(), math.inf if left is None else left)
        if left is not None and left <= 0:
            raise psycopg2.OperationalError(TIMED_OUT)  # psycopg2 closes the connection
        # poll, not select: a worker's file numbers go past 1,024
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN if state == POLL_READ else select.POLLOUT)
        poll.poll(None if left is None else left * 1000)
