"""Tellings: every one reads back to its plot, the wording varies, and the words can be told apart."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stochroute.world import FORMS, LANGUAGES, check, draw_plot, draw_text, number_of_plots, plot_at, tell
from stochroute.world.plots import WORLD
from stochroute.world.telling import GRAMMARS

PLOTS = st.integers(0, number_of_plots() - 1).map(plot_at)
TELLINGS = st.integers(0, 2**64 - 1)
EVERY = [(language, form) for language in LANGUAGES for form in FORMS]


@settings(deadline=None)
@given(PLOTS, TELLINGS, st.sampled_from(EVERY))
def test_every_telling_reads_back_to_its_plot(plot, telling, kind):
    verdict = check(tell(plot, *kind, telling=telling))
    assert verdict.problems == ()
    assert verdict.coherent
    assert verdict.complete
    assert verdict.plot == plot
    assert (verdict.language, verdict.form) == kind


@pytest.mark.parametrize(("language", "form"), EVERY)
def test_every_thread_reads_back(language, form):
    for number in range(len(WORLD.threads)):
        assert check(tell(plot_at(number), language, form, telling=number)).plot == plot_at(number)


@pytest.mark.parametrize(("language", "form"), EVERY)
def test_every_sentence_of_the_grammar_is_used_and_told_from_its_neighbours(language, form):
    grammar = GRAMMARS[language][form]
    assert grammar.tellings > 10_000
    texts = [draw_text(0, index, language, form) for index in range(400)]
    for templates in grammar.templates.values():
        assert all(any(template.pattern.search(text) for text in texts) for template in templates)


def test_one_plot_has_thousands_of_tellings():
    plot = draw_plot(0, 0)
    assert len({tell(plot, "en", "story", telling) for telling in range(2000)}) > 1950
    assert tell(plot, "en", "story", 5) == tell(plot, "en", "story", 5)


@pytest.mark.parametrize(("language", "form"), EVERY)
def test_words_of_a_slot_are_distinct_and_cover_the_world(language, form):
    threads = list(zip(*WORLD.threads, strict=True))
    names = WORLD.heroes + WORLD.helpers
    known = WORLD.cast | {"hero": names, "helper": names, "hero_gender": ("he", "she")}
    known |= dict(zip(("goal", "obstacle", "solution", "ending", "lesson"), map(set, threads), strict=True))
    for name, slot in GRAMMARS[language][form].slots.items():
        assert len(slot.values) == len(slot.words), name
        assert set(slot.words) == set(known[slot.role]), name


def test_dialogues_have_one_turn_a_line():
    plot = draw_plot(0, 1)
    opening, *turns = tell(plot, "en", "dialogue").split("\n")
    assert plot.hero in opening
    assert plot.helper in opening
    assert [turn.split(":")[0] for turn in turns] == [plot.hero, plot.helper] * 3


def test_the_languages_differ():
    plot = draw_plot(0, 2)
    assert tell(plot, "en").isascii()
    assert not any(character.isascii() for character in tell(plot, "zh"))


def test_unknown_language_or_form_is_an_error():
    with pytest.raises(ValueError, match="'fr'"):
        tell(draw_plot(0, 0), "fr")
    with pytest.raises(ValueError, match="'poem'"):
        tell(draw_plot(0, 0), "en", "poem")


def test_the_world_needs_no_torch():
    code = "import sys, stochroute.world.checker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
