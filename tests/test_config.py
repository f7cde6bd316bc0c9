"""The routing config: checked when it is made, frozen, and the same again after a journey through JSON."""

import copy
import dataclasses
import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stochroute as sr
from stochroute.config import (
    FORMAT_VERSION,
    Schedule,
    UnknownConfigKeys,
    layer_indices,
    layer_strengths,
)

KINDS = {"structural": sr.Structural, "attention": sr.Attention, "experts": sr.Experts}
NO_INTEGERS = [0, -1, 1.0, 2.5, True, False, "1", "all", None, (1,)]

# --- every valid config

numbers = st.one_of(st.floats(0, 1e6), st.integers(0, 10))
depths = st.lists(st.integers(0, 200), min_size=1, max_size=6, unique=True).map(sorted)
layers = st.one_of(st.sampled_from(["all", "upper_third", "middle_third", "lower_third"]), depths, depths.map(tuple))
strengths = st.one_of(numbers, st.lists(numbers, min_size=1, max_size=6), st.lists(numbers, min_size=1).map(tuple))
schedules = st.one_of(
    st.just(Schedule()), st.builds(Schedule, decay=st.sampled_from(["linear", "cosine"]), length=st.integers(1, 10**6))
)
common = {
    "strength": strengths,
    "layers": layers,
    "hold": st.one_of(st.just("sequence"), st.integers(1, 10**9)),
    "distribution": st.sampled_from(["normal", "uniform", "rademacher"]),
    "schedule": schedules,
}
scales = st.sampled_from(["relative", "absolute"])
structurals = st.one_of(
    st.builds(sr.Structural, **common, scale=scales, form=st.sampled_from(["independent", "shared"])),
    st.builds(
        sr.Structural, **common, scale=scales, form=st.just("latent"), rank=st.one_of(st.none(), st.integers(1, 4096))
    ),
)
configs = st.builds(
    sr.RoutingConfig,
    structural=st.one_of(st.none(), structurals),
    attention=st.one_of(st.none(), st.builds(sr.Attention, **common)),
    experts=st.one_of(st.none(), st.builds(sr.Experts, **common)),
    span=st.sampled_from(["generated", "all"]),
)


@given(config=configs)
def test_any_config_is_the_same_after_a_journey_through_json(config):
    data = config.to_dict()
    text = json.dumps(data, allow_nan=False)
    again = sr.RoutingConfig.from_dict(json.loads(text))
    assert again == config
    assert hash(again) == hash(config)
    assert json.dumps(again.to_dict()) == text
    assert sr.RoutingConfig.from_dict(data) == config
    assert data["format_version"] == FORMAT_VERSION


@given(config=configs)
def test_reading_leaves_the_dictionary_as_it_was(config):
    data = json.loads(json.dumps(config.to_dict()))
    before = copy.deepcopy(data)
    sr.RoutingConfig.from_dict(data)
    assert data == before


@given(config=configs)
def test_a_config_is_hashable_and_holds_tuples_where_lists_were_given(config):
    assert {config: 1}[copy.deepcopy(config)] == 1
    for kind in (config.structural, config.attention, config.experts):
        assert kind is None or not isinstance(kind.strength, list)
        assert kind is None or not isinstance(kind.layers, list)


@given(config=configs, other=configs)
def test_equal_configs_and_only_they_have_the_same_json(config, other):
    assert (config == other) == (json.loads(json.dumps(config.to_dict())) == json.loads(json.dumps(other.to_dict())))


@pytest.mark.parametrize(
    "part",
    [sr.RoutingConfig(), sr.Structural(), sr.Attention(), sr.Experts(), Schedule()],
    ids=lambda p: type(p).__name__,
)
def test_every_part_is_frozen(part):
    for name in (f.name for f in dataclasses.fields(part)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, name, None)


def test_the_defaults_are_structural_noise_shared_by_the_upper_third_and_held_for_the_sequence():
    config = sr.RoutingConfig()
    assert config.structural == sr.Structural(
        form="shared", layers="upper_third", strength=0.1, hold="sequence", scale="relative", distribution="normal"
    )
    assert (config.attention, config.experts, config.span) == (None, None, "generated")
    assert sr.RoutingConfig.from_dict({}) == config
    assert sr.RoutingConfig.from_dict({"structural": {}}) == config
    assert sr.RoutingConfig.from_dict({"structural": None}).structural is None


def test_the_json_of_a_config_is_pinned():
    config = sr.RoutingConfig(
        structural=sr.Structural(form="latent", layers=[1, 3], strength=[0.1, 0.25], schedule=Schedule("cosine", 64)),
        span="all",
    )
    assert json.loads(json.dumps(config.to_dict())) == {
        "format_version": 1,
        "structural": {
            "strength": [0.1, 0.25],
            "layers": [1, 3],
            "hold": "sequence",
            "distribution": "normal",
            "schedule": {"decay": "cosine", "length": 64},
            "form": "latent",
            "scale": "relative",
            "rank": 16,
        },
        "attention": None,
        "experts": None,
        "span": "all",
    }


def test_a_latent_form_without_a_rank_takes_16_and_other_forms_take_none():
    assert sr.Structural(form="latent").rank == 16
    assert sr.Structural(form="latent", rank=3).rank == 3
    assert sr.Structural(form="shared").rank is None


# --- every invalid value

BAD_COMMON = {
    "strength": [
        *(-1, -0.1, math.nan, math.inf, -math.inf, True, "0.1", None, 1j, {}),
        *((), [], (0.1, -0.1), [0.1, math.nan], [0.1, "0.2"], [[0.1]], [None], [True]),
    ],
    "layers": [
        *("upper", "ALL", "", None, 3, 1.5, True, {1, 2}, {}),
        *((), [], (-1,), [0, 0], [2, 1], [0.0], ["0"], [True], [None], [[1]]),
    ],
    "hold": [0, -1, 1.0, True, "forever", "", None, (1,), [1], math.nan],
    "distribution": ["gauss", "Normal", "", None, 1, ("normal",), ["normal"]],
    "schedule": ["cosine", None, 3, {"decay": "cosine"}, ("cosine", 4)],
}
BAD_STRUCTURAL = {
    "form": ["parallel", "Shared", None, 0, ["shared"]],
    "scale": ["rms", None, 1.0, ["relative"]],
}


def cases(table: dict[str, list]) -> list:
    return [pytest.param(name, value, id=f"{name}={value!r}") for name, values in table.items() for value in values]


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
@pytest.mark.parametrize(("name", "value"), cases(BAD_COMMON))
def test_a_bad_value_is_refused_by_the_argument_s_name(kind, name, value):
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        kind(**{name: value})


@pytest.mark.parametrize(("name", "value"), cases(BAD_STRUCTURAL))
def test_a_bad_form_or_scale_is_refused_by_the_argument_s_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name}="):
        sr.Structural(**{name: value})


@pytest.mark.parametrize("rank", [r for r in NO_INTEGERS if r is not None], ids=repr)
def test_a_rank_that_is_no_positive_integer_is_refused(rank):
    with pytest.raises(ValueError, match=r"^rank=.* is no positive integer"):
        sr.Structural(form="latent", rank=rank)


@pytest.mark.parametrize("form", ["shared", "independent"])
def test_a_rank_without_the_latent_form_is_refused_as_having_no_effect(form):
    with pytest.raises(ValueError, match=r"^rank=4 has no effect"):
        sr.Structural(form=form, rank=4)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
@pytest.mark.parametrize("length", NO_INTEGERS, ids=repr)
def test_a_decay_without_a_positive_length_is_refused(decay, length):
    with pytest.raises(ValueError, match=r"^schedule\.length=.* is no positive integer"):
        Schedule(decay, length)


def test_a_constant_schedule_with_a_length_is_refused_as_having_no_effect():
    with pytest.raises(ValueError, match=r"^schedule\.length=8 has no effect"):
        Schedule("constant", 8)


@pytest.mark.parametrize("decay", ["exponential", "", None, 1, ["linear"]], ids=repr)
def test_an_unknown_decay_is_refused(decay):
    with pytest.raises(ValueError, match=r"^schedule\.decay="):
        Schedule(decay, 8)


@pytest.mark.parametrize("name", [*KINDS, "span"])
@pytest.mark.parametrize("value", [True, 0.1, "on", {}, [], Schedule()], ids=repr)
def test_a_part_of_the_wrong_type_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name}="):
        sr.RoutingConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "kind"), [("structural", sr.Attention()), ("attention", sr.Experts()), ("experts", sr.Structural())]
)
def test_a_kind_in_the_place_of_another_is_refused(name, kind):
    with pytest.raises(ValueError, match=f"^{name}="):
        sr.RoutingConfig(**{name: kind})


def test_a_strength_too_large_for_a_float_is_refused():
    with pytest.raises(ValueError, match="strength"):
        sr.Structural(strength=10**400)


# --- reading foreign dictionaries


@pytest.mark.parametrize("data", [None, [], "structural", 1, 0.5, True], ids=repr)
def test_what_is_no_json_object_is_refused(data):
    with pytest.raises(ValueError, match="JSON object"):
        sr.RoutingConfig.from_dict(data)
    for name in KINDS:
        if data is not None:
            with pytest.raises(ValueError, match=f"{name}.* is no JSON object"):
                sr.RoutingConfig.from_dict({name: data})


@pytest.mark.parametrize(
    ("data", "key", "meant"),
    [
        ({"structral": {}}, "structral", "structural"),
        ({"Span": "all"}, "Span", "span"),
        ({"structural": {"strenght": 1}}, "structural.strenght", "strength"),
        ({"attention": {"layer": "all"}}, "attention.layer", "layers"),
        ({"experts": {"schedule": {"lenght": 3}}}, "experts.schedule.lenght", "length"),
    ],
)
def test_a_mistyped_key_is_refused_with_the_key_that_was_meant(data, key, meant):
    for version in ({}, {"format_version": FORMAT_VERSION}):
        with pytest.raises(ValueError, match=rf"unknown config key '{key}' \(did you mean '{meant}'\?\)"):
            sr.RoutingConfig.from_dict({**version, **data})


def test_an_unknown_key_that_resembles_none_is_refused_with_the_keys_there_are():
    with pytest.raises(
        ValueError, match="unknown config key 'xyzzy': the keys are attention, experts, span, structural"
    ):
        sr.RoutingConfig.from_dict({"xyzzy": 1})
    with pytest.raises(ValueError, match=r"unknown config key 'attention\.rank'"):
        sr.RoutingConfig.from_dict({"attention": {"rank": 4}})


@given(config=configs, key=st.text(min_size=1).filter(lambda k: k.isidentifier()))
def test_any_unknown_key_of_this_version_is_an_error_and_of_a_newer_one_a_warning_that_names_it(config, key):
    key = f"new_{key}"
    data = {**config.to_dict(), key: 1}
    with pytest.raises(ValueError, match="unknown config key"):
        sr.RoutingConfig.from_dict(data)
    with pytest.warns(UnknownConfigKeys) as warned:
        assert sr.RoutingConfig.from_dict({**data, "format_version": FORMAT_VERSION + 1}) == config
    assert [key in str(w.message) for w in warned] == [True]


def test_every_unknown_key_of_a_newer_version_is_named_with_its_place():
    data = {
        "format_version": FORMAT_VERSION + 1,
        "colour": "red",
        "structural": {"strength": 0.3, "flavour": 1, "schedule": {"decay": "linear", "length": 4, "warmup": 2}},
        "experts": {"temperature": 2},
    }
    with pytest.warns(UnknownConfigKeys) as warned:
        config = sr.RoutingConfig.from_dict(data)
    assert config == sr.RoutingConfig(
        structural=sr.Structural(strength=0.3, schedule=Schedule("linear", 4)), experts=sr.Experts()
    )
    messages = " ".join(str(w.message) for w in warned)
    assert len(warned) == 4
    for key in ("colour", "structural.flavour", "structural.schedule.warmup", "experts.temperature"):
        assert f" {key} " in messages


def test_a_newer_version_without_unknown_keys_is_read_in_silence_and_its_bad_values_are_still_refused():
    assert sr.RoutingConfig.from_dict({"format_version": FORMAT_VERSION + 1}) == sr.RoutingConfig()
    with pytest.raises(ValueError, match="strength"):
        sr.RoutingConfig.from_dict({"format_version": FORMAT_VERSION + 1, "structural": {"strength": -1}})


@pytest.mark.parametrize("version", [0, -1, 1.0, "1", None, True, [1]], ids=repr)
def test_a_format_version_that_is_no_positive_integer_is_refused(version):
    with pytest.raises(ValueError, match=r"^format_version="):
        sr.RoutingConfig.from_dict({"format_version": version})


@pytest.mark.parametrize(("name", "value"), cases({n: v for n, v in BAD_COMMON.items() if n != "schedule"}))
def test_a_bad_value_in_a_dictionary_is_refused_as_in_a_call(name, value):
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        sr.RoutingConfig.from_dict({"attention": {name: value}})


# --- which layers, how strong


@pytest.mark.parametrize("depth", [*range(3, 40), 48, 61, 80, 126])
def test_thirds_cover_all_layers_once_and_the_upper_one_starts_at_two_thirds_rounded_up(depth):
    every = list(range(depth))
    lower, middle, upper = (
        layer_indices(name, every, depth) for name in ("lower_third", "middle_third", "upper_third")
    )
    assert lower + middle + upper == every == layer_indices("all", every, depth)
    assert upper == [i for i in every if 3 * i >= 2 * depth]  # i ≥ ⌈2L/3⌉ in integers
    assert len(lower) == len(upper) == depth // 3


@pytest.mark.parametrize(
    ("depth", "upper"), [(3, [2]), (4, [3]), (5, [4]), (6, [4, 5]), (8, [6, 7]), (12, [8, 9, 10, 11])]
)
def test_the_upper_third_of_small_models_is_what_one_expects(depth, upper):
    assert layer_indices("upper_third", list(range(depth)), depth) == upper


@pytest.mark.parametrize(("depth", "lower", "upper"), [(1, [0], [0]), (2, [0], [1])])
def test_a_model_of_one_or_two_layers_still_has_a_lower_and_an_upper_part_but_no_middle(depth, lower, upper):
    assert layer_indices("lower_third", list(range(depth)), depth) == lower
    assert layer_indices("upper_third", list(range(depth)), depth) == upper
    with pytest.raises(ValueError, match=rf"layers='middle_third' holds no site in this model of {depth} layers"):
        layer_indices("middle_third", list(range(depth)), depth)


def test_a_named_range_chooses_among_the_layers_that_have_a_site():
    assert layer_indices("all", [1, 3, 5], 6) == [1, 3, 5]
    assert layer_indices("upper_third", [1, 3, 5], 6) == [5]
    with pytest.raises(ValueError, match=r"name layers of \[1, 3\]"):
        layer_indices("upper_third", [1, 3], 6)


@given(chosen=st.lists(st.integers(0, 11), min_size=1, unique=True).map(sorted))
def test_explicit_layers_are_taken_as_they_are(chosen):
    assert layer_indices(tuple(chosen), list(range(12)), 12) == chosen


def test_an_explicit_layer_without_a_site_is_refused_by_its_index():
    with pytest.raises(ValueError, match=r"names \[2, 9\], but the sites stand in layers \[1, 3\]"):
        layer_indices((1, 2, 9), [1, 3], 4)


def test_one_strength_serves_every_layer_and_several_must_match_their_number():
    assert layer_strengths(0.5, [1, 2, 3]) == [0.5, 0.5, 0.5]
    assert layer_strengths((1, 0.5), [4, 7]) == [1.0, 0.5]
    assert all(type(s) is float for s in layer_strengths((1, 0), [4, 7]))
    for strength in ((0.1,), (0.1, 0.2, 0.3)):
        with pytest.raises(ValueError, match=rf"strength names {len(strength)} values for 2 layers \[4, 7\]"):
            layer_strengths(strength, [4, 7])


def test_a_config_survives_a_copy_to_another_process():
    config = sr.RoutingConfig(attention=sr.Attention(strength=[0.1, 0.2], layers=[0, 2], hold=4))
    assert pickle.loads(pickle.dumps(config)) == config
