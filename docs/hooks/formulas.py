"""Formulas become MathML when the site is built, so that a reader's browser needs no script and no font for them."""

import html
import re

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
    """The page with every formula that arithmatex has marked, as MathML."""
    content = _INLINE.sub(lambda found: convert(_latex(found)), content)
    # a block that is wider than a phone scrolls, and what scrolls can be reached by keyboard
    return _BLOCK.sub(
        lambda found: f'<div class="formula" tabindex="0">{convert(_latex(found), display="block")}</div>', content
    )


def _latex(found: re.Match[str]) -> str:
    return html.unescape(found[1]).strip()
