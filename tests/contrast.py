"""How readable colours are, as WCAG 2 measures it."""

from typing import Any


def contrast(page: Any, text: str, behind: str) -> float:
    """The contrast, 1 to 21, between the text of one element and the background of another; each is a selector."""
    light, dark = sorted((luminance(page, text, "color"), luminance(page, behind, "backgroundColor")), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(page: Any, selector: str, what: str) -> float:
    """The relative luminance, 0 to 1, of a computed colour such as "color" or "backgroundColor"."""
    colour = page.evaluate(f"getComputedStyle(document.querySelector({selector!r})).{what}")
    channels = [float(part) for part in colour[colour.index("(") + 1 : -1].replace(",", " ").split()[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (c / 255 for c in channels)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
