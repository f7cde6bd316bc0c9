"""The entry of `additional_config` that gives a vLLM engine its routing, the keys of its prefix cache, and what the
plugin refuses; none of it needs vLLM."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import stochroute as sr
from routing_folders import CONFIGS, llama, rewrite
from stochroute.config import Schedule
from stochroute.engines.vllm import additional_config
from stochroute.engines.vllm.prefix_cache import keyed_by_path
from stochroute.engines.vllm.requests import Walk, admit
from stochroute.engines.vllm.routing import KEY, EngineRouting, routing_of
from stochroute.engines.vllm.rows import StepPlaces
from stochroute.engines.vllm.support import check_engine, check_version
from stochroute.routing.structural import StructuralNoise
from stochroute.routing.walk import Context, Passage
from stochroute.routing.walk import Walk as BatchWalk

WALKABLE = ("default", "independent", "latent")


@pytest.mark.parametrize("name", WALKABLE)
def test_an_entry_survives_json_and_gives_the_routing_back(name):
    entry = json.loads(json.dumps(additional_config(CONFIGS[name])))
    assert routing_of(entry) == EngineRouting(CONFIGS[name])


def test_a_saved_folder_is_named_with_the_hash_of_its_parameters(tmp_path):
    sr.route(llama(), CONFIGS["independent"]).save_pretrained(tmp_path)
    entry = json.loads(json.dumps(additional_config(tmp_path)))
    found = routing_of(entry)
    assert found.config == CONFIGS["independent"]
    assert found.folder == str(tmp_path)
    assert found.sha256 == json.loads((tmp_path / "routing.json").read_text())["parameters_sha256"]
    assert routing_of({KEY: {"folder": str(tmp_path)}}) == found  # as a person may write it


def test_a_folder_that_has_changed_since_is_refused(tmp_path):
    sr.route(llama(), CONFIGS["independent"]).save_pretrained(tmp_path)
    entry = additional_config(tmp_path)
    rewrite(tmp_path, lambda record: record["routing"]["structural"].update(hold=5))
    with pytest.raises(ValueError, match="has changed"):
        routing_of(entry)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (CONFIGS["attention"], "attention routing is not offered on vLLM"),
        (CONFIGS["both"], "attention routing is not offered on vLLM"),
        (sr.RoutingConfig(experts=sr.Experts()), "expert routing is not offered on vLLM"),
        (CONFIGS["nothing"], "no structural noise"),
        (sr.RoutingConfig(structural=sr.Structural(strength="auto")), "calibrate"),
    ],
)
def test_what_vllm_cannot_walk_is_refused(config, reason):
    with pytest.raises(ValueError, match=reason):
        additional_config(config)


@pytest.mark.parametrize("entry", [None, {}, "folder", {"strength": 1}, {"config": {}, "hold": 1}])
def test_a_malformed_entry_is_refused(entry):
    with pytest.raises(ValueError, match="is no routing"):
        routing_of({KEY: entry})


def test_an_entry_of_another_noise_version_is_refused():
    entry = additional_config(CONFIGS["default"])
    entry[KEY]["noise_version"] = 2
    with pytest.raises(ValueError, match="install the same stochroute"):
        routing_of(entry)


def test_an_engine_without_an_entry_has_no_routing():
    assert routing_of({}) is routing_of(None) is routing_of({"other": 1}) is None


# -- prefix cache


def extra_keys_of(fields, start, end, others=None):
    request = SimpleNamespace(sampling_params=SimpleNamespace(extra_args=fields))
    keys, multimodal = keyed_by_path(lambda request, start, end, multimodal: (others, multimodal + 1))(
        request, start, end, 4
    )
    assert multimodal == 5
    return keys


def test_blocks_before_the_noise_are_keyed_as_a_plain_requests():
    walk = admit({"stochroute_path": "00c0ffee00c0ffee"}, 1, 41, sr.RoutingConfig())  # noise from position 40
    for start, end in ((0, 16), (16, 32), (24, 40)):
        assert extra_keys_of(walk, start, end) == extra_keys_of(None, start, end) is None
    assert extra_keys_of(walk, 32, 48) is not None


def test_noised_blocks_are_keyed_by_path_and_start_beside_what_was_there():
    def key(path, start):
        return extra_keys_of({"stochroute_path": path, "stochroute_start": start}, 0, 16, ("salt",))

    keys = {key(path, start) for path in ("0" * 16, "f" * 16) for start in (0, 3)}
    assert len(keys) == 4
    assert all(k[0] == "salt" and len(k) == 2 for k in keys)
    assert key("0" * 16, 16) == ("salt",)


# -- the places of a step


STRUCTURAL = {
    "sequence": sr.Structural(),
    "hold and schedule": sr.Structural(form="independent", hold=3, schedule=Schedule("cosine", 40)),
    "token": sr.Structural(hold=1, schedule=Schedule("linear", 40)),
    "latent": sr.Structural(form="latent", rank=5, hold=2),
    "latent, spread": sr.Structural(form="latent", rank=8, hold=2, spread=True),
}


@pytest.mark.parametrize("name", STRUCTURAL)
def test_tokens_laid_end_to_end_get_the_noise_of_their_own_sequence(name):
    noise = StructuralNoise(STRUCTURAL[name], Context(), [0, 1, 2], 32, 3)
    walks = [Walk(2**64 - 1, 2), None, Walk(7, 0), None]
    counts, firsts = [5, 3, 1, 2], [0, 4, 11, 0]
    step = StepPlaces(noise, 40, torch.device("cpu"))
    step.fill([Walk(1, 0)], [30], torch.arange(40))  # what was there before must not shine through
    positions = torch.cat([torch.arange(f, f + c) for f, c in zip(firsts, counts, strict=True)])
    step.fill(walks, counts, positions)
    step.fill([None], [40], positions)
    # the same requests again, some tokens on, and another step in between
    firsts = [first + 3 for first in firsts]
    positions += 3
    step.fill(walks, counts, torch.nn.functional.pad(positions, (0, 29), value=6))
    states = torch.randn(40, 32, generator=torch.Generator().manual_seed(0))
    first_layer = noise.parameters_by_row()[0]
    out = noise.noised(states[:, None], first_layer, step.places)[:, 0]

    begin = 0
    for walk, count, first in zip(walks, counts, firsts, strict=True):
        rows = slice(begin, begin + count)
        if walk is None:
            assert torch.equal(out[rows], states[rows])
        else:
            batch = BatchWalk.along([walk.path], [walk.start], torch.device("cpu"))
            passage = Passage(batch, torch.arange(first, first + count)[None])
            alone = noise.noised(states[None, rows], first_layer, noise.places(passage))[0]
            torch.testing.assert_close(out[rows], alone, rtol=0, atol=1e-6 if "latent" in name else 0)
            assert not torch.equal(out[rows], states[rows])
        begin += count
    assert torch.equal(out[begin:], states[begin:])

    step.fill([None], [3], torch.arange(40))
    assert torch.equal(noise.noised(states[:, None], first_layer, step.places)[:, 0], states)


# -- what is refused


@pytest.mark.parametrize("version", ["0.31.2", "0.33.0", "0.320.0", "1.0", "dev", "0.3.2"])
def test_an_unknown_vllm_is_refused(version):
    with pytest.raises(RuntimeError, match=f"this is {version}"):
        check_version(version)


@pytest.mark.parametrize("version", ["0.32.0", "0.32.1", "0.32.0+cpu"])
def test_a_known_vllm_is_taken(version):
    check_version(version)


ENGINE = {
    "use_v2_model_runner": False,
    "speculative_config": None,
    "kv_transfer_config": None,
    "lora_config": None,
    "model_config": SimpleNamespace(
        runner_type="generate", is_encoder_decoder=False, is_multimodal_model=False, uses_mrope=False
    ),
    "parallel_config": SimpleNamespace(
        worker_cls="vllm.v1.worker.gpu_worker.Worker",
        pipeline_parallel_size=1,
        decode_context_parallel_size=1,
        prefill_context_parallel_size=1,
        use_ubatching=False,
    ),
    "cache_config": SimpleNamespace(kv_offloading_size=None),
}
REFUSED = {
    "Model Runner V2": {"use_v2_model_runner": True},
    "speculative decoding": {"speculative_config": object()},
    "key-value transfer": {"kv_transfer_config": object()},
    "LoRA": {"lora_config": object()},
    "the worker plugin.Worker": {"parallel_config": {"worker_cls": "plugin.Worker"}},
    "pipeline parallelism": {"parallel_config": {"pipeline_parallel_size": 2}},
    "context parallelism": {"parallel_config": {"decode_context_parallel_size": 2}},
    "dual batch overlap": {"parallel_config": {"use_ubatching": True}},
    "offloading": {"cache_config": {"kv_offloading_size": 1.0}},
    "pooling": {"model_config": {"runner_type": "pooling"}},
    "multimodal": {"model_config": {"uses_mrope": True}},
}


def test_an_ordinary_engine_is_taken():
    check_engine(SimpleNamespace(**ENGINE))


@pytest.mark.parametrize("reason", REFUSED)
def test_an_engine_on_which_paths_were_never_tested_is_refused(reason):
    changes = {
        name: SimpleNamespace(**{**vars(ENGINE[name]), **change}) if isinstance(change, dict) else change
        for name, change in REFUSED[reason].items()
    }
    with pytest.raises(ValueError, match=reason):
        check_engine(SimpleNamespace(**{**ENGINE, **changes}))


def test_a_strength_for_each_layer_reaches_its_own_layer():
    config = replace(STRUCTURAL["sequence"], layers=(0, 2), strength=(0.0, 0.5))
    noise = StructuralNoise(config, Context(), [0, 1, 2], 32, 3)
    assert [noise.layers[row] for row in noise.audible] == [2]
