"""A chart of throughput and lateness against the number of stored connections, as SVG text: no library is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.results import FIGURES, Results
from bench.stats import Spread

#: Pixels: of a panel, of its margins, and between two panels.
WIDTH_PX, HEIGHT_PX = 420, 300
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 60, 20, 40, 90
GAP_PX = 30
COLOURS = {"product": "#0b6e4f", "bare": "#8d99ae", "per_task": "#c1666b", "late_p50": "#0b6e4f", "late_p99": "#c1666b"}


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    figures: tuple[str, ...]
    min_top: float  #: the scale ends here, or higher
    left: int  #: pixels


def draw_chart(results: Results) -> str:
    throughput = Panel("Refreshes a second", ("product", "bare", "per_task"), 100, 0)
    lateness = Panel("Seconds from due to stored, in balance", ("late_p50", "late_p99"), 1, WIDTH_PX + GAP_PX)
    content = "\n".join(part for panel in (throughput, lateness) for part in _draw_panel(results, panel))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH_PX + GAP_PX} {HEIGHT_PX}" '
        f'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n{content}\n'
        "</svg>\n"
    )


def _draw_panel(results: Results, panel: Panel) -> list[str]:
    sizes = results.sizes()
    values = (value for name in panel.figures for size in sizes for value in results.get(size, name))
    top = _round_up(max(max(values, default=0), panel.min_top))
    x = _make_x_scale(sizes, panel.left)
    parts = [_draw_text(panel.left + LEFT_PX, TOP_PX - 20, panel.title, "start", "bold")]
    for step in range(6):
        value = top * step / 5
        y = _scale_y(value, top)
        parts.append(f'<path d="M{panel.left + LEFT_PX} {y:.1f}H{panel.left + WIDTH_PX - RIGHT_PX}" stroke="#ddd"/>')
        parts.append(_draw_text(panel.left + LEFT_PX - 6, y + 4, f"{value:,.4g}", "end"))
    parts += [_draw_text(x(size), HEIGHT_PX - BOTTOM_PX + 16, f"{size:,}", "middle") for size in sizes]
    for number, name in enumerate(panel.figures):
        parts += _draw_curve(results, name, x, top)
        parts += _draw_legend(name, panel.left + LEFT_PX, HEIGHT_PX - BOTTOM_PX + 38 + 15 * number)
    return parts


def _draw_curve(results: Results, name: str, x: Callable[[int], float], top: float) -> list[str]:
    """A line through the medians; at each size a bar from the lowest to the highest run."""
    points = [(x(size), Spread.of(values)) for size in results.sizes() if (values := results.get(size, name))]
    if not points:
        return []
    line = " ".join(f"{left:.1f},{_scale_y(spread.median, top):.1f}" for left, spread in points)
    parts = [f'<polyline points="{line}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>']
    for left, spread in points:
        low, high, median = (_scale_y(value, top) for value in (spread.low, spread.high, spread.median))
        parts.append(
            f'<path d="M{left:.1f} {low:.1f}V{high:.1f}" stroke="{COLOURS[name]}" stroke-width="5" opacity=".4"/>'
        )
        parts.append(f'<circle cx="{left:.1f}" cy="{median:.1f}" r="3" fill="{COLOURS[name]}"/>')
    return parts


def _draw_legend(name: str, left: float, y: float) -> list[str]:
    square = f'<rect x="{left}" y="{y - 8}" width="10" height="10" fill="{COLOURS[name]}"/>'
    return [square, _draw_text(left + 16, y + 1, FIGURES[name].label.strip(), "start")]


def _make_x_scale(sizes: Sequence[int], left: int) -> Callable[[int], float]:
    """Logarithmic; a single size is drawn in the middle."""
    first, last = math.log10(min(sizes, default=1)), math.log10(max(sizes, default=10))
    width = WIDTH_PX - LEFT_PX - RIGHT_PX - 60

    def scale(size: int) -> float:
        fraction = (math.log10(size) - first) / (last - first) if last > first else 0.5
        return left + LEFT_PX + 30 + width * fraction

    return scale


def _scale_y(value: float, top: float) -> float:
    return TOP_PX + (HEIGHT_PX - TOP_PX - BOTTOM_PX) * (1 - value / top)


def _round_up(value: float) -> float:
    """To a number that can be divided by five without many digits."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 1.5, 2, 2.5, 5, 7.5, 10) if power * step >= value)


def _draw_text(x: float, y: float, text: str, anchor: str, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{text}</text>'
