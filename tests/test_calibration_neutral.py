"""The passages that travel with the package."""

from importlib.resources import files
from typing import Any

import pytest

from stochroute import embedded
from stochroute.calibration import neutral_rows

TEXTS = files("stochroute.calibration").joinpath("neutral.txt").read_text(encoding="utf-8").splitlines()


class Characters:
    """A tokenizer with a token for each character below a limit, and each UTF-8 byte of all others."""

    def __init__(self, limit: int):
        self.limit = limit

    def __call__(self, text: str) -> Any:
        ids = []
        for character in text:
            ids += [ord(character)] if ord(character) < self.limit else list(character.encode())
        return {"input_ids": ids}


def test_there_are_a_few_dozen_in_two_languages_and_no_two_alike():
    assert len(TEXTS) == len(set(TEXTS)) == 60
    chinese = [text for text in TEXTS if any("\u4e00" <= character <= "\u9fff" for character in text)]
    assert len(chinese) == 20
    assert all(30 <= len(text) <= 70 for text in chinese)
    assert all(100 <= len(text) <= 200 for text in TEXTS if text not in chinese)


def test_a_script_known_only_byte_by_byte_is_left_out():
    assert len(neutral_rows(Characters(1 << 20), None)) == 60
    assert len(neutral_rows(Characters(0x3000), None)) == 40
    assert len(neutral_rows(Characters(0), None)) == 40  # bytes are what such a tokenizer has for English too


def test_all_are_taken_where_hardly_any_is_known():
    class Doubling(Characters):
        def __call__(self, text: str) -> Any:
            return {"input_ids": [1] * 2 * len(text)}

    assert len(neutral_rows(Doubling(0), None)) == 60


@pytest.mark.parametrize(("context", "length"), [(None, 32), (4096, 32), (16, 16)])
def test_rows_have_one_length_that_the_model_holds(context: int | None, length: int):
    assert {len(row) for row in neutral_rows(Characters(1 << 20), context)} == {length}


def test_the_embedded_tokenizer_reads_nearly_all():
    _, tokenizer = embedded.load()
    assert len(neutral_rows(tokenizer, 512)) > 50
