"""A small SVG writer for bar charts: panels of horizontal bars, readable on light and on dark pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 880
MARGIN = 24
GUTTER = 40
COLUMNS = 2
HEADER = 66  # chart title and subtitle
PANEL_HEADER = 46
ROW = 24
BAR = 15
LABEL = 64  # room for a peer's name
VALUE = 108  # room for a value and its ratio, right of the longest bar
FOOTER = 18
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"

# (property, light, dark)
PALETTE = (
    ("page", "#ffffff", "#0d1117"),
    ("text", "#1f2328", "#e6edf3"),
    ("muted", "#59636e", "#9198a1"),
    ("bar", "#aab4bf", "#4d5763"),
    ("ours", "#0969da", "#4493f8"),
    ("line", "#d1d9e0", "#3d444d"),
)


@dataclass(frozen=True)
class Bar:
    label: str
    value: float | None  # None: nothing to draw, `note` says why
    note: str = ""  # beside the value
    low: float | None = None  # the spread's ends
    high: float | None = None
    ours: bool = False


@dataclass(frozen=True)
class Panel:
    title: str
    subtitle: str
    bars: Sequence[Bar]
    reference: float | None = None  # a value marked across all bars


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    if value == 0:
        return "0"
    magnitude = abs(value)
    digits = 0 if magnitude >= 100 else 1 if magnitude >= 10 else 2 if magnitude >= 0.1 else 3
    return f"{value:.{digits}f}"


def document(title: str, subtitle: str, height: int, styles: str, parts: Sequence[str]) -> str:
    """A page of full width with a title; `parts` stand below it."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" role="img" aria-label="{escape(title)}">',
            f"<style>{styles}</style>",
            f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>',
            text(MARGIN, 32, title, "title"),
            text(MARGIN, 52, subtitle, "muted"),
            *parts,
            "</svg>\n",
        ]
    )


def bar_chart(title: str, subtitle: str, panels: Sequence[Panel]) -> str:
    """The whole SVG document: `panels` in two columns under a title."""
    column = (WIDTH - 2 * MARGIN - GUTTER * (COLUMNS - 1)) / COLUMNS
    parts: list[str] = []
    top = float(HEADER)
    for at in range(0, len(panels), COLUMNS):
        row = panels[at : at + COLUMNS]
        for index, panel in enumerate(row):
            parts += draw_panel(panel, MARGIN + index * (column + GUTTER), top, column)
        top += PANEL_HEADER + ROW * max(len(panel.bars) for panel in row) + FOOTER
    return document(title, subtitle, round(top), style(), parts)


def draw_panel(panel: Panel, left: float, top: float, width: float) -> list[str]:
    parts = [text(left, top + 16, panel.title, "head"), text(left, top + 32, panel.subtitle, "muted")]
    zero, longest = left + LABEL, width - LABEL - VALUE
    reach = max((bar.high or bar.value or 0.0 for bar in panel.bars), default=0.0)
    scale = longest / reach if reach > 0 else 0.0
    first = top + PANEL_HEADER
    if panel.reference is not None:
        x = zero + panel.reference * scale
        parts.append(rule(x, first - 2, x, first + ROW * len(panel.bars) - (ROW - BAR) + 2, "reference"))
    for index, bar in enumerate(panel.bars):
        parts += draw_bar(bar, zero, first + index * ROW, scale)
    return parts


def draw_bar(bar: Bar, zero: float, top: float, scale: float) -> list[str]:
    baseline, middle = top + BAR - 3, top + BAR / 2
    parts = [text(zero - 8, baseline, bar.label, "label ours-text" if bar.ours else "label")]
    if bar.value is None:
        return [*parts, text(zero, baseline, bar.note, "muted")]
    length = max(1.0, bar.value * scale)
    kind = "ours" if bar.ours else "bar"
    parts.append(f'<rect class="{kind}" x="{zero:.1f}" y="{top:.1f}" width="{length:.1f}" height="{BAR}" rx="2"/>')
    end = length
    if bar.low is not None and bar.high is not None and bar.high > bar.low:
        end = max(length, bar.high * scale)
        parts.append(rule(zero + bar.low * scale, middle, zero + bar.high * scale, middle, "spread"))
    note = f' <tspan class="muted">{escape(bar.note)}</tspan>' if bar.note else ""
    parts.append(f'<text class="value" x="{zero + end + 6:.1f}" y="{baseline:.1f}">{number(bar.value)}{note}</text>')
    return parts


def rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def style() -> str:
    light = "".join(f"--{name}:{value};" for name, value, _ in PALETTE)
    dark = "".join(f"--{name}:{value};" for name, _, value in PALETTE)
    return (
        f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
        f"text{{font:12px {FONT};fill:var(--text)}}"
        ".title{font-size:17px;font-weight:600}.head{font-size:13px;font-weight:600}"
        ".label{text-anchor:end}.ours-text{font-weight:700}"
        # a halo of the page's colour keeps a value legible where the reference line crosses it
        ".value{font-variant-numeric:tabular-nums;paint-order:stroke;stroke:var(--page);stroke-width:4px}"
        "text.muted,tspan.muted{fill:var(--muted);font-size:11px}"
        ".page{fill:var(--page)}.bar{fill:var(--bar)}.ours{fill:var(--ours)}"
        ".spread{stroke:var(--text);stroke-width:1.5;opacity:.65}"
        ".reference{stroke:var(--muted);stroke-width:1;stroke-dasharray:3 3}"
    )
