"""Selective accuracy drawn: how right the answers are that are kept, the most certain first."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stochroute.atomic import write_text

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _ROW = 560, 340, 56, 20, 48, 18  # pixels
_INK, _FAINT = "#1f2937", "#d1d5db"
_COLOURS = ("#be123c", "#0e7490", "#b45309", "#7c3aed", "#15803d", "#525252", "#1d4ed8", "#a16207")

Curve = Sequence[tuple[float, Mapping[str, float]]]


def curves_of(report: Mapping[str, Any]) -> dict[str, Curve]:
    """From a report: for every arm the curve of its score with the highest AUROC, by "arm, score"."""
    found: dict[str, Curve] = {}
    for name, arm in report["arms"].items():
        if arm["scores"]:
            best = max(arm["scores"], key=lambda score: arm["scores"][score]["auroc"]["value"])
            found[f"{name}, {best}"] = arm["scores"][best]["curve"]
    return found


def draw_curves(curves: Mapping[str, Curve]) -> str:
    """The SVG: accuracy over coverage, with 95 % intervals as bands."""
    values = [value for curve in curves.values() for _, point in curve for value in (point["low"], point["high"])]
    floor = max(0.0, min(values, default=0.0) - 0.02)
    height = _HEIGHT + _ROW * len(curves)
    right, low = _WIDTH - 16, _HEIGHT - _BOTTOM

    def at(coverage: float, accuracy: float) -> str:
        x = _LEFT + (right - _LEFT) * coverage
        return f"{x:.1f},{low - (low - _TOP) * (accuracy - floor) / (1 - floor or 1):.1f}"

    parts = [f'<rect width="{_WIDTH}" height="{height}" fill="white"/>']
    for step in range(5):
        level = floor + (1 - floor) * step / 4
        x, y = at(0, level).split(",")
        parts.append(f'<line x1="{x}" x2="{right}" y1="{y}" y2="{y}" stroke="{_FAINT}"/>')
        parts.append(_text(_LEFT - 6, float(y) + 4, f"{level:.2f}", "end"))
        parts.append(_text(float(at(step / 4, floor).split(",")[0]), low + 16, f"{step / 4:g}"))
    parts.append(_text((_LEFT + right) / 2, low + 36, "share of questions answered, the most certain first"))
    for index, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        band = [at(x, p["high"]) for x, p in curve] + [at(x, p["low"]) for x, p in reversed(curve)]
        parts.append(f'<polygon points="{" ".join(band)}" fill="{colour}" opacity="0.12"/>')
        line = " ".join(at(x, p["value"]) for x, p in curve)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = _HEIGHT + _ROW * index + 4
        parts.append(f'<line x1="{_LEFT}" x2="{_LEFT + 24}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>')
        parts.append(_text(_LEFT + 32, y + 4, name, "start"))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12">\n{body}\n</svg>\n'
    )


def write_curves(file: Path, report: Mapping[str, Any]) -> None:
    """Draws the curves of a report into an .svg file; the whole file, or nothing.

    Raises:
        ValueError: no arm has a curve.
        OSError: the file cannot be written.
    """
    curves = curves_of(report)
    if not curves:
        raise ValueError(f"{file}: there is no curve to draw, since every arm is all right or all wrong")
    write_text(file, draw_curves(curves))


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_INK}">{html.escape(words)}</text>'
