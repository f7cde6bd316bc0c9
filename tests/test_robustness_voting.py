"""Votes over ballots made by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stochroute.robustness import Ballot, majority


def ballot(label: int | str, *probabilities: float) -> Ballot:
    return Ballot(None, label, probabilities)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=9))
def test_no_label_has_more_ballots_than_the_majority(labels: list[int]):
    assert labels.count(majority([ballot(label) for label in labels])) == max(map(labels.count, labels))


def test_ties_go_to_the_label_that_is_more_probable_over_all_ballots():
    assert majority([ballot(0, 0.5, 0.4, 0.1), ballot(1, 0.05, 0.9, 0.05)]) == 1
    assert majority([ballot(1, 0.4, 0.5, 0.1), ballot(0, 0.9, 0.05, 0.05)]) == 0
    assert majority([ballot("fox"), ballot("bear"), ballot("bear"), ballot("fox")]) == "fox"


def test_one_ballot_is_no_vote():
    with pytest.raises(ValueError, match="at least two"):
        majority([ballot(0)])
