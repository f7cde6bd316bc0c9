"""Text comes out in whole characters, once, and never with a stop string in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli_model import save_tiny_model
from stochroute import embedded
from stochroute.serving.text import GrowingText

PLAIN = "Once upon a time, 从前有一只小熊, naïve 🙂 café. 🙂🙂 The end."


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory) -> list:
    from transformers import AutoTokenizer

    folder = save_tiny_model(tmp_path_factory.mktemp("model"))
    return [embedded.load()[1], AutoTokenizer.from_pretrained(folder)]  # one with words, one of bytes


def grown(tokenizer, ids: list[int], stops: tuple[str, ...] = (), prompt: list[int] = []) -> list[str]:  # noqa: B006
    """The pieces of the ids pushed one by one, the last being that of the end."""
    text = GrowingText(tokenizer, prompt, stops)
    return [*(text.push([token]) for token in ids), text.finish()]


@pytest.mark.parametrize("which", [0, 1])
def test_the_pieces_together_are_the_text(tokenizers, which):
    tokenizer = tokenizers[which]
    prompt = tokenizer("Two friends")["input_ids"]
    whole = tokenizer("Two friends " + PLAIN)["input_ids"]
    assert whole[: len(prompt)] == prompt
    assert "".join(grown(tokenizer, whole[len(prompt) :], prompt=prompt)) == " " + PLAIN


def test_a_character_of_several_tokens_comes_out_whole(tokenizers):
    pieces = grown(tokenizers[1], tokenizers[1](PLAIN, add_special_tokens=False)["input_ids"])
    assert "🙂" in pieces
    assert all("\ufffd" not in piece for piece in pieces)
    assert sum(piece == "" for piece in pieces) > 20  # the first bytes of each


def test_bytes_that_never_become_a_character_come_out_at_the_end(tokenizers):
    ids = tokenizers[1]("é", add_special_tokens=False)["input_ids"][:1]
    assert grown(tokenizers[1], ids) == ["", "\ufffd"]


texts = st.text(st.sampled_from("ab 从🙂é\n"), max_size=30)


@given(text=texts, cut=st.integers(0, 40), stops=st.lists(st.text("ab 从🙂", min_size=1, max_size=4), max_size=3))
def test_however_the_ids_come_the_text_ends_before_the_first_stop_string(tokenizers, text, cut, stops):
    tokenizer = tokenizers[1]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = [text.index(stop) for stop in stops if stop in text]
    expected = text[: min(found)] if found else text
    pieces = grown(tokenizer, ids, tuple(stops))
    assert "".join(pieces) == expected
    at_once = GrowingText(tokenizer, [], tuple(stops))
    assert at_once.push(ids[:cut]) + at_once.push(ids[cut:]) + at_once.finish() == expected
    assert at_once.stopped == bool(found)
    assert at_once.length == len(expected)


def test_what_may_become_a_stop_string_is_held_back_and_let_go(tokenizers):
    tokenizer = tokenizers[1]
    ids = tokenizer("a\n\nb\n", add_special_tokens=False)["input_ids"]
    assert grown(tokenizer, ids, ("\n\n\n",)) == ["a", "", "", "\n\nb", "", "\n"]


@given(ids=st.lists(st.integers(0, 257), max_size=40))
def test_any_ids_at_all_give_the_same_text_by_ones_and_at_once(tokenizers, ids):
    """Bytes that are no UTF-8 included."""
    at_once = GrowingText(tokenizers[1], [], ())
    assert "".join(grown(tokenizers[1], ids)) == at_once.push(ids) + at_once.finish()
