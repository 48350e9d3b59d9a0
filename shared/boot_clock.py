"""A clock for durations within one machine: it is never set, and runs on while a virtual machine is suspended."""

from __future__ import annotations

import time

#: time.monotonic() stands still while the machine is suspended; Linux has a clock that does not.
_CLOCK_ID: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def boot_seconds() -> float:
    """Seconds since an arbitrary point. Elsewhere than on Linux: time.monotonic()."""
    return time.monotonic() if _CLOCK_ID is None else time.clock_gettime(_CLOCK_ID)
