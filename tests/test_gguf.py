"""Control vectors: what the file holds, and that it is what the engine adds."""

from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from torch import Tensor

import stochroute as sr
from families import FAMILIES, HIDDEN
from matrix import random_ids
from stochroute.config import Schedule
from stochroute.generation.receipts import fingerprint, routing_hash
from stochroute.integrations.gguf import control_vectors, fix_scale, model_hint, write_control_vector
from stochroute.noise import SHARED_LAYER, Kind, key_words, vector_noise

PATH = 0x00C0FFEE00C0FFEE
LAYERS = (1, 2)
STRENGTHS = (0.3, 0.5)
ROWS = random_ids(6, 9).tolist()


def routing(span: str = "all", **settings: Any) -> sr.RoutingConfig:
    defaults = {"layers": LAYERS, "strength": STRENGTHS, "scale": "absolute"}
    return sr.RoutingConfig(structural=sr.Structural(**{**defaults, **settings}), span=span)


def routed_llama(config: sr.RoutingConfig | None = None, dtype: torch.dtype = torch.float64) -> sr.RoutedModel:
    return sr.route(FAMILIES["llama"].build(dtype), config or routing())


def greedy_with(model: Any, vectors: dict[int, Tensor], prompt: Tensor, new: int) -> list[int]:
    """What the clean model writes with the vectors added after its blocks, as llama.cpp adds them."""
    hooks = [
        model.model.layers[layer].register_forward_hook(lambda m, a, output, v=vector: output + v.to(output.dtype))
        for layer, vector in vectors.items()
    ]
    try:
        return model.generate(prompt, max_new_tokens=new, do_sample=False)[0, prompt.shape[1] :].tolist()
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("form", ["shared", "independent"])
def test_the_vectors_are_the_noise_times_the_strength(form):
    vectors = control_vectors(routed_llama(routing(form=form)), PATH)
    assert list(vectors) == list(LAYERS)
    for (layer, vector), strength in zip(vectors.items(), STRENGTHS, strict=True):
        site = SHARED_LAYER if form == "shared" else layer
        xi = vector_noise(key_words([PATH])[:, None], HIDDEN, torch.zeros(1, 1, dtype=torch.int64), site, Kind.FFN)
        assert vector.dtype == torch.float32
        torch.testing.assert_close(vector, strength * xi[0, 0])


@pytest.mark.parametrize("form", ["shared", "latent"])
def test_learned_parameters_are_in_the_vectors(form):
    routed = routed_llama(routing(form=form))
    plain = control_vectors(routed, PATH)
    routed.structural.mu.data.fill_(0.25)
    for (layer, vector), strength in zip(control_vectors(routed, PATH).items(), STRENGTHS, strict=True):
        torch.testing.assert_close(vector, plain[layer] + strength * 0.25)


def test_the_file_has_the_keys_and_tensors_of_a_control_vector(tmp_path):
    routed = routed_llama()
    vectors = write_control_vector(tmp_path / "path.gguf", routed, PATH)
    reader = GGUFReader(tmp_path / "path.gguf")
    contents = {name: field.contents() for name, field in reader.fields.items()}
    assert contents["general.architecture"] == "controlvector"
    assert contents["controlvector.model_hint"] == "llama"
    assert contents["controlvector.layer_count"] == 2
    assert contents["stochroute.path"] == "00c0ffee00c0ffee"
    assert contents["stochroute.routing"] == routing_hash(routed)
    assert contents["stochroute.model"] == fingerprint(routed.model)
    assert [tensor.name for tensor in reader.tensors] == ["direction.1", "direction.2"]
    for tensor, vector in zip(reader.tensors, vectors.values(), strict=True):
        assert tensor.tensor_type == GGMLQuantizationType.F32
        assert tensor.shape.tolist() == [HIDDEN]
        assert torch.equal(torch.from_numpy(tensor.data.copy()), vector)
    assert [file.name for file in tmp_path.iterdir()] == ["path.gguf"]


@pytest.mark.parametrize("form", ["shared", "independent", "latent"])
def test_a_file_read_back_makes_the_clean_model_write_the_paths_text(tmp_path, form):
    routed = routed_llama(routing(form=form, strength=1.0))
    write_control_vector(tmp_path / "path.gguf", routed, PATH)
    tensors = GGUFReader(tmp_path / "path.gguf").tensors
    read = {int(t.name.removeprefix("direction.")): torch.from_numpy(t.data.copy()) for t in tensors}
    prompt = random_ids(1, 5)
    walked = routed.generate(prompt, paths=[PATH], max_new_tokens=24).generated[0].tolist()
    assert greedy_with(routed.model, read, prompt, 24) == walked
    assert greedy_with(routed.model, {}, prompt, 24) != walked


@pytest.mark.parametrize("family", ["qwen3", "gpt_neox", "phi", "cohere", "mixtral"])
def test_families_that_add_the_feed_forward_output_as_it_is_can_be_written(family):
    model = FAMILIES[family].build(torch.float32)
    assert list(control_vectors(sr.route(model, routing()), PATH)) == list(LAYERS)


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "olmo2"])
def test_families_that_rescale_it_are_refused(family):
    routed = sr.route(FAMILIES[family].build(torch.float32), routing())
    with pytest.raises(ValueError, match=r"model type '\w+': vectors added after the blocks do not do what the path"):
        control_vectors(routed, PATH)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (routing(hold=1), "hold=1 draws new noise on the way"),
        (routing(schedule=Schedule("linear", 8)), "schedule='linear' fades"),
        (routing(scale="relative"), r"scale='relative' follows the activation .* fix it on given texts with fix_scale"),
        (routing(span="generated"), "span='generated' leaves the prompt clean"),
        (routing(layers="all", strength=0.3), "layer 0 carries noise, .* leave it out of layers"),
        (routing(strength=0.0), "every strength of the routing is 0"),
        (sr.RoutingConfig(structural=None, span="all"), "structural is off"),
        (sr.RoutingConfig(attention=sr.Attention(), span="all"), "attention noise changes with every token"),
    ],
)
def test_what_a_control_vector_cannot_be_is_refused_with_the_remedy(config, words, tmp_path):
    routed = routed_llama(config)
    with pytest.raises(ValueError, match=words):
        write_control_vector(tmp_path / "path.gguf", routed, PATH)
    assert not list(tmp_path.iterdir())


def test_layer_0_at_strength_0_is_left_out():
    assert list(control_vectors(routed_llama(routing(layers=(0, 1, 2), strength=(0.0, 0.3, 0.5))), PATH)) == [1, 2]


def test_the_model_is_afterwards_what_it_was(tmp_path):
    routed = routed_llama()
    routed.model.train()
    hooks = [len(m._forward_hooks) for m in routed.model.modules()]
    before = routed.model(random_ids(2, 5)).logits
    write_control_vector(tmp_path / "path.gguf", routed, PATH)
    assert torch.equal(routed.model(random_ids(2, 5)).logits, before)
    assert [len(m._forward_hooks) for m in routed.model.modules()] == hooks
    assert routed.model.training


def test_a_file_that_cannot_be_finished_leaves_the_earlier_one(tmp_path, monkeypatch):
    file = tmp_path / "path.gguf"
    write_control_vector(file, routed_llama(), PATH)
    earlier = file.read_bytes()

    def full(self):
        raise OSError("no space left on device")

    monkeypatch.setattr(GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(OSError, match="no space left"):
        write_control_vector(file, routed_llama(), PATH + 1)
    assert file.read_bytes() == earlier
    assert list(tmp_path.iterdir()) == [file]


# ---- a fixed scale ----


def test_a_fixed_scale_is_the_strength_times_the_median_size_of_the_activation():
    routed = routed_llama(routing(scale="relative", strength=(0.1, 0.2)))
    routed.structural.mu.data.fill_(0.5)
    sizes: dict[int, list[float]] = {1: [], 2: []}
    model = FAMILIES["llama"].build()
    for layer, found in sizes.items():
        model.model.layers[layer].mlp.register_forward_hook(
            lambda m, a, output, found=found: found.extend(output[0].square().mean(-1).sqrt().tolist())
        )
    for row in ROWS:
        model(torch.tensor([row]))
    fixed = fix_scale(routed, ROWS)
    assert fixed.rms == {layer: pytest.approx(sorted(found)[(len(found) - 1) // 2]) for layer, found in sizes.items()}
    structural = fixed.routed.config.structural
    assert structural.scale == "absolute"
    assert structural.strength == (
        pytest.approx(0.1 * fixed.rms[1], rel=1e-3),
        pytest.approx(0.2 * fixed.rms[2], rel=1e-3),
    )
    assert torch.equal(fixed.routed.structural.mu, routed.structural.mu)
    assert list(control_vectors(fixed.routed, PATH)) == [1, 2]


def test_a_fixed_scale_says_what_it_does_to_the_effect():
    fixed = fix_scale(routed_llama(routing(scale="relative", strength=0.2)), ROWS)
    assert 0.3 < fixed.absolute_nats / fixed.relative_nats < 3  # the sizes of activations differ by less in this model
    assert fixed.absolute_nats != fixed.relative_nats


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (routing(), "is not relative: there is nothing to fix"),
        (routing(scale="relative", hold=2), "hold=2 draws new noise"),
        (routing(scale="relative", strength="auto"), "'auto' is not known yet"),
    ],
)
def test_a_scale_that_cannot_be_fixed_leaves_the_routing_attached(config, words):
    routed = routed_llama(config)
    with pytest.raises(ValueError, match=words):
        fix_scale(routed, ROWS)
    with pytest.raises(ValueError, match="routed already"):
        sr.route(routed.model)


@pytest.mark.parametrize("rows", [[], [[1, 2], []]])
def test_a_scale_is_not_fixed_on_nothing(rows):
    with pytest.raises(ValueError, match="rows holds no text, or an empty one"):
        fix_scale(routed_llama(routing(scale="relative")), rows)


def test_hints_are_the_names_that_llama_cpp_uses():
    from gguf import MODEL_ARCH_NAMES

    names = set(MODEL_ARCH_NAMES.values())
    assert {f: model_hint(f) for f in FAMILIES if f not in ("opt", "gpt_bigcode") and model_hint(f) not in names} == {}
