"""A chart of throughput and cost, product beside baselines, as SVG text: no library is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.figures import FIGURES
from bench.results import Results
from bench.stats import Spread

#: Pixels.
WIDTH_PX, LABEL_PX, VALUE_PX = 900, 330, 60
BAR_PX, ROW_PX, TITLE_PX, GAP_PX = 14, 22, 34, 14
PRODUCT_COLOUR, BASELINE_COLOUR = "#0b6e4f", "#8d99ae"


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    product_figures: tuple[str, ...]  #: a bar for each size
    baseline_figures: tuple[str, ...]


PANELS = (
    Panel("Refreshes a second", ("product", "product_1000"), ("bare", "curl", "curl_1000", "per_task")),
    Panel("CPU, ms per refresh", ("cpu", "cpu_1000"), ("cpu_bare", "cpu_curl", "cpu_curl_1000", "cpu_per_task")),
)


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    spread: Spread
    digits: int
    colour: str


def draw_chart(results: Results) -> str:
    content, top = [], 0
    for panel in PANELS:
        bars = list_bars(results, panel)
        content += _draw_panel(panel.title, bars, top)
        top += TITLE_PX + ROW_PX * len(bars) + GAP_PX
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {top}" font-family="sans-serif" '
        f'font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(content) + "\n</svg>\n"
    )


def list_bars(results: Results, panel: Panel) -> list[Bar]:
    """The product's at each size; a baseline's of the smallest one, because it does not depend on the size."""
    bars = []
    for name in (*panel.product_figures, *panel.baseline_figures):
        sizes = [size for size in results.sizes() if results.get(size, name)]
        for size in sizes if name in panel.product_figures else sizes[:1]:
            figure, spread = FIGURES[name], Spread.of(results.get(size, name))
            is_product = name in panel.product_figures
            label = f"{figure.label.strip()}, {size:,}" if is_product else figure.label.strip()
            bars.append(Bar(label, spread, figure.digits, PRODUCT_COLOUR if is_product else BASELINE_COLOUR))
    return bars


def _draw_panel(title: str, bars: Sequence[Bar], top: int) -> list[str]:
    """Bars as long as the median, each with a line from the lowest to the highest run."""
    longest = max((bar.spread.high for bar in bars), default=1.0)
    scale = (WIDTH_PX - LABEL_PX - VALUE_PX) / (longest if math.isfinite(longest) and longest > 0 else 1.0)
    parts = [_draw_text(10, top + 20, title, "start", "bold")]
    for number, bar in enumerate(bars):
        y = top + TITLE_PX + ROW_PX * number
        left, low, high = (LABEL_PX + value * scale for value in (0.0, bar.spread.low, bar.spread.high))
        width = bar.spread.median * scale
        parts += [
            _draw_text(LABEL_PX - 8, y + 11, bar.label, "end"),
            f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{BAR_PX}" fill="{bar.colour}"/>',
            f'<path d="M{low:.1f} {y + BAR_PX / 2}H{high:.1f}" stroke="black" stroke-width="1.5"/>',
            _draw_text(high + 6, y + 11, f"{bar.spread.median:,.{bar.digits}f}", "start"),
        ]
    return parts


def _draw_text(x: float, y: float, text: str, anchor: str, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{text}</text>'
