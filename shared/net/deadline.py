"""One deadline for all statements to PostgreSQL that a thread waits for.

    with deadline(3.0):
        ...  # whatever this thread asks of PostgreSQL in here is over within three seconds

The connections of `shared.db.core.engine` ask for `seconds_left` before each wait. Calls over HTTP have deadlines of
their own (`shared.net.call_engine`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic


class _ThreadState(threading.local):
    ends_at: float | None = None  #: by the monotonic clock; None outside of a deadline


_thread = _ThreadState()


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End what this thread waits for inside after `seconds` in all. Inside another deadline, the earlier one counts."""
    outer = _thread.ends_at
    ends_at = monotonic() + seconds
    _thread.ends_at = ends_at if outer is None else min(outer, ends_at)
    try:
        yield
    finally:
        _thread.ends_at = outer


def seconds_left() -> float | None:
    """Until the deadline of this thread, negative after it; None outside of a deadline."""
    return None if _thread.ends_at is None else _thread.ends_at - monotonic()
