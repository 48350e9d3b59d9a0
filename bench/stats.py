"""Medians with their spread, and percentiles. No I/O."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over several runs."""

    median: float
    low: float
    high: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ValueError where `values` is empty."""
        if not values:
            raise ValueError("a figure needs at least one run")
        return cls(statistics.median(values), min(values), max(values), tuple(values))

    def format(self, digits: int) -> str:
        """The median, with the lowest and the highest where there are several runs."""
        text = f"{self.median:,.{digits}f}"
        return f"{text} ({self.low:,.{digits}f}–{self.high:,.{digits}f})" if len(self.values) > 1 else text  # noqa: RUF001


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of them do not exceed. Raises ValueError where `values` is empty."""
    if not values:
        raise ValueError("a percentile needs at least one value")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
