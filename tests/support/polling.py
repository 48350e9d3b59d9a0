"""Tests wait for a condition with `until`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.05


def until(condition: Callable[[], T], seconds: float = 30) -> T:
    """The first true value that `condition` returns; AssertionError where there is none within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"it did not become true within {seconds:g} s"
        time.sleep(POLL_SECONDS)
    return result
