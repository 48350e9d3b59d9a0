"""Whether the last sweep is so long ago that beat, the worker or the broker must be down."""

from __future__ import annotations

from datetime import datetime, timedelta

#: A sweep is overdue after so many intervals of SWEEP_SECONDS ...
OVERDUE_SWEEPS = 5
#: ... but not sooner than this: a restart of beat, of the worker or of the broker takes some seconds.
MIN_OVERDUE_SECONDS = 30.0


def sweep_overdue_seconds(sweep_seconds: float) -> float:
    """The age in seconds above which the last sweep is overdue, for a given SWEEP_SECONDS."""
    return max(MIN_OVERDUE_SECONDS, OVERDUE_SWEEPS * sweep_seconds)


def is_sweep_overdue(swept_at: datetime | None, now: datetime, sweep_seconds: float) -> bool:
    """`swept_at` is None before the first sweep: that counts as overdue."""
    return swept_at is None or now - swept_at > timedelta(seconds=sweep_overdue_seconds(sweep_seconds))
