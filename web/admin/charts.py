"""The charts of the overview: numbers in, what stands where out; the templates draw it as SVG. Pure.

The refreshes' chart is as many units wide as it has slots, and HEIGHT units high: CSS stretches it to its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from shared.db.reports.refresh_stats import Slot
from shared.text_format import format_duration

HEIGHT = 100.0
#: One refresh among ten thousand must not vanish.
LEAST = 1.5
#: Of a slot's width; the rest is the gap to the next.
WIDTH = 0.8
#: Parts of the time axis, told apart by the labels below it.
PARTS = 3


@dataclass(frozen=True, slots=True)
class Bar:
    """One slot: what was refreshed stands above the base line, what failed hangs below it."""

    x: float
    top: float
    up: float  #: height of what was refreshed
    down: float  #: height of what failed
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    """The same as numbers."""

    at: datetime
    time: str
    refreshed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Chart:
    bars: tuple[Bar, ...]
    base: float  #: where the base line is
    marks: tuple[str, ...]  #: below the axis, evenly spread
    most: str  #: what the highest bar stands for
    summary: str
    rows: tuple[Row, ...]

    @property
    def empty(self) -> bool:
        return not any(row.refreshed or row.failed for row in self.rows)


@dataclass(frozen=True, slots=True)
class Share:
    """One line of a distribution."""

    label: str
    count: int
    width: float  #: of 100, the longest


def refreshes(slots: Sequence[Slot]) -> Chart:
    """`slots`: the oldest first, all of one length."""
    step = slots[1].at - slots[0].at if len(slots) > 1 else timedelta(minutes=5)
    most_up = max((slot.refreshed for slot in slots), default=0)
    most_down = max((slot.failed for slot in slots), default=0)
    # Both by one scale; half of the room each would make three failures look like three thousand refreshes.
    unit = HEIGHT / ((most_up + most_down) or 1)
    base = max(HEIGHT - _height(most_down, unit), LEAST if most_up else 0.0)
    minutes = step.total_seconds() / 60
    return Chart(
        bars=tuple(_bar(place, slot, step, base, unit) for place, slot in enumerate(slots)),
        base=base,
        marks=_marks(slots, step),
        most=f"highest: {_rate(max(most_up, most_down) / minutes)} a minute",
        summary=_summary(slots, step),
        rows=tuple(Row(slot.at, _times(slot, step), slot.refreshed, slot.failed) for slot in slots),
    )


def distribution(counts: Mapping[float, int]) -> tuple[Share, ...]:
    """By upper bounds in seconds, the last one infinite; each counts what is below it and not below the one before."""
    most = max(counts.values(), default=0) or 1
    lower = 0.0
    shares = []
    for upper, count in sorted(counts.items()):
        shares.append(Share(_range(lower, upper), count, _width(count, most)))
        lower = upper
    return tuple(shares)


def _bar(place: int, slot: Slot, step: timedelta, base: float, unit: float) -> Bar:
    up = min(_height(slot.refreshed, unit), base)
    down = min(_height(slot.failed, unit), HEIGHT - base)
    title = f"{_times(slot, step)} UTC: {slot.refreshed:,} refreshed, {slot.failed:,} failed"
    return Bar(round(place + (1 - WIDTH) / 2, 3), round(base - up, 2), round(up, 2), round(down, 2), title)


def _height(count: int, unit: float) -> float:
    return max(LEAST, count * unit) if count else 0.0


def _width(count: int, most: int) -> float:
    return round(max(LEAST, 100 * count / most), 2) if count else 0.0


def _marks(slots: Sequence[Slot], step: timedelta) -> tuple[str, ...]:
    if not slots:
        return ()
    part = step * len(slots) / PARTS
    return tuple(_clock(slots[0].at + part * mark) for mark in range(PARTS + 1))


def _times(slot: Slot, step: timedelta) -> str:
    return f"{_clock(slot.at)} to {_clock(slot.at + step)}"


def _clock(at: datetime) -> str:
    return f"{at.astimezone(UTC):%H:%M}"


def _summary(slots: Sequence[Slot], step: timedelta) -> str:
    refreshed, failed = sum(slot.refreshed for slot in slots), sum(slot.failed for slot in slots)
    lasted = format_duration(step.total_seconds() * len(slots))
    if not refreshed and not failed:
        return f"No refresh was tried in the last {lasted}."
    return f"In the last {lasted}, {refreshed:,} refreshes brought a token and {failed:,} attempts brought none."


def _rate(per_minute: float) -> str:
    return f"{per_minute:,.0f}" if per_minute >= 10 or per_minute == int(per_minute) else f"{per_minute:.1f}"  # noqa: PLR2004


def _range(lower: float, upper: float) -> str:
    if math.isinf(upper):
        return f"{format_duration(lower)} or more" if lower else "any"
    return f"{format_duration(lower)} to {format_duration(upper)}" if lower else f"less than {format_duration(upper)}"
