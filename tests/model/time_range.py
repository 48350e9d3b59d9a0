"""A time that is known only to lie between two others: PostgreSQL's clock is read before and after an operation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class TimeRange:
    earliest: datetime
    latest: datetime

    @classmethod
    def at_instant(cls, instant: datetime) -> TimeRange:
        return cls(instant, instant)

    def plus(self, least: float, most: float | None = None) -> TimeRange:
        """So many seconds later; between `least` and `most` where that is not known exactly."""
        longest = least if most is None else most
        return TimeRange(self.earliest + timedelta(seconds=least), self.latest + timedelta(seconds=longest))

    def or_earlier(self, other: TimeRange | None) -> TimeRange:
        if other is None:
            return self
        return TimeRange(min(self.earliest, other.earliest), min(self.latest, other.latest))

    def or_later(self, other: TimeRange | None) -> TimeRange:
        if other is None:
            return self
        return TimeRange(max(self.earliest, other.earliest), max(self.latest, other.latest))

    def __contains__(self, instant: datetime) -> bool:
        """With a tolerance of two microseconds, because PostgreSQL rounds to one."""
        slack = timedelta(microseconds=2)
        return self.earliest - slack <= instant <= self.latest + slack
