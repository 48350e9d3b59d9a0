"""An instant known only to lie between two others: PostgreSQL acts, and we ask for the time before and after."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Span:
    earliest: datetime
    latest: datetime

    @classmethod
    def exactly(cls, instant: datetime) -> Span:
        return cls(instant, instant)

    def plus(self, least: float, most: float | None = None) -> Span:
        """So many seconds later; `most` where that is not known exactly either."""
        longest = least if most is None else most
        return Span(self.earliest + timedelta(seconds=least), self.latest + timedelta(seconds=longest))

    def or_sooner(self, other: Span | None) -> Span:
        if other is None:
            return self
        return Span(min(self.earliest, other.earliest), min(self.latest, other.latest))

    def or_later(self, other: Span | None) -> Span:
        if other is None:
            return self
        return Span(max(self.earliest, other.earliest), max(self.latest, other.latest))

    def __contains__(self, instant: datetime) -> bool:
        """To the microsecond, which is where PostgreSQL rounds."""
        slack = timedelta(microseconds=2)
        return self.earliest - slack <= instant <= self.latest + slack
