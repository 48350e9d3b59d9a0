"""Notices that the newest commits may be missing: the server was restarted, or is another one (docs/adr/0029)."""

from __future__ import annotations

import math
import threading
import time
from datetime import datetime

import psycopg2
from sqlalchemy import Engine

#: The key of an engine's execution options under which make_engine() puts its watch.
OPTION = "tokenkeeper_server_watch"


class ServerWatch:
    """What the connections of one engine have learned about the server that they lead to. Safe in several threads."""

    def __init__(self) -> None:
        self.closed = threading.Event()  #: set once the engine is disposed
        self.losses = 0  #: differs from an earlier value where a connection was lost or the server changed since
        self._server_started_at: datetime | None = None
        self._changed_at = -math.inf  #: by time.monotonic()

    def check_open(self) -> None:
        """Otherwise a thread that still uses the engine opened a connection that is never closed.

        Raises psycopg2.InterfaceError.
        """
        if self.closed.is_set():
            raise psycopg2.InterfaceError("the engine was closed")

    def note_server(self, started_at: datetime) -> None:
        """`started_at`: pg_postmaster_start_time(), which no two servers and no two starts have in common."""
        known, self._server_started_at = self._server_started_at, started_at
        if known not in (None, started_at):
            self._changed_at = time.monotonic()
            self.losses += 1

    def note_lost_connection(self) -> None:
        self.losses += 1

    def seconds_since_change(self) -> float:
        """Since these connections led to another server, or the server to another start; infinite where never."""
        return time.monotonic() - self._changed_at


def server_watch(engine: Engine) -> ServerWatch:
    """The watch of an engine that make_engine() made."""
    watch: ServerWatch = engine.get_execution_options()[OPTION]
    return watch
