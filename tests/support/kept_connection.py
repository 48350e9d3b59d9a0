"""A connection to PostgreSQL that engines of one test after the other use.

A new one costs a test 12 ms of CPU time, most of it until its session has read the catalogues. Whatever a statement
can set in a session is reset. What PostgreSQL reads as a session begins, such as the defaults of a login, is not read
again: a test of those makes an engine of its own.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import psycopg2
from sqlalchemy import Engine, QueuePool, event
from sqlalchemy.engine import Dialect

from shared.db.core.engine import COMPARE_SECONDS, ServerConnection


class KeptConnection:
    def __init__(self) -> None:
        self._connection: ServerConnection | None = None  #: None: there is none, or an engine has it
        self._new_state: dict[str, Any] = {}  #: the attributes of a new one

    @property
    def pid(self) -> int:
        """Of its server process; 0 where there is none."""
        return self._connection.info.backend_pid if self._connection else 0

    @contextmanager
    def lend_to(self, engine: Engine) -> Iterator[None]:
        """As the first connection of an engine that has none yet. In the end one of the engine's is kept."""
        event.listen(engine, "connect", self._note_state)
        _borrowers[engine.dialect] = self
        yield
        _borrowers.pop(engine.dialect, None)
        assert isinstance(engine.pool, QueuePool)
        if engine.pool.checkedin() and self._connection is None:
            self._keep(engine)

    def take(self) -> ServerConnection | None:
        connection, self._connection = self._connection, None
        if connection is not None:
            vars(connection).clear()
            vars(connection).update(copy.deepcopy(self._new_state))
            connection.compare_at = time.monotonic() + COMPARE_SECONDS
        return connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _note_state(self, connection: ServerConnection, _: object) -> None:
        self._new_state = self._new_state or copy.deepcopy(vars(connection))

    def _keep(self, engine: Engine) -> None:
        try:
            pooled = engine.raw_connection()
        except Exception:  # noqa: BLE001  whatever the test left: the server is stopped, the login may not connect
            return
        connection: Any = pooled.driver_connection
        pooled.detach()
        try:
            reset_session(connection)
            connection.autocommit = False
            self._connection = connection
        except psycopg2.Error:  # the test ended the session
            connection.close()


_borrowers: WeakKeyDictionary[Dialect, KeptConnection] = WeakKeyDictionary()  #: by the dialect, which each engine has


@event.listens_for(Engine, "do_connect")  # called before the one that `make_engine` registers for its engine alone
def _lend(dialect: Dialect, *_: object) -> ServerConnection | None:
    kept = _borrowers.pop(dialect, None)
    return kept.take() if kept else None


def reset_session(session: Any) -> None:
    """Let nothing of the last test be left in a session of psycopg2's. It is in autocommit then."""
    session.rollback()
    session.autocommit = True
    with session.cursor() as cursor:
        cursor.execute("DISCARD ALL")
    session.notifies.clear()
    session.notices.clear()
