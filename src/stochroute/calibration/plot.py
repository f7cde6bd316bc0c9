"""A calibration as one SVG: nats over strength, and what each site contributes."""

import math
from collections.abc import Sequence
from html import escape

_INK, _FAINT, _LINE, _BAND, _BAR = "#1f2937", "#d1d5db", "#0e7490", "#cffafe", "#b45309"
_DASHED = 'stroke-dasharray="5 4"'
_PANEL, _HEIGHT, _LEFT, _TOP, _BOTTOM, _ROW = 340, 260, 60, 34, 44, 18  # pixels


def draw(
    curve: Sequence[tuple[float, float]],
    budget: float,
    interval: tuple[float, float],
    sites: Sequence[tuple[str, float]],
    quantity: str,
) -> str:
    """The SVG.

    Args:
        curve: (strength over the strength found, nats), rising; both axes are logarithmic.
        budget: a dashed line.
        interval: a band around it.
        sites: name -> nats of each site alone, as bars.
        quantity: what the nats are of.
    """
    height = max(_HEIGHT, _TOP + _BOTTOM + _ROW * len(sites))
    width = 2 * _PANEL
    parts = [f'<rect width="{width}" height="{height}" fill="white" />']
    parts += _curve_panel([point for point in curve if point[1] > 0], budget, interval, quantity)
    parts += _site_panel(sites)
    style = 'font-family="sans-serif" font-size="12"'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {style}>\n{body}\n</svg>\n'


def _curve_panel(
    curve: Sequence[tuple[float, float]], budget: float, interval: tuple[float, float], quantity: str
) -> list[str]:
    first, last, low, high = _LEFT, _PANEL - 20, _HEIGHT - _BOTTOM, _TOP
    xs = [math.log10(x) for x, _ in curve] + [0.0]
    ys = [math.log10(y) for y in (*(y for _, y in curve), budget, *interval)]
    left, right = min(xs) - 0.05, max(xs) + 0.05
    bottom, top = min(ys) - 0.05, max(ys) + 0.05

    def x(value: float) -> float:
        return first + (last - first) * (math.log10(value) - left) / (right - left)

    def y(value: float) -> float:
        return low - (low - high) * (math.log10(value) - bottom) / (top - bottom)

    band = y(interval[0]) - y(interval[1])
    parts = [
        _text((first + last) / 2, _TOP - 14, f"{quantity}, nats a noised position"),
        f'<rect x="{first}" y="{y(interval[1]):.1f}" width="{last - first}" height="{band:.1f}" fill="{_BAND}" />',
        f'<line x1="{first}" x2="{last}" y1="{y(budget):.1f}" y2="{y(budget):.1f}" stroke="{_INK}" {_DASHED} />',
        _text(first - 6, y(budget) + 4, f"{budget:g}", "end"),
        f'<line x1="{first}" x2="{last}" y1="{low}" y2="{low}" stroke="{_FAINT}" />',
        _text((first + last) / 2, low + 34, "strength over the strength found"),
    ]
    for value in {curve[0][0], 1.0, curve[-1][0]}:
        parts.append(_text(x(value), low + 16, f"{value:.2g}"))
    for value in (curve[0][1], curve[-1][1]):
        if abs(y(value) - y(budget)) > 14:
            parts.append(_text(first - 6, y(value) + 4, f"{value:.2g}", "end"))
    places = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in curve)
    parts.append(f'<polyline points="{places}" fill="none" stroke="{_LINE}" stroke-width="2" />')
    parts += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" fill="{_LINE}" />' for a, b in curve]
    return parts


def _site_panel(sites: Sequence[tuple[str, float]]) -> list[str]:
    first, last = _PANEL + 90, 2 * _PANEL - 60
    most = max([nats for _, nats in sites if nats > 0], default=1.0)
    parts = [_text((first + last) / 2, _TOP - 14, "each site alone, nats")]
    for row, (name, nats) in enumerate(sites):
        top, length = _TOP + _ROW * row, (last - first) * max(nats, 0.0) / most
        parts.append(_text(first - 6, top + 12, name, "end"))
        parts.append(f'<rect x="{first}" y="{top}" width="{length:.1f}" height="{_ROW - 4}" fill="{_BAR}" />')
        parts.append(_text(first + length + 6, top + 12, f"{nats:.2g}", "start"))
    return parts


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_INK}">{escape(words)}</text>'
