"""Routing beside other tools: adapters, quantised weights, device maps, copies, and several models at once."""

import copy
import importlib.util
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import stochroute as sr
from families import FAMILIES, HIDDEN, VOCABULARY
from matrix import PATHS, assert_differ, assert_same, kinds_of, logits_of, random_ids, stock_model

# PEFT asks transformers under a name that newer versions deprecate
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")

IDS = random_ids(3, 10)
MIXED = kinds_of("llama")["mixed"]


def fresh(family: str = "llama", dtype: torch.dtype = torch.float64) -> Any:
    return copy.deepcopy(stock_model(family, dtype))


@torch.no_grad()
def walk(routed: sr.RoutedModel, paths=PATHS, model=None) -> torch.Tensor:
    with routed.follow(paths):
        return logits_of(routed.model if model is None else model, IDS)


def adapted(model: Any) -> Any:
    """A PEFT model with a LoRA adapter that does something."""
    peft = pytest.importorskip("peft")
    stream = torch.Generator().manual_seed(2)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"])).eval()
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=stream, dtype=torch.float64) * 0.3)
    return wrapped


@torch.no_grad()
def test_routing_on_top_of_an_adapter_and_under_it_are_one_model():
    wrapped = adapted(fresh())
    above = walk(sr.route(wrapped, MIXED))
    routed = sr.route(fresh(), MIXED)
    below = walk(routed, model=adapted(routed.model))
    assert_same(above, below)
    assert_differ(above, walk(sr.route(fresh(), MIXED)))


@torch.no_grad()
def test_an_adapted_routed_model_generates_trains_and_detaches():
    wrapped = adapted(fresh())
    original = logits_of(wrapped, IDS)
    routed = sr.route(wrapped, MIXED)
    out = routed.generate(input_ids=IDS[:1], paths=3, seed=7, max_new_tokens=5)
    again = routed.generate(input_ids=IDS[:1], paths=[out.paths[2]], max_new_tokens=5)
    assert torch.equal(again.sequences[0], out.sequences[2])
    assert len({tuple(row) for row in out.sequences.tolist()}) == 3
    with torch.enable_grad(), routed.follow(PATHS):
        routed.model(input_ids=IDS, labels=IDS).loss.backward()
    lora = [p for name, p in wrapped.named_parameters() if "lora_B" in name]
    assert all(p.grad.abs().sum() > 0 for p in lora)
    assert routed.detach() is wrapped
    assert torch.equal(logits_of(wrapped, IDS), original)


@torch.no_grad()
def test_an_adapter_that_is_switched_off_leaves_the_routed_base_model():
    wrapped = adapted(fresh())
    routed = sr.route(wrapped, MIXED)
    with wrapped.disable_adapter():
        assert_same(walk(routed), walk(sr.route(fresh(), MIXED)))


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
@pytest.mark.filterwarnings("ignore:::torchao", "ignore::DeprecationWarning", "ignore::FutureWarning")
@torch.no_grad()
def test_weights_quantised_to_int8_by_torchao_can_be_routed():
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = fresh(dtype=torch.float32)
    quantize_(model, Int8WeightOnlyConfig())
    original = logits_of(model, IDS)
    assert_differ(original, logits_of(stock_model("llama", torch.float32), IDS) * 1.05)  # it is still about the model
    routed = sr.route(model, MIXED)
    assert torch.equal(logits_of(model, IDS), original)
    along = walk(routed)
    assert_differ(along, original)
    assert_same(walk(routed, PATHS[:1] * 3)[0], along[0])
    out = routed.generate(input_ids=IDS[:1], paths=2, seed=7, max_new_tokens=5)
    again = routed.generate(input_ids=IDS[:1], paths=[out.paths[1]], max_new_tokens=5)
    assert torch.equal(again.sequences[0], out.sequences[1])
    routed.detach()
    assert torch.equal(logits_of(model, IDS), original)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_oss"])
@torch.no_grad()
def test_a_deep_copy_of_a_routed_model_lives_its_own_life(family):
    routed = sr.route(fresh(family), kinds_of(family)["mixed"])
    original, along = logits_of(routed.model, IDS), walk(routed)
    twin = copy.deepcopy(routed)
    assert torch.equal(walk(twin), along)
    with twin.follow(PATHS):  # the copy's path is not the original's
        assert torch.equal(logits_of(routed.model, IDS), original)
    with routed.follow(PATHS):
        assert torch.equal(logits_of(twin.model, IDS), original)
        with twin.follow(PATHS[::-1]):
            assert torch.equal(logits_of(routed.model, IDS), along)
    for parameter in twin.model.parameters():
        parameter.zero_()
    twin.detach()
    assert torch.equal(walk(routed), along)
    assert torch.equal(logits_of(routed.detach(), IDS), original)


@torch.no_grad()
def test_two_models_with_different_routings_do_not_disturb_each_other():
    configs = [kinds_of("llama")["shared-3"], kinds_of("gpt_oss")["mixed"]]
    models = [fresh("llama"), fresh("gpt_oss")]
    originals = [logits_of(model, IDS) for model in models]
    apart = [walk(sr.route(copy.deepcopy(m), c)) for m, c in zip(models, configs, strict=True)]
    first, second = (sr.route(m, c) for m, c in zip(models, configs, strict=True))
    with first.follow(PATHS):
        assert torch.equal(logits_of(models[1], IDS), originals[1])
        with second.follow(PATHS):
            assert torch.equal(logits_of(models[0], IDS), apart[0])
            assert torch.equal(logits_of(models[1], IDS), apart[1])
        assert torch.equal(logits_of(models[1], IDS), originals[1])
    first.detach()
    assert torch.equal(walk(second), apart[1])
    assert torch.equal(logits_of(models[0], IDS), originals[0])


@torch.no_grad()
def test_two_models_of_one_shared_config_object_are_routed_apart():
    config = FAMILIES["llama"].config()
    models = [AutoModelForCausalLM.from_config(config).eval() for _ in range(2)]
    assert models[0].config is models[1].config
    originals = [logits_of(model, IDS) for model in models]
    routed = sr.route(models[0], kinds_of("llama")["attention-1"])
    with routed.follow(PATHS):
        assert_differ(logits_of(models[0], IDS), originals[0])
        assert torch.equal(logits_of(models[1], IDS), originals[1])
    assert torch.equal(logits_of(models[1], IDS), originals[1])
    second = sr.route(models[1], kinds_of("llama")["attention-3"])
    with routed.follow(PATHS), second.suspended():
        assert torch.equal(logits_of(models[1], IDS), originals[1])
    second.detach()
    routed.detach()
    assert models[0].config is config
    assert models[1].config is config


def test_routing_a_routed_model_is_a_clear_error_and_detaching_makes_room():
    model = fresh()
    routed = sr.route(model, MIXED)
    with pytest.raises(ValueError, match="routed already"):
        sr.route(model, MIXED)
    assert_differ(walk(routed), logits_of(model, IDS).detach())
    routed.detach()
    sr.route(model, MIXED).detach()


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}], ids=["auto", "cpu"])
@torch.no_grad()
def test_a_model_loaded_with_a_device_map_can_be_routed(tmp_path, device_map):
    pytest.importorskip("accelerate")
    model = fresh(dtype=torch.float32)
    expected = walk(sr.route(copy.deepcopy(model), MIXED))
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, device_map=device_map)
    original = logits_of(loaded, IDS)
    routed = sr.route(loaded, MIXED)
    assert_same(walk(routed), expected)
    out = routed.generate(input_ids=IDS[:1], paths=2, seed=7, max_new_tokens=4)
    assert out.sequences.shape == (2, 14)
    assert torch.equal(logits_of(routed.detach(), IDS), original)


@pytest.mark.parametrize("family", ["llama", "gpt_oss"])
@torch.no_grad()
def test_a_model_dispatched_with_accelerate_hooks_can_be_routed(family, tmp_path):
    """Offloading keeps weights off their modules between calls, and puts a forward of its own on each."""
    accelerate = pytest.importorskip("accelerate")
    model = fresh(family)
    expected = walk(sr.route(copy.deepcopy(model), kinds_of(family)["mixed"]))
    dispatched = accelerate.dispatch_model(model, {"": "cpu"}, main_device="cpu", force_hooks=True)
    original = logits_of(dispatched, IDS)
    routed = sr.route(dispatched, kinds_of(family)["mixed"])
    assert_same(walk(routed), expected)
    assert torch.equal(logits_of(routed.detach(), IDS), original)


OWN_ATTENTION = {
    "gptj": {"n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "vocab_size": VOCABULARY},
    "bloom": {"hidden_size": HIDDEN, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY},
    "falcon": {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCABULARY},
    "mpt": {"d_model": HIDDEN, "n_layers": 2, "n_heads": 4, "vocab_size": VOCABULARY},
    "gpt_neo": {
        "hidden_size": HIDDEN,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "vocab_size": VOCABULARY,
    },
}


@pytest.mark.parametrize("model_type", OWN_ATTENTION)
@torch.no_grad()
def test_a_model_with_attention_code_of_its_own_refuses_attention_noise_and_takes_structural(model_type):
    settings = {"bos_token_id": 1, "eos_token_id": 2, **OWN_ATTENTION[model_type]}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings)).eval()
    original, before = model(input_ids=IDS).logits, {n: list(vars(m)) for n, m in model.named_modules()}
    with pytest.raises(ValueError, match="attention=None"):
        sr.route(model, MIXED)
    assert {n: list(vars(m)) for n, m in model.named_modules()} == before
    assert torch.equal(model(input_ids=IDS).logits, original)
    routed = sr.route(model, kinds_of("llama")["shared-3"])
    with routed.follow(PATHS):
        assert (model(input_ids=IDS).logits - original).abs().max() > 1e-3 * original.abs().max()
    assert torch.equal(routed.detach()(input_ids=IDS).logits, original)


@pytest.mark.parametrize("config", [None, kinds_of("llama")["attention-1"]], ids=["default", "attention"])
def test_an_encoder_decoder_model_is_a_clear_error(config):
    from transformers import T5Config, T5ForConditionalGeneration

    settings: dict[str, Any] = {
        "d_model": HIDDEN,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "vocab_size": VOCABULARY,
    }
    model = T5ForConditionalGeneration(T5Config(**settings))
    with pytest.raises(ValueError, match="encoder-decoder"):
        sr.route(model, config)


@torch.no_grad()
def test_the_models_state_dict_and_saved_weights_know_nothing_of_the_routing(tmp_path):
    model = fresh()
    names = list(model.state_dict())
    sr.route(model, MIXED)
    assert list(model.state_dict()) == names
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert_same(logits_of(loaded, IDS), logits_of(stock_model("llama"), IDS))
    assert loaded.config._attn_implementation == stock_model("llama").config._attn_implementation


@torch.no_grad()
def test_a_model_saved_while_a_path_is_followed_does_not_name_our_attention(tmp_path):
    routed = sr.route(fresh(), MIXED)
    with routed.follow(PATHS):
        routed.model.save_pretrained(tmp_path)
    assert "stochroute" not in (tmp_path / "config.json").read_text()
