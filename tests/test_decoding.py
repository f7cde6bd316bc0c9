"""How tokens are chosen: what turns sampling on, that nothing is hidden, and what is refused."""

from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stochroute.generation.decoding import GREEDY, Decoding

SHARE = st.floats(0, 1, exclude_min=True)
DECODINGS = st.builds(
    Decoding,
    temperature=st.none() | st.floats(0.01, 100),
    top_p=st.none() | SHARE,
    top_k=st.none() | st.integers(1, 1000),
    min_p=st.none() | st.floats(0, 1),
    typical_p=st.none() | SHARE,
)


@given(DECODINGS)
def test_what_was_not_asked_for_is_off(decoding: Decoding):
    asked = {name: value for name, value in vars(decoding).items() if value is not None and name != "spread"}
    off = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0}
    found = decoding.arguments()
    assert found.pop("do_sample") is decoding.samples is bool(asked)
    if asked:
        assert {name: found[name] for name in off} == off | asked
    else:
        assert found == {}


@given(DECODINGS, st.booleans())
def test_a_decoding_is_read_again_from_its_dictionary(decoding: Decoding, spread: bool):
    decoding = Decoding(**vars(decoding) | {"spread": spread and decoding.samples})
    assert Decoding(**decoding.to_dict()) == decoding


def test_greedy_is_the_default():
    assert Decoding() == GREEDY
    assert GREEDY.arguments() == {"do_sample": False}
    assert GREEDY.to_dict() == {}


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"temperature": 0}, "temperature 0: must be above 0"),
        ({"temperature": inf}, "temperature inf: must be above 0"),
        ({"temperature": nan}, "temperature nan: must be above 0"),
        ({"top_k": 0}, "top_k 0: must be at least 1"),
        ({"top_p": 0}, "top_p 0: must be in"),
        ({"top_p": 1.5}, "top_p 1.5: must be in"),
        ({"typical_p": nan}, "typical_p nan: must be in"),
        ({"min_p": -0.1}, "min_p -0.1: must be in"),
        ({"spread": True}, "spread=True has no effect without sampling"),
    ],
)
def test_what_cannot_be_is_refused(asked: dict[str, Any], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        Decoding(**asked)
