"""What a request may say about its path, and what the parts of the engine read from it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stochroute as sr
from stochroute.engines.vllm.requests import PATH, PATHS, SEED, START, Walk, admit, names_paths, of_choice, walk_of

IDS = ["00c0ffee00c0ffee", "ffffffffffffffff"]
path_ids = st.integers(0, 2**64 - 1)


@given(path_ids, st.integers(1, 4096), st.sampled_from(["generated", "all"]))
def test_one_path_becomes_a_walk_that_begins_where_the_span_says(path, length, span):
    admitted = admit({PATH: sr.format_path(path)}, 1, length, sr.RoutingConfig(span=span))
    assert walk_of(json.loads(json.dumps(admitted))) == Walk(path, length - 1 if span == "generated" else 0)


@given(st.lists(path_ids, min_size=2, max_size=9), st.integers(1, 99))
def test_each_choice_walks_its_own_path_and_replays_alone_by_its_id(paths, length):
    admitted = admit({PATHS: [sr.format_path(p) for p in paths]}, len(paths), length, sr.RoutingConfig())
    for index, path in enumerate(paths):
        child = of_choice(admitted, index)
        assert walk_of(child) == Walk(path, length - 1)
        assert child == admit({PATH: sr.format_path(path)}, 1, length, sr.RoutingConfig())


@given(st.integers(0, 2**64 - 1), st.integers(1, 9), st.booleans())
def test_choices_of_a_seed_walk_the_ids_of_derive_paths(seed, choices, spread):
    routing = sr.RoutingConfig(structural=sr.Structural(form="latent", spread=spread), span="all")
    admitted = admit({SEED: seed}, choices, 5, routing)
    walks = [walk_of(of_choice(admitted, i) if choices > 1 else admitted) for i in range(choices)]
    assert [walk.path for walk in walks] == sr.derive_paths(seed, choices, spread=spread)


def test_admitting_twice_changes_nothing():
    once = admit({PATHS: IDS, START: 3, "other": 1}, 2, 9, sr.RoutingConfig())
    assert admit(once, 2, 9, sr.RoutingConfig()) == once == {PATHS: IDS, START: 3, "other": 1}


def test_a_given_start_stands_in_place_of_the_span():
    assert walk_of(admit({PATH: IDS[0], START: 0}, 1, 9, sr.RoutingConfig())) == Walk(int(IDS[0], 16), 0)
    assert walk_of(admit({PATH: IDS[0], START: 40}, 1, 9, sr.RoutingConfig(span="all"))) == Walk(int(IDS[0], 16), 40)


@pytest.mark.parametrize("fields", [None, {}, {"session_id": "s"}, {"path": IDS[0]}, {PATH: None, START: None}])
def test_a_request_without_our_fields_is_plain(fields):
    assert not names_paths(fields)
    assert walk_of(fields) is None


@pytest.mark.parametrize(
    ("fields", "choices", "reason"),
    [
        ({PATH: 7}, 1, "text of 16 hex digits"),
        ({PATH: 1.5}, 1, "text of 16 hex digits"),
        ({PATH: "c0ffee"}, 1, "not 16 hex digits"),
        ({PATH: "0x" + IDS[0][:14]}, 1, "not 16 hex digits"),
        ({PATH: [IDS[0]]}, 1, "text of 16 hex digits"),
        ({PATH: IDS[0]}, 2, "n=2 choices would all walk"),
        ({PATHS: IDS}, 1, "one id for each of n=1"),
        ({PATHS: IDS}, 3, "one id for each of n=3"),
        ({PATHS: IDS[0]}, 1, "one id for each"),
        ({PATHS: [IDS[0], 7]}, 2, "text of 16 hex digits"),
        ({PATHS: []}, 1, "one id for each"),
        ({SEED: -1}, 1, "seed=-1"),
        ({SEED: 2**64}, 1, "seed="),
        ({SEED: "7"}, 1, "no integer"),
        ({SEED: True}, 1, "no integer"),
        ({SEED: 7, PATH: IDS[0]}, 1, "gives one of"),
        ({START: 3}, 1, "gives one of"),
        ({PATH: IDS[0], START: -1}, 1, "no position"),
        ({PATH: IDS[0], START: 2**31}, 1, "no position"),
        ({PATH: IDS[0], START: 1.0}, 1, "no integer"),
        ({PATH: IDS[0], START: "3"}, 1, "no integer"),
        ({"stochroute_pth": IDS[0]}, 1, "did you mean stochroute_path"),
        ({PATH: IDS[0], "stochroute_strength": 2}, 1, "is no field"),
    ],
)
def test_a_bad_field_is_refused_with_its_name_and_the_remedy(fields, choices, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        admit(fields, choices, 9, sr.RoutingConfig())
    assert any(name.removeprefix("stochroute_") in str(caught.value) for name in fields)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from([PATH, PATHS, SEED, START]), json_values, min_size=1), st.integers(1, 4))
def test_whatever_comes_is_admitted_as_walks_or_refused_as_a_value_error(fields, choices):
    try:
        admitted = admit(fields, choices, 9, sr.RoutingConfig())
    except ValueError:
        return
    for index in range(choices):
        walk = walk_of(of_choice(admitted, index) if choices > 1 else admitted)
        assert 0 <= walk.path < 2**64
        assert walk.start >= 0
