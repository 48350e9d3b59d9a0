"""How we connect: no statement waits for ever, and nothing needs a session, so PgBouncer may stand between.

libpq's timeouts end a dead network, not a server that is alive and silent (frozen, or its disk is). So psycopg2
is told to wait through `_wait`, which looks at the clock and at the thread's deadline (`shared.net.deadline`). That is
a setting of the process, not of a connection.
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

from shared.db.core.errors import translate_errors
from shared.net.deadline import deadline, seconds_left

CONNECT_TIMEOUT_SECONDS = 2.0
#: Seconds for one statement; the server is told to give up a little sooner (shared/db/core/statements.py).
STATEMENT_TIMEOUT_SECONDS = 12.0
#: Seconds to wait for one of the pool's connections.
POOL_TIMEOUT_SECONDS = 5.0
LIBPQ = {
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
    """Connects at the first statement, not now. `statement_seconds` None: wait as long as it takes."""
    set_wait_callback(_wait)
    url = make_url(database_url).set(drivername="postgresql+psycopg2")
    options = {name: value for name, value in LIBPQ.items() if name not in url.query}
    engine = create_engine(
        url,
        connect_args={**options, "connection_factory": _Connection},
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_pre_ping=True,  # a restarted server costs nobody an error
        hide_parameters=True,
        use_native_hstore=False,  # asks the server about a type that we do not use, at each connect
    )

    @event.listens_for(engine, "connect")
    def _patient(connection: Any, _record: object) -> None:
        connection.patience = statement_seconds

    return engine


def ping(engine: Engine, seconds: float = 2.5) -> None:
    """Raises StoreUnavailable within `seconds` where PostgreSQL does not answer."""
    with deadline(seconds), translate_errors(), engine.connect() as connection:
        connection.execute(text("SELECT 1"))


class _Connection(Psycopg2Connection):
    #: seconds for one statement; None: as long as it takes
    patience: float | None = None


def _wait(connection: Psycopg2Connection) -> None:
    """Wait until the server's answer is there: no longer than the connection's own limit, nor the thread's deadline."""
    own_limit = CONNECT_TIMEOUT_SECONDS if connection.status == STATUS_SETUP else getattr(connection, "patience", None)
    own_end = None if own_limit is None else time.monotonic() + own_limit
    while (state := connection.poll()) != POLL_OK:
        left = seconds_left()
        if own_end is not None:
            left = min(own_end - time.monotonic(), math.inf if left is None else left)
        if left is not None and left <= 0:
            raise psycopg2.OperationalError("patience ran out")  # psycopg2 closes the connection
        # poll, not select: a worker's file numbers go past 1,024
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN if state == POLL_READ else select.POLLOUT)
        poll.poll(None if left is None else left * 1000)
