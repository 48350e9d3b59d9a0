"""Which threads answer a request: what waits for another server has threads apart from what does not.

So a page that needs no other server, /healthz above all, waits behind no call to HubSpot and no query. A request in the
queue of its lane costs no thread.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from time import monotonic
from typing import Any
from urllib.parse import unquote_to_bytes

#: Exchanges of codes at once in this process.
EXCHANGE_THREADS = 4
#: With the exchanges no more than the connections that web has to PostgreSQL.
DATABASE_THREADS = 6
#: A callback that has been in the queue for so long gets the page that waits in the browser, from a quick thread: all
#: exchanges that are allowed are in flight then.
MAX_QUEUE_SECONDS = 3.0


class Lane(Enum):
    QUICK = "waits for no other server"
    EXCHANGE = "waits for HubSpot, then for the queue or PostgreSQL"
    DATABASE = "waits for PostgreSQL or Redis"


#: Of a path, below whatever prefix.
_PATTERNS = {
    Lane.EXCHANGE: re.compile(rb"/oauth/callback/?$|/marketplace(/[^/]*)?$"),
    Lane.DATABASE: re.compile(rb"/(installs/|connect/|connections|operator|metrics$|readyz$)"),
}


def choose_lane(request_head: bytes) -> Lane:
    _, _, target = request_head.partition(b" ")
    path = unquote_to_bytes(re.split(rb"[ ?\r]", target, maxsplit=1)[0])
    return next((lane for lane, pattern in _PATTERNS.items() if pattern.search(path)), Lane.QUICK)


@dataclass(frozen=True, slots=True)
class _QueuedCall:
    call: Callable[[], Any]
    queued_at: float
    future: Future[Any] = field(default_factory=Future)

    def run(self) -> None:
        try:
            self.future.set_result(self.call())
        except BaseException as error:  # noqa: BLE001  the caller of result() raises it
            self.future.set_exception(error)


class Lanes:
    """Has the part of an executor's interface that gunicorn uses."""

    def __init__(self, quick_threads: int, max_queue_seconds: float = MAX_QUEUE_SECONDS) -> None:
        self._pools = {
            Lane.QUICK: ThreadPoolExecutor(quick_threads),
            Lane.EXCHANGE: ThreadPoolExecutor(EXCHANGE_THREADS),
            Lane.DATABASE: ThreadPoolExecutor(DATABASE_THREADS),
        }
        self._max_queue_seconds = max_queue_seconds
        self._callbacks: deque[_QueuedCall] = deque()  #: oldest first

    def submit(self, call: Callable[..., Any], *args: Any, lane: Lane = Lane.QUICK) -> Future[Any]:
        if lane is not Lane.EXCHANGE:
            return self._pools[lane].submit(call, *args)
        queued = _QueuedCall(partial(call, *args), monotonic())
        self._callbacks.append(queued)
        self._pools[lane].submit(self._run_oldest)
        return queued.future

    def release_stalled(self) -> None:
        """To be called every second."""
        while self._callbacks and self._callbacks[0].queued_at < monotonic() - self._max_queue_seconds:
            with suppress(IndexError):  # a thread of the exchanges has just taken it
                self._pools[Lane.QUICK].submit(self._callbacks.popleft().run)

    def shutdown(self, *, wait: bool) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=wait)

    def _run_oldest(self) -> None:
        with suppress(IndexError):  # it was released
            self._callbacks.popleft().run()
