"""Remembers what was committed in the last minute, and has it written again where a failover lost it.

A standby that replicates asynchronously may lack the newest commits when it is promoted. What exists nowhere else must
not be lost by that, such as a refresh token that HubSpot rotated (docs/adr/0029). The memory is that of one process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar, cast

import structlog
from sqlalchemy import Engine, QueuePool

from shared.db.core.engine import ping
from shared.db.core.errors import StoreError
from shared.db.core.server_watch import server_watch

log = structlog.get_logger(__name__)

#: Longer than a connection to a former primary is used (COMPARE_SECONDS), and than any usual lag.
REMEMBER_SECONDS = 60.0
#: Between two looks at the server, while something is remembered; one may be postponed until the next.
POLL_SECONDS = 1.0

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class RecentWrites(Generic[Key, Item]):
    """Writes that PostgreSQL has confirmed. A thread runs while some are remembered, and none is idle otherwise.

    After a loss of connection, and where the server was restarted or is another one, the thread has them written again
    before it forgets any: an outage does not shorten the memory.
    """

    def __init__(
        self, engine: Engine, write_lost_again: Callable[[Sequence[Item]], bool], *, max_items: int, name: str
    ) -> None:
        """`write_lost_again` writes what PostgreSQL lacks; False: not all can be written yet. It may raise StoreError.

        `max_items`: beyond it the oldest are forgotten early.
        """
        self._engine = engine
        self._watch = server_watch(engine)
        self._write_lost_again = write_lost_again
        self._max_items = max_items
        self._name = name
        self._lock = threading.Lock()
        self._items: dict[Key, tuple[float, Item]] = {}  #: oldest first, each with its time.monotonic()
        self._checked_losses = 0  #: ServerWatch.losses when the items were last compared with the database
        self._is_running = False

    def remember(self, items: Mapping[Key, Item]) -> None:
        """Call it right after the write. Of two items with one key the later one is remembered."""
        now = time.monotonic()
        with self._lock:
            for key, item in items.items():
                self._items.pop(key, None)
                self._items[key] = (now, item)
            for key in list(self._items)[: max(0, len(self._items) - self._max_items)]:
                del self._items[key]
            if self._items and not self._is_running:
                self._is_running = True
                self._checked_losses = self._watch.losses
                threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def finish(self, timeout_seconds: float) -> None:
        """Call it at the end of the process: a last comparison, for which PostgreSQL may take that time to answer."""
        ends_at = time.monotonic() + timeout_seconds
        while self._is_running and not self._try_to_compare() and time.monotonic() < ends_at:
            time.sleep(POLL_SECONDS)

    def _run(self) -> None:
        is_postponed = False
        while self._is_running and not self._watch.closed.wait(POLL_SECONDS):
            is_postponed = not is_postponed and self._may_postpone()
            if not is_postponed and self._try_to_compare():
                self._forget_old()

    def _may_postpone(self) -> bool:
        """While another thread uses a connection, which it has checked: a look now would open a second one."""
        is_any_in_use = bool(cast("QueuePool", self._engine.pool).checkedout())
        return is_any_in_use and self._watch.losses == self._checked_losses

    def _try_to_compare(self) -> bool:
        """Whether PostgreSQL has everything that is remembered."""
        try:
            ping(self._engine)  # the connection's checks notice another server
            losses = self._watch.losses
            if losses != self._checked_losses:
                with self._lock:
                    items = [item for _, item in self._items.values()]
                if not self._write_lost_again(items):
                    return False
                self._checked_losses = losses
        except StoreError:
            return False  # PostgreSQL does not answer, which others log: they are compared with it later
        except Exception:
            # A bug must not end the thread: what it remembers may exist nowhere else.
            log.exception("recent writes were not compared with the database")
            return False
        return True

    def _forget_old(self) -> None:
        oldest = time.monotonic() - REMEMBER_SECONDS
        with self._lock:
            self._items = {key: entry for key, entry in self._items.items() if entry[0] > oldest}
            self._is_running = bool(self._items)
