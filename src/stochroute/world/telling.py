"""Tells a plot in words: English or Chinese, as a story or as a dialogue, in thousands of wordings."""

from __future__ import annotations

from stochroute.world import chinese, english
from stochroute.world.grammar import Grammar
from stochroute.world.plots import Plot, draw_plot, mix

GRAMMARS = {"en": english.GRAMMARS, "zh": chinese.GRAMMARS}
LANGUAGES = ("en", "zh")
FORMS = ("story", "dialogue")


def grammar_for(language: str, form: str) -> Grammar:
    """The grammar of this language and form. Raises ValueError if there is none."""
    if language not in LANGUAGES:
        raise ValueError(f"language {language!r} is not spoken here; choose one of {', '.join(LANGUAGES)}")
    if form not in FORMS:
        raise ValueError(f"form {form!r} is unknown; choose one of {', '.join(FORMS)}")
    return GRAMMARS[language][form]


def tell(plot: Plot, language: str = "en", form: str = "story", telling: int = 0) -> str:
    """The plot as a text: one paragraph for a story, one line a turn for a dialogue.

    `telling` chooses the wording: any integer, and the same integer tells the same way. Raises ValueError for
    another language or form, KeyError for a plot with keys that the world does not know.
    """
    return grammar_for(language, form).render(plot, telling)


def draw_text(seed: int, index: int, language: str = "en", form: str = "story") -> str:
    """The index-th text of this seed: a plot drawn uniformly, in a wording drawn uniformly."""
    return tell(draw_plot(seed, index), language, form, telling=mix(seed, index, 1))
