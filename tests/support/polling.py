"""What tests wait with: for a condition, and for files that can be read."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
F = TypeVar("F", bound=Any)

POLL_SECONDS = 0.05


def until(condition: Callable[[], T], seconds: float = 30) -> T:
    """The first true value that `condition` returns; AssertionError where there is none within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"it did not become true within {seconds:g} s"
        time.sleep(POLL_SECONDS)
    return result


def list_readable(files: Iterable[F], seconds: float | None) -> list[F]:
    """Those that can be read, or have ended, within `seconds` (None: without a limit).

    Not by select(), which takes no file number above 1,023.
    """
    with selectors.DefaultSelector() as selector:
        for file in files:
            selector.register(file, selectors.EVENT_READ, file)
        return [key.data for key, _ in selector.select(seconds)]
