"""A text drawn token by token in the colour of what the path decides there: on a terminal, as SVG, or on a page."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from stochroute.atomic import write_text
from stochroute.transmission.decomposition import TokenNats

_COLD, _HOT = (255, 255, 255), (190, 18, 60)  # nothing decided, most decided
_INK, _FAINT, _AMBER = "#1f2937", "#9ca3af", "#d97706"
_WIDE, _CHARACTER, _LINE, _BAR = 900, 8.4, 92, 44  # pixels; the font is monospaced

_COLUMNS = ("total", "conditional", "transmission", "clean", "surprise")


@dataclass(frozen=True, eq=False)
class HeatStrip:
    """One text, ready to be drawn.

    Attributes:
        prompt: what came before it.
        tokens: its tokens as text.
        nats: their decomposition.
        paths: over how many paths it was taken.
    """

    prompt: str
    tokens: Sequence[str]
    nats: TokenNats
    paths: int

    @property
    def transmission(self) -> list[float]:
        """I(token; path) of each token in nats, not below 0: float32 leaves a rounding."""
        return [max(0.0, value) for value in self.nats.transmission.tolist()]

    @property
    def hottest(self) -> float:
        """The transmission drawn in full colour: the largest of the text, or 0.01 nats where less is rounding."""
        return max(0.01, *self.transmission)

    def to_rich(self) -> Text:
        """The prompt dim, then every token on a background from white (the path decides nothing) to red."""
        line = Text(self.prompt, style="dim")
        for token, value in zip(self.tokens, self.transmission, strict=True):
            line.append(token, style=f"{_INK} on {_colour(value / self.hottest)}")
        return line

    def summary(self) -> str:
        """One line of figures: the means over the text in nats a token."""
        total, conditional = self.nats.total.mean().item(), self.nats.conditional.mean().item()
        decided = sum(self.transmission) / len(self.tokens)
        share = decided / total if total > 0 else 0.0
        most = max(range(len(self.tokens)), key=lambda index: self.transmission[index])
        return (
            f"{len(self.tokens)} tokens over {self.paths} paths, nats a token: {total:.3f} in all = "
            f"{conditional:.3f} left to the sampler + {decided:.3f} decided by the path ({share:.0%}); "
            f"most at token {most + 1}, {self.tokens[most]!r}: {self.transmission[most]:.3f} "
            f"of at most {math.log(self.paths):.3f}"
        )

    def to_dict(self) -> dict[str, object]:
        """Prompt, tokens and the nats of each as JSON types."""
        columns = {name: [round(v, 6) for v in getattr(self.nats, name).tolist()] for name in _COLUMNS}
        return {"prompt": self.prompt, "paths": self.paths, "tokens": list(self.tokens), **columns}

    def to_svg(self) -> str:
        """The strip as SVG: over every token a bar of its total entropy, the part that the path decides in amber; the
        token beneath in the colour of that part; the figures of a token show under the pointer."""
        tallest = max(0.01, self.nats.total.max().item())
        parts: list[str] = []
        left, top = 0.0, 0
        for token, total, decided in zip(self.tokens, self.nats.total.tolist(), self.transmission, strict=True):
            shown = token.replace("\n", "⏎").replace("\t", "⇥")
            width = max(1, len(shown)) * _CHARACTER + 4
            if left + width > _WIDE and left:
                left, top = 0.0, top + _LINE
            parts.append(self._token(shown, left, top, width, total / tallest, decided / tallest, total, decided))
            left += width
        height = top + _LINE + 4
        body = "\n".join(parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {height}" width="{_WIDE}" '
            f'font-family="monospace" font-size="14">\n<rect width="{_WIDE}" height="{height}" fill="white"/>\n'
            f"{body}\n</svg>\n"
        )

    def _token(
        self, shown: str, left: float, top: int, width: float, bar: float, red: float, total: float, decided: float
    ) -> str:
        floor, fill = top + _BAR + 6, _colour(decided / self.hottest)
        title = html.escape(f"{shown!r}: {total:.3f} nats, {decided:.3f} of them decided by the path")
        boxes = (
            (floor - _BAR * bar, _BAR * bar, _FAINT),
            (floor - _BAR * red, _BAR * red, _AMBER),
            (floor + 4, 22, fill),
        )
        drawn = "".join(
            f'<rect x="{left + 1:.1f}" y="{y:.1f}" width="{width - 2:.1f}" height="{h:.1f}" fill="{colour}"/>'
            for y, h, colour in boxes
        )
        text = html.escape(shown).replace(" ", "&#160;")
        return (
            f'<g><title>{title}</title>{drawn}<text x="{left + 2:.1f}" y="{floor + 20}" fill="{_INK}">{text}</text></g>'
        )


def write_picture(file: Path, strips: Sequence[HeatStrip]) -> None:
    """Writes an .html page of all strips, or the .svg of one; the whole file, or nothing.

    Raises:
        ValueError: the ending is another, or an .svg is asked for several strips.
        OSError: the file cannot be written.
    """
    if file.suffix == ".svg":
        if len(strips) != 1:
            raise ValueError(f"{file}: an .svg holds one text, here are {len(strips)}: name an .html file")
        content = strips[0].to_svg()
    elif file.suffix == ".html":
        content = _page(strips)
    else:
        raise ValueError(f"{file}: its ending is neither .html nor .svg: name a file with one of them")
    write_text(file, content)


def _page(strips: Sequence[HeatStrip]) -> str:
    sections = "\n".join(
        f"<section><p>{html.escape(strip.prompt)}</p>\n{strip.to_svg()}<p><small>{html.escape(strip.summary())}</small></p></section>"
        for strip in strips
    )
    legend = (
        "Bars: entropy of the next token in nats, over all paths; amber: the part that the path decides, grey: what "
        "the sampler would still draw. The redder a token, the more of it the path decides."
    )
    style = (
        f"body{{font-family:sans-serif;color:{_INK};max-width:{_WIDE}px;margin:2em auto}}"
        "svg{max-width:100%;height:auto}"
    )
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Where the path decides</title>\n'
        f"<style>{style}</style>\n"
        f"<h1>Where the path decides</h1>\n<p>{legend}</p>\n{sections}\n</html>\n"
    )


def _colour(heat: float) -> str:
    """From white to red; on a scale of square roots, so that small parts show."""
    share = math.sqrt(min(1.0, max(0.0, heat)))
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(_COLD, _HOT, strict=True))
