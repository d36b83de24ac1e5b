"""Curves as SVG: panels with logarithmic axes, readable on light and on dark pages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from bench.svg import FONT, HEADER, MARGIN, PALETTE, WIDTH, document, rule, text

GUTTER = 52
COLUMNS = 2
PLOT = 150  # height of a panel's plot
AXIS = 58  # room for the values at its left
ABOVE = 50  # for its title
BELOW = 62  # for the numbers beneath, and the names of its curves
DOT = 2.6
# (property, light, dark): one for each curve of a panel, in order
COLOURS = (
    ("one", "#0969da", "#4493f8"),
    ("two", "#bc4c00", "#f0883e"),
    ("three", "#1a7f37", "#3fb950"),
    ("four", "#8250df", "#ab7df8"),
)


@dataclass(frozen=True)
class Curve:
    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    curves: Sequence[Curve]


def short(value: float) -> str:
    """At most three digits and a letter: 1.5, 20, 300, 4k, 5M."""
    if value == 0:
        return "0"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def curves_chart(title: str, subtitle: str, axis: str, panels: Sequence[Panel]) -> str:
    """The whole document; `axis` says what all panels count from left to right."""
    column = (WIDTH - 2 * MARGIN - GUTTER * (COLUMNS - 1)) / COLUMNS
    rows = math.ceil(len(panels) / COLUMNS)
    height = HEADER + rows * (ABOVE + PLOT + BELOW)
    parts = []
    for i, panel in enumerate(panels):
        left = MARGIN + i % COLUMNS * (column + GUTTER)
        parts += draw(panel, axis, left, HEADER + i // COLUMNS * (ABOVE + PLOT + BELOW), column)
    return document(title, subtitle, height, style(), parts)


def draw(panel: Panel, axis: str, left: float, top: float, width: float) -> list[str]:
    parts = [text(left, top + 16, panel.title, "head"), text(left, top + 32, panel.unit, "muted")]
    drawn = [Curve(curve.name, [(x, y) for x, y in curve.points if y > 0]) for curve in panel.curves]
    xs = [x for curve in drawn for x, _ in curve.points]
    ys = [y for curve in drawn for _, y in curve.points]
    if not xs:
        return parts
    x0, x1 = left + AXIS, left + width
    y0, y1 = top + ABOVE + PLOT, top + ABOVE
    across, up = decades(xs), decades(ys)

    def place(value: float, ends: tuple[int, int], first: float, last: float) -> float:
        return first + (math.log10(value) - ends[0]) / (ends[1] - ends[0]) * (last - first)

    for power in range(up[0], up[1] + 1):
        y = place(10.0**power, up, y0, y1)
        parts += [rule(x0, y, x1, y, "grid"), text(x0 - 6, y + 4, short(10.0**power), "tick end")]
    for power in range(across[0], across[1] + 1):
        x = place(10.0**power, across, x0, x1)
        parts += [rule(x, y0, x, y1, "grid"), text(x, y0 + 15, short(10.0**power), "tick middle")]
    parts.append(text(x1, y0 + 30, axis, "tick end"))
    at = x0
    for number, curve in enumerate(drawn):
        colour = COLOURS[number % len(COLOURS)][0]
        spots = [(place(x, across, x0, x1), place(y, up, y0, y1)) for x, y in curve.points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline class="curve" style="stroke:var(--{colour})" points="{line}"/>')
        for (x, y), (n, value) in zip(spots, curve.points, strict=True):
            said = escape(f"{curve.name}: {short(value)} with {n:,.0f}")
            spot = f'<circle style="fill:var(--{colour})" cx="{x:.1f}" cy="{y:.1f}" r="{DOT}">'
            parts.append(f"{spot}<title>{said}</title></circle>")
        parts.append(f'<circle style="fill:var(--{colour})" cx="{at:.1f}" cy="{y0 + 44:.1f}" r="4"/>')
        parts.append(text(at + 8, y0 + 48, curve.name, "tick"))
        at += 22 + 6.2 * len(curve.name)
    return parts


def decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten around all of them."""
    low, high = math.floor(math.log10(min(values)) + 1e-9), math.ceil(math.log10(max(values)) - 1e-9)
    return low, max(high, low + 1)


def style() -> str:
    palette = (*PALETTE, *COLOURS)
    light = "".join(f"--{name}:{value};" for name, value, _ in palette)
    dark = "".join(f"--{name}:{value};" for name, _, value in palette)
    return (
        f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
        f"text{{font:12px {FONT};fill:var(--text)}}"
        ".title{font-size:17px;font-weight:600}.head{font-size:13px;font-weight:600}"
        "text.muted{fill:var(--muted);font-size:11px}.tick{fill:var(--muted);font-size:10.5px}"
        ".end{text-anchor:end}.middle{text-anchor:middle}"
        ".page{fill:var(--page)}.grid{stroke:var(--line);stroke-width:1}.curve{fill:none;stroke-width:2}"
    )
