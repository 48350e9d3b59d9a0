"""Throughput and lateness against the number of stored connections, as an SVG written by hand: it needs no library."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.results import FIGURES, Results
from bench.stats import Spread

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 40, 90
GAP = 30
COLOURS = {"product": "#0b6e4f", "bare": "#8d99ae", "per_task": "#c1666b", "late_p50": "#0b6e4f", "late_p99": "#c1666b"}


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    names: tuple[str, ...]
    top: float  #: of the scale, at least
    left: int


def chart(book: Results) -> str:
    throughput = Panel("Refreshes a second", ("product", "bare", "per_task"), 100, 0)
    lateness = Panel("Seconds from due to stored, in balance", ("late_p50", "late_p99"), 1, WIDTH + GAP)
    inside = "\n".join(part for panel in (throughput, lateness) for part in _panel(book, panel))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH + GAP} {HEIGHT}" '
        f'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n{inside}\n</svg>\n'
    )


def _panel(book: Results, panel: Panel) -> list[str]:
    sizes = book.sizes()
    highest = max((value for name in panel.names for size in sizes for value in book.of(size, name)), default=0)
    top = _round(max(highest, panel.top))
    x = _across(sizes, panel.left)
    parts = [_text(panel.left + LEFT, TOP - 20, panel.title, "start", "bold")]
    for step in range(6):
        value = top * step / 5
        parts += [_line(panel.left + LEFT, panel.left + WIDTH - RIGHT, _down(value, top))]
        parts += [_text(panel.left + LEFT - 6, _down(value, top) + 4, f"{value:,.4g}", "end")]
    parts += [_text(x(size), HEIGHT - BOTTOM + 16, f"{size:,}", "middle") for size in sizes]
    for number, name in enumerate(panel.names):
        parts += _curve(book, name, x, top)
        parts += _legend(name, panel.left + LEFT, HEIGHT - BOTTOM + 38 + 15 * number)
    return parts


def _curve(book: Results, name: str, x: Callable[[int], float], top: float) -> list[str]:
    """The median of the runs, and at each size from the lowest to the highest."""
    told = [(x(size), Spread.of(values)) for size in book.sizes() if (values := book.of(size, name))]
    if not told:
        return []
    points = " ".join(f"{across:.1f},{_down(spread.median, top):.1f}" for across, spread in told)
    parts = [f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>']
    for across, spread in told:
        low, high, middle = (_down(value, top) for value in (spread.low, spread.high, spread.median))
        parts.append(
            f'<path d="M{across:.1f} {low:.1f}V{high:.1f}" stroke="{COLOURS[name]}" stroke-width="5" opacity=".4"/>'
        )
        parts.append(f'<circle cx="{across:.1f}" cy="{middle:.1f}" r="3" fill="{COLOURS[name]}"/>')
    return parts


def _legend(name: str, left: float, y: float) -> list[str]:
    mark = f'<rect x="{left}" y="{y - 8}" width="10" height="10" fill="{COLOURS[name]}"/>'
    return [mark, _text(left + 16, y + 1, FIGURES[name].label.strip(), "start")]


def _across(sizes: Sequence[int], left: int) -> Callable[[int], float]:
    """Logarithmic; a single size stands in the middle."""
    first, last = math.log10(min(sizes, default=1)), math.log10(max(sizes, default=10))
    room = WIDTH - LEFT - RIGHT - 60
    return lambda size: left + LEFT + 30 + room * ((math.log10(size) - first) / (last - first) if last > first else 0.5)


def _down(value: float, top: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top)


def _round(value: float) -> float:
    """Upwards, to a number that divides well by five."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 1.5, 2, 2.5, 5, 7.5, 10) if power * step >= value)


def _line(left: float, right: float, y: float) -> str:
    return f'<path d="M{left} {y:.1f}H{right}" stroke="#ddd"/>'


def _text(x: float, y: float, words: str, anchor: str, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{words}</text>'
