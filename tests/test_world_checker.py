"""The checker can fail: each way of spoiling a story is found, and named."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stochroute.world import (
    FORMS,
    LANGUAGES,
    WORLD,
    check,
    draw_text,
    number_of_plots,
    plot_at,
    tell,
)
from stochroute.world.chinese import NAMES

PLOTS = st.integers(0, number_of_plots() - 1).map(plot_at)
TELLINGS = st.integers(0, 2**64 - 1)
KINDS = st.sampled_from([(language, form) for language in LANGUAGES for form in FORMS])


def spoken(name: str, language: str) -> str:
    return NAMES[name] if language == "zh" else name


def refused(text: str) -> tuple[str, ...]:
    verdict = check(text)
    assert not verdict.coherent
    assert verdict.problems
    return verdict.problems


@settings(deadline=None)
@given(PLOTS, TELLINGS, KINDS, st.sampled_from(WORLD.heroes + WORLD.helpers), st.data())
def test_another_name_for_the_hero_is_found(plot, telling, kind, name, data):
    assume(name != plot.hero)
    text = tell(plot, *kind, telling=telling)
    hero = spoken(plot.hero, kind[0])
    places = [i for i in range(len(text)) if text.startswith(hero, i)]
    assume(len(places) > 1)
    at = data.draw(st.sampled_from(places))
    problems = refused(text[:at] + spoken(name, kind[0]) + text[at + len(hero) :])
    assert any("hero" in problem or "helper" in problem for problem in problems)


@settings(deadline=None)
@given(PLOTS, TELLINGS, KINDS, st.sampled_from(WORLD.threads), st.sampled_from(("ending", "solution", "lesson")))
def test_a_thread_that_does_not_follow_is_found(plot, telling, kind, thread, role):
    other = dict(zip(("goal", "obstacle", "solution", "ending", "lesson"), thread, strict=True))[role]
    wrong = replace(plot, **{role: other})
    assume(WORLD.problems(wrong))
    verdict = check(tell(wrong, *kind, telling=telling))
    assert verdict.plot == wrong
    assert not verdict.coherent
    assert verdict.complete
    assert verdict.problems == WORLD.problems(wrong)


@settings(deadline=None)
@given(PLOTS, TELLINGS, KINDS, st.floats(0, 1, exclude_max=True))
def test_a_text_cut_short_is_incomplete(plot, telling, kind, share):
    text = tell(plot, *kind, telling=telling)
    verdict = check(text[: int(share * len(text))], *kind)
    assert not verdict.coherent
    assert not verdict.complete
    assert verdict.plot is None


@settings(deadline=None)
@given(PLOTS, TELLINGS, KINDS, st.data())
def test_a_lost_letter_is_found(plot, telling, kind, data):
    text = tell(plot, *kind, telling=telling)
    at = data.draw(st.integers(0, len(text) - 1))
    assume(not text[at].isspace())
    refused(text[:at] + text[at + 1 :])


@settings(deadline=None)
@given(PLOTS, TELLINGS, KINDS, st.data())
def test_swapped_words_are_found(plot, telling, kind, data):
    text = tell(plot, *kind, telling=telling)
    at = data.draw(st.integers(0, len(text) - 2))
    assume(text[at] != text[at + 1])
    refused(text[:at] + text[at + 1] + text[at] + text[at + 2 :])


@settings(deadline=None)
@given(PLOTS, TELLINGS, st.sampled_from(LANGUAGES))
def test_sentences_out_of_order_are_found(plot, telling, language):
    first, second, *rest = tell(plot, language, "dialogue", telling=telling).split("\n")
    assert "opening" in refused("\n".join([second, first, *rest]))[0]


def test_a_wrong_pronoun_is_found():
    text = "Mira was a fox who lived near the cold sea. He wanted to bake a honey cake."
    rest = (
        " But all the tools were gone. Then Zoe the bear came along."
        " Together they asked a neighbour for tools."
        " At last, Mira put a candle on the cake. Mira learned that a kind word opens many doors."
    )
    assert refused(text + rest) == ("'Mira' is 'she', but the text says 'he'",)
    assert check(text.replace("He", "She") + rest).coherent


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("form", FORMS)
def test_more_text_after_the_end_is_found(language, form):
    text = draw_text(0, 0, language, form)
    assert "after the end" in refused(text + " The end.")[0]
    assert check(f"  {text}\n").coherent


@pytest.mark.parametrize("text", ["", " \n", "Hello.", "从前", "Once upon a time", "\ufffd" * 50])
def test_what_is_no_story_is_refused(text):
    verdict = check(text)
    assert not verdict.coherent
    assert not verdict.complete
    assert verdict.plot is None


def test_the_problem_quotes_the_unknown_sentence():
    text = draw_text(0, 0)
    first, second, rest = text.split(". ", 2)
    (problem,) = refused(f"{first}. {second}. But pigs fly. {rest}")
    assert problem.startswith("unknown sentence where the obstacle should be: 'But pigs fly.")
