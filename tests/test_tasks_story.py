"""The story world as a task: a sample is its plot, in whatever words."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from stochroute.embedded.texts import MIXTURE, text_at
from stochroute.tasks import Story
from stochroute.world import FORMS, LANGUAGES, check, draw_plot, draw_text, number_of_plots, tell

EVERYTHING = Story(mixture=tuple((language, form) for language in LANGUAGES for form in FORMS), training_size=100)
ENGLISH = Story(training_size=100)


def test_the_plots_are_the_forms():
    assert ENGLISH.number_of_forms == number_of_plots()
    assert ENGLISH.training_forms == {draw_plot(0, index) for index in range(100)}


def test_the_training_texts_tell_the_training_plots():
    for task in (ENGLISH, EVERYTHING):
        texts = task.training_texts()
        assert texts == task.training_texts()
        assert {task.canonical(text) for text in texts} == task.training_forms
        assert all(map(task.memorised, texts))


def test_the_embedded_models_mixture_gives_its_training_texts():
    assert Story(mixture=MIXTURE, training_size=50, seed=3).training_texts() == [text_at(3, i) for i in range(50)]


@given(st.integers(0, 99), st.integers(0, 2**32), st.sampled_from(LANGUAGES), st.sampled_from(FORMS))
def test_a_training_plot_is_memorised_in_whatever_words(index, telling, language, form):
    text = tell(draw_plot(0, index), language, form, telling)
    assert EVERYTHING.memorised(text)
    assert ENGLISH.coherent(text) == ENGLISH.memorised(text) == ((language, form) == ("en", "story"))


def test_two_tellings_count_once():
    plot = draw_plot(1, 0)
    texts = [tell(plot, "en", "story", telling) for telling in range(5)] + [tell(plot, "zh", "dialogue")]
    assert len(set(texts)) > 2
    score = EVERYTHING.score(texts)
    assert (score.creativity, score.coherence, score.memorised, score.unique) == (1 / 6, 1, 0, 1 / 6)


def test_a_plot_that_breaks_the_rules_is_refused():
    plot = draw_plot(1, 0)
    wrong = replace(plot, lesson="steps")  # a lesson of patience, but the plot is one of kindness
    text = tell(wrong)
    assert check(text).plot == wrong
    assert not ENGLISH.coherent(text)
    assert ENGLISH.score([text]).unique == 0


@given(st.text(max_size=40), st.floats(0, 1, exclude_max=True), st.integers(0, 50))
def test_what_is_no_whole_story_is_refused(noise, share, index):
    text = draw_text(1, index)
    assert not ENGLISH.coherent(noise)
    assert not ENGLISH.coherent(text[: int(share * len(text))])
    assert ENGLISH.coherent(text)
    assert ENGLISH.score([noise, text]).coherence == 0.5
