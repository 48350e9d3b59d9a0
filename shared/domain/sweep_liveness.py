"""Whether the last sweep is so long ago that a worker sweeps without beat, or that nothing sweeps at all."""

from __future__ import annotations

from datetime import datetime, timedelta

#: After so many intervals of SWEEP_SECONDS without a sweep, a worker sweeps without being asked by beat.
LATE_SWEEPS = 2.0
#: A sweep is overdue after so many intervals of SWEEP_SECONDS ...
OVERDUE_SWEEPS = 5
#: ... but not sooner than this: a restart of beat, of the worker or of the broker takes some seconds.
MIN_OVERDUE_SECONDS = 30.0


def is_beat_late(swept_at: datetime | None, now: datetime, sweep_seconds: float) -> bool:
    """Both by PostgreSQL's clock. A sweep in the future is none: that clock was set back."""
    return swept_at is None or not swept_at <= now <= swept_at + timedelta(seconds=LATE_SWEEPS * sweep_seconds)


def sweep_overdue_seconds(sweep_seconds: float) -> float:
    """The age in seconds above which the last sweep is overdue, for a given SWEEP_SECONDS."""
    return max(MIN_OVERDUE_SECONDS, OVERDUE_SWEEPS * sweep_seconds)


def is_sweep_overdue(swept_at: datetime | None, now: datetime, sweep_seconds: float) -> bool:
    """`swept_at` is None before the first sweep: that counts as overdue."""
    return swept_at is None or now - swept_at > timedelta(seconds=sweep_overdue_seconds(sweep_seconds))


def is_beat_missing(swept_without_beat_since: datetime | None, now: datetime, sweep_seconds: float) -> bool:
    """`swept_without_beat_since`: the first of the sweeps in a row that workers began without beat; None: beat did."""
    return swept_without_beat_since is not None and is_sweep_overdue(swept_without_beat_since, now, sweep_seconds)
