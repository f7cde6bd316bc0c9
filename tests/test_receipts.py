"""Receipts: what a replay needs, what changes them, and the warning when a replay differs."""

import copy
import dataclasses
import json
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import GenerationConfig

import stochroute as sr
from families import FAMILIES
from stochroute.generation.receipts import Receipt, ReplayMismatch, fingerprint, routing_hash

IDS = torch.tensor([[3, 14, 15, 92, 65, 35]])
FIELDS = [f.name for f in dataclasses.fields(Receipt)]

values = st.one_of(
    st.booleans(), st.integers(-100, 100), st.floats(-9, 9), st.lists(st.integers(0, 9)), st.text(max_size=4)
)
hashes = st.integers(0, 2**64 - 1).map(sr.format_path)
receipts = st.builds(
    Receipt,
    path=hashes,
    start=st.integers(0, 10**6),
    routing=hashes,
    noise_version=st.integers(1, 3),
    model=hashes,
    decoding=st.dictionaries(st.sampled_from(["do_sample", "temperature", "eos_token_id"]), values),
    engine=st.sampled_from(["transformers 5.23.0", "vllm 0.32.0"]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)


def llama(dtype: torch.dtype = torch.float32) -> nn.Module:
    return FAMILIES["llama"].build(dtype)


@pytest.fixture
def routed() -> sr.RoutedModel:
    return sr.route(llama(), sr.RoutingConfig(structural=sr.Structural(strength=0.5, layers="all")))


def write(routed: sr.RoutedModel, paths: int | list = 2, **arguments) -> sr.RoutedOutput:
    """Three tokens on each path; a number of paths is derived from seed 7."""
    if isinstance(paths, int):
        arguments["seed"] = 7
    return routed.generate(IDS, paths=paths, **{"max_new_tokens": 3, **arguments})


# --- the record itself


@given(receipt=receipts)
def test_a_receipt_is_the_same_after_a_journey_through_json(receipt):
    text = json.dumps(receipt.to_dict(), allow_nan=False)
    assert Receipt.from_dict(json.loads(text)) == receipt
    assert set(json.loads(text)) == set(FIELDS)
    assert receipt.differences(Receipt.from_dict(json.loads(text))) == []


@given(one=receipts, other=receipts)
def test_differences_name_exactly_the_fields_that_differ_but_for_the_path(one, other):
    differing = [n for n in FIELDS if n != "path" and getattr(one, n) != getattr(other, n)]
    sentences = one.differences(other)
    assert [sentence.split(" was ")[0] for sentence in sentences] == differing
    for name, sentence in zip(differing, sentences, strict=True):
        assert sentence == f"{name} was {getattr(one, name)!r}, now {getattr(other, name)!r}"
    assert one.differences(one) == []


@pytest.mark.parametrize("name", FIELDS)
def test_a_receipt_that_lacks_a_field_or_has_another_one_is_refused(routed, name):
    data = write(routed).receipts[0].to_dict()
    with pytest.raises(ValueError, match=f"a receipt has the fields .*{name}"):
        Receipt.from_dict({key: value for key, value in data.items() if key != name})
    with pytest.raises(ValueError, match="a receipt has the fields"):
        Receipt.from_dict({**data, f"{name}s": 1})


@pytest.mark.parametrize("data", [None, [], "receipt", 7, {}], ids=repr)
def test_what_is_no_receipt_at_all_is_refused(data):
    with pytest.raises(ValueError, match="a receipt has the fields"):
        Receipt.from_dict(data)


@pytest.mark.parametrize("path", ["c0ffee", "0x00c0ffee00c0ffee", -1, 2**64, None, 1.0])
def test_a_receipt_with_a_bad_path_is_refused(routed, path):
    data = write(routed).receipts[0].to_dict()
    with pytest.raises(ValueError, match="path id"):
        Receipt.from_dict({**data, "path": path})


def test_a_receipt_is_frozen(routed):
    with pytest.raises(dataclasses.FrozenInstanceError):
        write(routed).receipts[0].start = 3


# --- what generate writes into it


def test_every_row_gets_its_receipt(routed):
    out = write(routed, paths=3)
    assert [receipt.path for receipt in out.receipts] == [sr.format_path(p) for p in out.paths]
    assert [receipt.start for receipt in out.receipts] == out.starts == [5, 5, 5]
    receipt = out.receipts[0]
    assert receipt.routing == routing_hash(routed)
    assert receipt.model == fingerprint(routed.model)
    assert receipt.noise_version == sr.noise.NOISE_VERSION
    assert receipt.dtype == "float32"
    assert receipt.engine.startswith("transformers ")
    assert receipt.decoding == {"max_new_tokens": 3}


def test_only_settings_that_do_something_are_kept(routed):
    neutral = {"temperature": 0.7, "top_k": 5, "num_beams": 1, "repetition_penalty": 1.0, "do_sample": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers says that the sampling settings have no effect
        assert write(routed, **neutral).receipts[0].decoding == {"max_new_tokens": 3}
    sampled = write(routed, do_sample=True, temperature=0.7, top_k=0, top_p=1.0, min_p=0.1, eos_token_id=[5, 6])
    assert sampled.receipts[0].decoding == {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 0,
        "min_p": 0.1,
        "eos_token_id": [5, 6],
        "max_new_tokens": 3,
    }
    assert Receipt.from_dict(json.loads(json.dumps(sampled.receipts[0].to_dict()))) == sampled.receipts[0]


def test_the_decoding_of_a_receipt_is_what_generate_takes_to_write_the_text_again(routed):
    for asked in ({"top_k": 0}, {}, {"top_k": 4, "top_p": 0.9}):
        first = write(routed, do_sample=True, temperature=2.0, **asked)
        again = routed.generate(IDS, paths=[first.receipts[0]], **first.receipts[0].decoding)  # a mismatch would warn
        assert again.receipts[0] == first.receipts[0]
        assert torch.equal(again.generated[0], first.generated[0])


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"do_sample": False, "repetition_penalty": 1.0}, {"do_sample": False, "repetition_penalty": 1.0}),
        ({"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.6, "min_p": 0.2, "repetition_penalty": 1.5}),
        (
            {"temperature": 2.0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0},
            {"temperature": 2.0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0},
        ),
    ],
)
def test_a_receipt_says_what_keeps_the_own_defaults_of_a_model_out(routed, asked, kept):
    own = {"do_sample": True, "temperature": 0.3, "top_p": 0.6, "min_p": 0.2, "repetition_penalty": 1.5}
    routed.model.generation_config.update(**own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers says that the defaults for sampling have no effect on greedy
        first = write(routed, **asked)
    decoding = first.receipts[0].decoding
    assert {name: decoding[name] for name in own if name in decoding} == {"do_sample": True, **kept}
    again = routed.generate(IDS, paths=[first.receipts[0]], **decoding)  # a mismatch would warn
    assert torch.equal(again.generated[0], first.generated[0])


def test_settings_count_the_same_however_they_are_given(routed):
    config = GenerationConfig(max_new_tokens=3, do_sample=True, temperature=0.7)
    given_apart = write(routed, do_sample=True, temperature=0.7).receipts
    assert routed.generate(IDS, paths=2, seed=7, generation_config=config).receipts == given_apart


def test_the_receipts_of_a_path_do_not_depend_on_its_batch(routed):
    out = write(routed, paths=3)
    assert write(routed, paths=[out.paths[1]]).receipts == [out.receipts[1]]
    assert write(routed, paths=3, rows_at_once=1).receipts == out.receipts


def test_the_dtype_is_that_of_the_weights():
    out = write(sr.route(llama(torch.bfloat16)))
    assert out.receipts[0].dtype == "bfloat16"


# --- fingerprint


def test_the_fingerprint_is_16_hex_digits_and_the_same_for_equal_models():
    model = llama()
    assert sr.format_path(fingerprint(model)) == fingerprint(model) == fingerprint(copy.deepcopy(model))
    assert fingerprint(llama()) == fingerprint(model)


def test_routing_a_model_changes_no_fingerprint():
    model = llama()
    before = fingerprint(model)
    routed = sr.route(model, sr.RoutingConfig(structural=sr.Structural(), attention=sr.Attention()))
    assert fingerprint(routed.model) == before
    assert fingerprint(routed.detach()) == before


@pytest.mark.parametrize("name", [n for n, _ in llama().named_parameters()])
def test_any_redrawn_tensor_changes_the_fingerprint(name):
    model = llama()
    before = fingerprint(model)
    parameter = dict(model.named_parameters())[name]
    with torch.no_grad():
        parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    assert fingerprint(model) != before


def test_a_narrower_dtype_a_step_of_training_and_another_shape_change_the_fingerprint():
    model = llama()
    prints = {fingerprint(model), fingerprint(llama().to(torch.bfloat16)), fingerprint(llama().to(torch.float16))}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 1e-6)
    prints.add(fingerprint(model))
    prints.add(fingerprint(FAMILIES["qwen2"].build(torch.float32)))
    assert len(prints) == 5


@pytest.mark.parametrize("numel", [1, 64, 65, 96, 127, 128, 1000, 4095])
def test_samples_are_spread_over_the_whole_tensor(numel):
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.arange(numel, dtype=torch.float32))

    model = One()
    before = fingerprint(model)
    with torch.no_grad():
        model.weight[-(numel // 4 or 1) :] += 1
    assert fingerprint(model) != before


# --- routing hash


def test_the_routing_hash_is_16_hex_digits_and_the_same_for_equal_routings():
    config = sr.RoutingConfig(structural=sr.Structural(), attention=sr.Attention())
    one, other = sr.route(llama(), config), sr.route(llama(), config)
    assert sr.format_path(routing_hash(one)) == routing_hash(one) == routing_hash(other)


def test_every_setting_changes_the_routing_hash():
    configs = [
        sr.RoutingConfig(),
        sr.RoutingConfig(structural=sr.Structural(strength=0.2)),
        sr.RoutingConfig(structural=sr.Structural(layers="all")),
        sr.RoutingConfig(structural=sr.Structural(form="independent")),
        sr.RoutingConfig(structural=sr.Structural(form="latent")),
        sr.RoutingConfig(structural=sr.Structural(form="latent", rank=4)),
        sr.RoutingConfig(structural=sr.Structural(hold=2)),
        sr.RoutingConfig(structural=sr.Structural(scale="absolute")),
        sr.RoutingConfig(structural=sr.Structural(distribution="uniform")),
        sr.RoutingConfig(structural=sr.Structural(), attention=sr.Attention()),
        sr.RoutingConfig(span="all"),
        sr.RoutingConfig(structural=None),
    ]
    assert len({routing_hash(sr.route(llama(), config)) for config in configs}) == len(configs)


def test_every_parameter_changes_the_routing_hash():
    routed = sr.route(llama(), sr.RoutingConfig(structural=sr.Structural(form="latent"), attention=sr.Attention()))
    seen = {routing_hash(routed)}
    parameters = routed.noise_parameters()
    for parameter in parameters.values():
        parameter.view(-1)[-1] += 1e-3
        seen.add(routing_hash(routed))
    assert len(seen) == len(parameters) + 1


def test_the_routing_hash_survives_save_and_load_and_knows_nothing_of_the_weights(routed, tmp_path):
    routed.noise_parameters()["structural.sigma"].mul_(2)
    routed.save_pretrained(tmp_path)
    other = llama()
    with torch.no_grad():
        other.lm_head.weight.mul_(2)
    assert routing_hash(sr.RoutedModel.from_pretrained(other, tmp_path)) == routing_hash(routed)


# --- replays


def mismatch(routed: sr.RoutedModel, receipt: Receipt, **arguments) -> str:
    """The one warning that the replay gives."""
    with pytest.warns(ReplayMismatch) as warned:
        write(routed, paths=[receipt], **arguments)
    (message,) = [str(w.message) for w in warned if w.category is ReplayMismatch]
    assert message.startswith(f"path {receipt.path} is replayed under other circumstances: ")
    return message


def test_a_replay_under_equal_circumstances_is_silent_and_gives_the_text_again(routed):
    for sampling in ({}, {"do_sample": True, "temperature": 0.9}):
        out = write(routed, paths=3, **sampling)
        carried = Receipt.from_dict(json.loads(json.dumps(out.receipts[2].to_dict())))
        for receipt in (out.receipts[2], carried):  # warnings are errors here
            assert torch.equal(write(routed, paths=[receipt], **sampling).sequences, out.sequences[2:])


def test_a_replay_by_a_twin_in_another_place_is_silent(routed, tmp_path):
    out = write(routed)
    routed.save_pretrained(tmp_path)
    twin = sr.RoutedModel.from_pretrained(llama(), tmp_path)
    assert torch.equal(write(twin, paths=out.receipts).sequences, out.sequences)


@pytest.mark.parametrize(
    ("arguments", "difference"),
    [
        ({"max_new_tokens": 4}, "decoding was {'max_new_tokens': 3}, now {'max_new_tokens': 4}"),
        ({"do_sample": True}, "'do_sample': True"),
        ({"repetition_penalty": 1.5}, "'repetition_penalty': 1.5"),
        ({"eos_token_id": 5}, "'eos_token_id': 5"),
    ],
)
def test_a_replay_with_other_settings_is_warned_about_by_name(routed, arguments, difference):
    message = mismatch(routed, write(routed).receipts[0], **arguments)
    assert difference in message
    assert message.count(" was ") == 1


def test_a_replay_from_another_start_is_warned_about(routed):
    receipt = write(routed).receipts[0]
    with pytest.warns(ReplayMismatch, match="start was 5, now 3"):
        routed.generate(IDS[:, :4], paths=[receipt], max_new_tokens=3)


def test_a_replay_with_another_routing_is_warned_about(routed):
    receipt = write(routed).receipts[0]
    routed.noise_parameters()["structural.mu"].add_(0.1)
    assert f"routing was {receipt.routing!r}, now" in mismatch(routed, receipt)


def test_a_replay_by_another_model_or_dtype_is_warned_about(routed):
    receipt = write(routed).receipts[0]
    other = sr.route(llama(torch.bfloat16), routed.config)
    message = mismatch(other, receipt)
    assert f"model was {receipt.model!r}, now" in message
    assert "dtype was 'float32', now 'bfloat16'" in message
    assert "routing was" not in message


@pytest.mark.parametrize(("name", "value"), [("noise_version", 2), ("engine", "vllm 0.32.0")])
def test_a_receipt_of_another_noise_version_or_engine_is_warned_about(routed, name, value):
    receipt = dataclasses.replace(write(routed).receipts[0], **{name: value})
    assert f"{name} was {value!r}, now" in mismatch(routed, receipt)


def test_each_receipt_of_a_mixed_list_is_compared_for_itself(routed):
    out = write(routed, paths=3)
    stale = dataclasses.replace(out.receipts[1], engine="another engine")
    with pytest.warns(ReplayMismatch) as warned:
        again = write(routed, paths=[out.paths[0], stale, out.receipts[2].path])
    assert len(warned) == 1
    assert stale.path in str(warned[0].message)
    assert again.paths == out.paths


def test_the_warning_points_at_the_caller_s_line(routed):
    stale = dataclasses.replace(write(routed).receipts[0], engine="another engine")
    with pytest.warns(ReplayMismatch) as warned:
        routed.generate(IDS, paths=[stale], max_new_tokens=3)
    assert warned[0].filename == __file__
