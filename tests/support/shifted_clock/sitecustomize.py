"""Shifts this process's wall clock by the seconds in the file that CLOCK_SHIFT_FILE names, read at each call.

Python imports it at its start where this folder is on PYTHONPATH. The monotonic clocks stay as they are.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path

_FILE = Path(os.environ["CLOCK_SHIFT_FILE"])
_read_time = time.time


def shifted_time() -> float:
    return _read_time() + float(_FILE.read_text())


class ShiftedDatetime(dt.datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> ShiftedDatetime:
        return cls.fromtimestamp(shifted_time(), tz)

    @classmethod
    def utcnow(cls) -> ShiftedDatetime:
        return cls.now(dt.UTC).replace(tzinfo=None)


time.time = shifted_time
dt.datetime = ShiftedDatetime  # type: ignore[misc]
