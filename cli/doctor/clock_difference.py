"""By how much this host's clock differs from PostgreSQL's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple


class ClockReading(NamedTuple):
    host_before: datetime  #: as PostgreSQL was asked for its time
    server: datetime
    host_after: datetime  #: as its answer had come

    @property
    def duration(self) -> timedelta:
        return self.host_after - self.host_before


def measure_clock_difference(readings: Sequence[ClockReading]) -> float:
    """Seconds by which this host is ahead of PostgreSQL.

    By the answer that came soonest: it is wrong by half of the time that it took at most.
    """
    quickest = min(readings, key=lambda reading: reading.duration)
    return (quickest.host_before + quickest.duration / 2 - quickest.server).total_seconds()
