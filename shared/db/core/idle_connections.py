"""Closes connections that a pool keeps and nothing uses: each is a process of the server, of 2 to 7 MB.

The pool hands out the connection that was returned last, so those below it stay unused once there is less to do. The
pool itself would keep them.
"""

from __future__ import annotations

import threading
from typing import Protocol

#: A connection that was not used for so long is closed. Longer than a process needs from one burst of work to the next.
MAX_IDLE_SECONDS = 20.0


class PooledConnection(Protocol):
    idle_since: float  #: by time.monotonic(), while it is in the pool

    def close(self) -> None: ...


class IdleConnections:
    """Those of one pool. Safe in several threads."""

    def __init__(self) -> None:
        self._connections: set[PooledConnection] = set()
        self._lock = threading.Lock()

    def add(self, connection: PooledConnection, now: float) -> None:
        """It goes back to the pool. Those that have been there for too long are closed: it is what the pool keeps."""
        with self._lock:  # also while they are closed: no thread takes one of them meanwhile
            for idle in [each for each in self._connections if now - each.idle_since > MAX_IDLE_SECONDS]:
                self._connections.discard(idle)
                idle.close()
            connection.idle_since = now
            self._connections.add(connection)

    def take(self, connection: PooledConnection) -> None:
        """It leaves the pool, closed or not. A new one was never there."""
        with self._lock:
            self._connections.discard(connection)
