"""Line charts side by side as one SVG, with a legend; nothing but text and lines, so that a diff shows what changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

INK, FAINT = "#1f2937", "#d1d5db"
DARK = ("#0e7490", "#b45309", "#7c3aed", "#15803d", "#be123c", "#525252", "#1d4ed8", "#a16207")
LIGHT = ("#67e8f9", "#fb923c", "#c4b5fd", "#86efac")
COLOURS = DARK + LIGHT
PANEL, HEIGHT, LEFT, TOP, BOTTOM = 300, 240, 48, 34, 40  # pixels
LEGEND_ROW, GRID = 18, 4

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        title: above it.
        series: name -> its points, x ascending.
        top: the largest y drawn; the smallest is 0.
        level: where a dashed line stands, None for none.
    """

    title: str
    series: Mapping[str, Points]
    top: float
    level: float | None = None


def draw(panels: Sequence[Panel], x_label: str) -> str:
    """The SVG. A name has the same colour in every panel."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.series))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    width, height = PANEL * len(panels), HEIGHT + LEGEND_ROW * len(names)
    parts = [f'<rect width="{width}" height="{height}" fill="white" />']
    for index, panel in enumerate(panels):
        parts += _panel(panel, index * PANEL, x_label, colours)
    for row, name in enumerate(names):
        y = HEIGHT + LEGEND_ROW * row + 6
        parts.append(
            f'<line x1="{LEFT}" x2="{LEFT + 24}" y1="{y}" y2="{y}" stroke="{colours[name]}" stroke-width="2" />'
        )
        parts.append(_text(LEFT + 32, y + 4, name, "start"))
    style = 'font-family="sans-serif" font-size="12"'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {style}>\n{body}\n</svg>\n'


def _panel(panel: Panel, left: float, x_label: str, colours: Mapping[str, str]) -> list[str]:
    most = max((x for points in panel.series.values() for x, _ in points), default=1.0)
    first, last, low, high = left + LEFT, left + PANEL - 26, HEIGHT - BOTTOM, TOP

    def at(x: float, y: float) -> tuple[float, float]:
        return first + (last - first) * x / most, low - (low - high) * min(y, panel.top) / panel.top

    parts = [_text((first + last) / 2, TOP - 14, panel.title)]
    for line in range(GRID + 1):
        value = panel.top * line / GRID
        y = at(0, value)[1]
        parts.append(f'<line x1="{first:.1f}" x2="{last:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{FAINT}" />')
        parts.append(_text(first - 6, y + 4, f"{value:.3g}", "end"))
    for share in (0.0, 0.5, 1.0):
        parts.append(_text(at(most * share, 0)[0], low + 16, f"{most * share:g}"))
    parts.append(_text((first + last) / 2, low + 32, x_label))
    if panel.level is not None:
        y = at(0, panel.level)[1]
        dashed = 'stroke-dasharray="5 4"'
        parts.append(f'<line x1="{first:.1f}" x2="{last:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{INK}" {dashed} />')
    for name, points in panel.series.items():
        places = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in points)
        parts.append(f'<polyline points="{places}" fill="none" stroke="{colours[name]}" stroke-width="2" />')
    return parts


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}">{words}</text>'
