"""Forms: what is a story, a poem or a quatrain, step by step."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poet import quatrain
from stochroute.applications.write import FORMS, Poem, Quatrain, form_named
from stochroute.applications.write.forms import cut, has_ended
from stochroute.world import draw_text

TEXTS = st.text(alphabet="ab 字月，。.!?\n\"'”“…3", max_size=60)
EVERY_FORM = pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)


@EVERY_FORM
@given(text=TEXTS)
def test_steps_joined_are_a_beginning_of_the_text(form, text: str):
    assert text.startswith("".join(form.parts(text)))


@EVERY_FORM
@given(opening=TEXTS, text=TEXTS, most=st.none() | st.integers(1, 4))
def test_what_is_cut_is_a_beginning_of_the_continuation_and_is_final_once_it_has_ended(form, opening, text, most):
    kept = cut(form, opening, text, most)
    assert text.startswith(kept)
    if has_ended(form, opening, text, most):
        # no more text changes it
        assert cut(form, opening, text + "a字。\nb", most).strip() == kept.strip()


@pytest.mark.parametrize("seed", range(20))
def test_true_quatrains_pass_and_every_way_to_break_one_is_named(seed: int):
    text = quatrain(random.Random(seed))
    five, seven = FORMS["五绝"], FORMS["七绝"]
    assert five.problems(text, finished=True) == ()
    assert five.problems(text.replace("，", "，\n").replace("。", "。\n"), finished=True) == ()
    assert five.problems(text.replace("，", "\n").replace("。", "\n"), finished=True) == ()
    assert seven.problems(text, finished=True)[0] == "line 1 has 5 characters, not 7"
    assert five.problems(text[:12], finished=True) == ("has 2 lines, not 4",)
    assert five.problems(text[:12], finished=False) == ()
    assert five.problems(text[:2] + text[3:], finished=True) == ("line 1 has 4 characters, not 5",)
    assert five.problems(text[:6] + "a" + text[7:], finished=True) == ("line 2 holds 'a', which is not Chinese",)


def test_a_quatrain_of_seven_characters_passes_as_such():
    text = "青山隐隐水迢迢，白云悠悠过小桥。明月一轮照江岸，春风十里绿新苗。"
    assert FORMS["七绝"].problems(text, finished=True) == ()
    assert FORMS["七绝"].parts(text) == ["青山隐隐水迢迢，", "白云悠悠过小桥。", "明月一轮照江岸，", "春风十里绿新苗。"]


@pytest.mark.parametrize("text", ["", "Once upon a time there was", "hello world\nfoo\nbar\nbaz", "，，，，", "。"])
def test_what_is_no_quatrain_has_problems(text: str):
    assert FORMS["五绝"].problems(text, finished=True)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_stories_of_the_world_are_sentences_and_nothing_else(language: str):
    story = FORMS["story"]
    for index in range(30):
        text = draw_text(5, index, language)
        assert "".join(story.parts(text)) == text
        assert story.problems(text, finished=True) == ()
        assert len(story.parts(text)) in (7, 8, 9)


def test_a_step_goes_on_after_the_steps_that_are_there():
    assert cut(FORMS["五绝"], "明月映江岸，", "春风映柴门。落花", 1) == "春风映柴门。"
    assert cut(FORMS["五绝"], "明月映江岸", "，春风映柴门。落花", 1) == "，"
    assert cut(FORMS["五绝"], "明月", "映江岸，春风", 1) == "映江岸，"
    assert has_ended(FORMS["五绝"], "明月映江岸，", "春风映柴门。落", 1)
    assert not has_ended(FORMS["五绝"], "明月映江岸，", "春风映柴门。", 1)


def test_a_story_that_breaks_off_is_cut_at_its_last_whole_sentence():
    assert (
        cut(FORMS["story"], "Once", ' there was a fox. He said, "Go!" Then he ra') == ' there was a fox. He said, "Go!"'
    )
    assert cut(FORMS["story"], "Once", " there was a fox. He left. He", 1) == " there was a fox."
    assert cut(FORMS["story"], "It cost 3.5 dollars.", " He paid. He", 1) == " He paid."
    assert FORMS["story"].problems("Once there was", finished=True) == ("has 0 whole sentences",)
    assert FORMS["story"].problems("It was over.", finished=True) == ("has 1 whole sentence",)


def test_a_poem_has_as_many_lines_as_were_asked_for_and_none_of_prose():
    poem = form_named("poem", 3)
    assert poem == Poem(3)
    assert poem.problems("a rose\n\na thorn\nthe sun", finished=True) == ()
    assert poem.problems("a rose\na thorn", finished=True) == ("has 2 lines, not 3",)
    assert poem.problems(f"a rose\n{'x' * 81}\nthe sun", finished=True) == ("line 2 has 81 characters",)
    assert cut(poem, "a rose\n", "a thorn\nthe sun\nthe moon\n") == "a thorn\nthe sun\n"
    assert has_ended(poem, "a rose\n", "a thorn\nthe sun\nthe moon")
    assert not has_ended(poem, "a rose\n", "a thorn\nthe sun\n")


@pytest.mark.parametrize(("name", "form"), [("五绝", 5), ("wujue", 5), ("五絕", 5), ("七绝", 7), ("qijue", 7)])
def test_quatrains_have_names_for_every_keyboard(name: str, form: int):
    found = form_named(name)
    assert isinstance(found, Quatrain)
    assert found.characters == form


@pytest.mark.parametrize(("name", "lines", "message"), [
    ("sonnet", None, "form 'sonnet' is unknown: choose one of story, poem, 五绝, 七绝"),
    ("story", 4, "lines=4 has no effect on the form story"),
    ("poem", 1, "a poem has at least 2 lines"),
])  # fmt: skip
def test_bad_forms_are_named(name: str, lines: int | None, message: str):
    with pytest.raises(ValueError, match=message):
        form_named(name, lines)
