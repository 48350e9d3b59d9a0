"""What tests wait with: for a condition, and for files that can be read."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
F = TypeVar("F", bound=Any)

#: Between two calls of a condition, in the first second and later: each call is a query or a request.
POLL_SECONDS, LATE_POLL_SECONDS = 0.05, 0.1
FIRST_SECONDS = 1.0


def until(condition: Callable[[], T], seconds: float = 60) -> T:
    """The first true value that `condition` returns; AssertionError where there is none within `seconds`."""
    started_at = time.monotonic()
    while not (result := condition()):
        waited_seconds = time.monotonic() - started_at
        assert waited_seconds < seconds, f"it did not become true within {seconds:g} s"
        time.sleep(POLL_SECONDS if waited_seconds < FIRST_SECONDS else LATE_POLL_SECONDS)
    return result


def list_readable(files: Iterable[F], seconds: float | None) -> list[F]:
    """Those that can be read, or have ended, within `seconds` (None: without a limit).

    Not by select(), which takes no file number above 1,023.
    """
    with selectors.DefaultSelector() as selector:
        for file in files:
            selector.register(file, selectors.EVENT_READ, file)
        return [key.data for key, _ in selector.select(seconds)]
