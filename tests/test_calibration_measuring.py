"""KL(routed ‖ clean) and transmission of a routing, against torch.distributions row by row."""

import math

import numpy as np
import pytest
import torch

import stochroute as sr
from calibration_runs import PROMPTS, both, model, one_by_one
from matrix import kinds_of, random_ids
from stochroute.calibration import Measured, Sample, divergence, measure


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("llama", "latent-sequence"),
        ("llama", "attention-3"),
        ("gpt2", "mixed"),
        ("gemma3_text", "mixed"),
        ("opt", "independent-1"),
        ("qwen3_moe", "mixed"),
    ],
)
@pytest.mark.parametrize("span", ["generated", "all"])
def test_prompts_of_all_lengths_are_measured_as_if_alone(family: str, kind: str, span: str):
    routed = sr.route(model(family), kinds_of(family, strength=0.5)[kind])
    sample = Sample.along_paths(PROMPTS, span, 18, seed=3)
    found = measure(routed, sample)
    divergences, transmissions = one_by_one(routed, sample)
    torch.testing.assert_close(found.divergence, divergences, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found.transmission, transmissions * 3 / 2, rtol=1e-7, atol=1e-9)
    lengths = torch.tensor([len(row) for row in PROMPTS])
    assert found.positions.tolist() == (lengths - torch.tensor(sample.starts)).tolist()
    assert found.nats("divergence") == pytest.approx(divergences.mean(1).sum().item() / found.positions.sum().item())


@pytest.mark.parametrize("at_once", [1, 97 * 9 * 2, 97 * 9 * 7])
def test_memory_bounds_change_nothing(at_once: int, monkeypatch: pytest.MonkeyPatch):
    routed = sr.route(model(), both())
    sample = Sample.along_paths(PROMPTS, "generated", 30, seed=3)
    whole = measure(routed, sample)
    monkeypatch.setattr(divergence, "_LOGITS_AT_ONCE", at_once)
    shapes = []
    hook = routed.model.register_forward_hook(lambda *args: shapes.append(args[-1].logits.numel()))
    parts = measure(routed, sample)
    hook.remove()
    assert max(shapes) <= max(at_once, 97 * 9)
    for name in ("divergence", "transmission", "positions"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-9, atol=1e-12)


def test_float32_measures_what_float64_does():
    sample = Sample.along_paths(PROMPTS, "generated", 24, seed=3)
    wide, narrow = (measure(sr.route(model().to(dtype), both()), sample) for dtype in (torch.float64, torch.float32))
    assert narrow.nats("divergence") == pytest.approx(wide.nats("divergence"), rel=1e-4)


def test_transmission_is_never_more_than_divergence_and_hardly_depends_on_the_number_of_paths():
    routed = sr.route(model(), both())
    rows = random_ids(24, 9).tolist()
    few, many = (measure(routed, Sample.along_paths(rows, "generated", 24 * k, seed=3)) for k in (3, 60))
    for found in (few, many):
        assert 0 < found.nats("transmission") < found.nats("divergence") * 1.1
    # without K/(K − 1), three paths would be a third short
    assert few.nats("transmission") == pytest.approx(many.nats("transmission"), rel=0.15)


def test_the_interval_is_that_of_a_ratio_of_means_over_prompts():
    stream = np.random.default_rng(5)
    positions = torch.from_numpy(stream.integers(3, 30, 400))
    nats = torch.from_numpy(stream.exponential(0.05, (400, 1)) * stream.exponential(1, (400, 4))) * positions[:, None]
    found = Measured(nats, nats.mean(1), positions)
    mean = found.nats("divergence")
    # the delta method (Cochran 1977, Sampling Techniques, ch. 6)
    residual = nats.mean(1) - mean * positions
    deviation = residual.std().item() / math.sqrt(400) / positions.double().mean().item()
    low, high = found.interval("divergence")
    assert low == pytest.approx(mean - 1.96 * deviation, rel=0.03)
    assert high == pytest.approx(mean + 1.96 * deviation, rel=0.03)
    assert found.interval("divergence") == (low, high)


@pytest.mark.parametrize(
    ("between", "within", "expected"),
    [
        (0.0, 0.5, 16),  # 100 prompts: (0.5 · 1.96 / 0.05)² / 100 = 3.8 paths each; what is drawn is not quite this
        (1.0, 2.0, 4),  # the prompts leave more open than 5 %: paths until they leave no more
        (0.1, 0.1, 2),
    ],
)
def test_paths_are_added_until_the_interval_is_narrow_or_prompts_are_what_is_missing(
    between: float, within: float, expected: int
):
    stream = torch.Generator().manual_seed(0)
    prompts = torch.randn(100, 1, generator=stream, dtype=torch.float64) * between
    nats = 1 + prompts + torch.randn(100, 50, generator=stream, dtype=torch.float64) * within
    found = Measured(nats * 10, nats.mean(1) * 10, torch.full((100,), 10))
    assert expected / 4 <= found.paths_needed(0.05) <= expected * 1.5


def test_two_paths_always_and_more_pairs_begin_with_the_same_paths():
    few, many = (Sample.along_paths(PROMPTS, "all", pairs, seed=3) for pairs in (2, 60))
    assert few.pairs == 12
    assert many.pairs == 60
    assert [ids[:2] for ids in many.paths] == list(few.paths)
    assert len({path for ids in many.paths for path in ids}) == 60


def test_noise_begins_in_the_middle_of_a_prompt_or_at_its_beginning():
    assert Sample.along_paths(PROMPTS, "generated", 2, seed=0).starts == (4, 1, 3, 0, 4, 2)
    assert Sample.along_paths(PROMPTS, "all", 2, seed=0).starts == (0,) * 6


def test_a_thinned_sample_keeps_prompts_and_paths_together():
    whole = Sample.along_paths(PROMPTS, "generated", 60, seed=3)
    thin = whole.thinned(20)
    assert thin.pairs == 20
    for row, start, paths in zip(thin.rows, thin.starts, thin.paths, strict=True):
        index = whole.rows.index(row)
        assert (start, paths) == (whole.starts[index], whole.paths[index])
    assert len(whole.thinned(1).rows) >= 2
