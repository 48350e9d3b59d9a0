"""The charts of the overview: from counts to the positions that the templates draw as SVG. Pure.

The refresh chart is as many SVG units wide as it has time slots, and CHART_HEIGHT_UNITS high. CSS stretches it to its
place on the page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from shared.db.reports.refresh_stats import Slot
from shared.text_format import format_duration

CHART_HEIGHT_UNITS = 100.0
#: A count of 1 among thousands is still visible.
MIN_BAR_UNITS = 1.5
#: Of the width of a slot. The rest is the gap to the next bar.
BAR_WIDTH_UNITS = 0.8
#: The time axis has one more label than it has intervals.
AXIS_INTERVALS = 3


@dataclass(frozen=True, slots=True)
class Bar:
    """One slot. Refreshes are drawn upwards from the baseline, failures downwards. All sizes are in SVG units."""

    x: float
    top: float
    refreshed_height: float
    failed_height: float
    tooltip: str


@dataclass(frozen=True, slots=True)
class TableRow:
    """One slot in the table below the chart."""

    start: datetime
    label: str
    refreshed: int
    failed: int


@dataclass(frozen=True, slots=True)
class RefreshChart:
    bars: tuple[Bar, ...]
    baseline: float  #: its distance from the top, in SVG units
    axis_labels: tuple[str, ...]  #: evenly spaced below the axis
    peak_label: str  #: the rate that the highest bar stands for
    summary: str
    rows: tuple[TableRow, ...]

    @property
    def is_empty(self) -> bool:
        return not any(row.refreshed or row.failed for row in self.rows)


@dataclass(frozen=True, slots=True)
class HistogramBar:
    label: str
    count: int
    width_percent: float  #: of the longest bar


def build_refresh_chart(slots: Sequence[Slot]) -> RefreshChart:
    """`slots`: the oldest first, all of the same duration."""
    duration = slots[1].at - slots[0].at if len(slots) > 1 else timedelta(minutes=5)
    most_refreshed = max((slot.refreshed for slot in slots), default=0)
    most_failed = max((slot.failed for slot in slots), default=0)
    # One scale for both directions. With half of the height for each, 3 failures could look like 3,000 refreshes.
    units_per_count = CHART_HEIGHT_UNITS / ((most_refreshed + most_failed) or 1)
    baseline = CHART_HEIGHT_UNITS - _bar_height(most_failed, units_per_count)
    baseline = max(baseline, MIN_BAR_UNITS if most_refreshed else 0.0)
    slot_minutes = duration.total_seconds() / 60
    return RefreshChart(
        bars=tuple(
            _build_bar(position, slot, duration, baseline, units_per_count) for position, slot in enumerate(slots)
        ),
        baseline=baseline,
        axis_labels=_axis_labels(slots, duration),
        peak_label=f"highest: {_format_rate(max(most_refreshed, most_failed) / slot_minutes)} a minute",
        summary=_summarize(slots, duration),
        rows=tuple(TableRow(slot.at, _time_range(slot, duration), slot.refreshed, slot.failed) for slot in slots),
    )


def build_histogram(counts: Mapping[float, int]) -> tuple[HistogramBar, ...]:
    """`counts`: by upper bound in seconds, the last one infinite. Each counts the values from the bound before it."""
    highest = max(counts.values(), default=0) or 1
    lower = 0.0
    bars = []
    for upper, count in sorted(counts.items()):
        width_percent = round(max(MIN_BAR_UNITS, 100 * count / highest), 2) if count else 0.0
        bars.append(HistogramBar(_duration_range(lower, upper), count, width_percent))
        lower = upper
    return tuple(bars)


def _build_bar(position: int, slot: Slot, duration: timedelta, baseline: float, units_per_count: float) -> Bar:
    refreshed_height = min(_bar_height(slot.refreshed, units_per_count), baseline)
    failed_height = min(_bar_height(slot.failed, units_per_count), CHART_HEIGHT_UNITS - baseline)
    return Bar(
        x=round(position + (1 - BAR_WIDTH_UNITS) / 2, 3),
        top=round(baseline - refreshed_height, 2),
        refreshed_height=round(refreshed_height, 2),
        failed_height=round(failed_height, 2),
        tooltip=f"{_time_range(slot, duration)} UTC: {slot.refreshed:,} refreshed, {slot.failed:,} failed",
    )


def _bar_height(count: int, units_per_count: float) -> float:
    return max(MIN_BAR_UNITS, count * units_per_count) if count else 0.0


def _axis_labels(slots: Sequence[Slot], duration: timedelta) -> tuple[str, ...]:
    if not slots:
        return ()
    interval = duration * len(slots) / AXIS_INTERVALS
    return tuple(_format_time(slots[0].at + interval * number) for number in range(AXIS_INTERVALS + 1))


def _format_rate(per_minute: float) -> str:
    return f"{per_minute:,.0f}" if per_minute >= 10 or per_minute == int(per_minute) else f"{per_minute:.1f}"  # noqa: PLR2004


def _summarize(slots: Sequence[Slot], duration: timedelta) -> str:
    refreshed, failed = sum(slot.refreshed for slot in slots), sum(slot.failed for slot in slots)
    period = format_duration(duration.total_seconds() * len(slots))
    if not refreshed and not failed:
        return f"No refresh was tried in the last {period}."
    return f"In the last {period}, {refreshed:,} refreshes succeeded and {failed:,} failed."


def _time_range(slot: Slot, duration: timedelta) -> str:
    return f"{_format_time(slot.at)} to {_format_time(slot.at + duration)}"


def _format_time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%H:%M}"


def _duration_range(lower: float, upper: float) -> str:
    if math.isinf(upper):
        return f"{format_duration(lower)} or more" if lower else "any"
    return f"{format_duration(lower)} to {format_duration(upper)}" if lower else f"less than {format_duration(upper)}"
