"""Training along a path: gradient checkpointing is exact, gradients reach the noise, and no global generator is
read or moved."""

import copy
import random

import numpy as np
import pytest
import torch

import stochroute as sr
from families import FAMILIES
from matrix import (
    PATHS,
    assert_same,
    every_family,
    every_pair,
    kinds_of,
    logits_of,
    padded,
    random_ids,
    routed_model,
    stock_model,
)

IDS, MASK = padded(random_ids(3, 10), [10, 6, 8], 10, side="right")
LABELS = IDS.masked_fill(MASK == 0, -100)


def gradients_of(routed: sr.RoutedModel, **context) -> dict[str, torch.Tensor]:
    """The gradients of model and noise after one training step along three paths, by parameter name."""
    routed.train()
    routed.zero_grad()
    with routed.follow(PATHS, start=[0, 2, 1]):
        loss = routed.model(input_ids=IDS, attention_mask=MASK, labels=LABELS, use_cache=False).loss
        loss.backward()
    routed.eval()
    return {name: p.grad.clone() for name, p in routed.named_parameters() if p.grad is not None}


def checkpoint(model, reentrant: bool = False) -> None:
    """Turns gradient checkpointing on, under the name that this version of transformers prefers."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})


@pytest.fixture
def trained(request):
    """A copy of its own of the family's model, routed, since checkpointing and gradients leave traces."""
    family, kind = request.param
    return sr.route(copy.deepcopy(stock_model(family)), kinds_of(family)[kind])


every_mixed = pytest.mark.parametrize("trained", [(f, "mixed") for f in FAMILIES], ids=FAMILIES, indirect=True)


@every_mixed
@pytest.mark.parametrize("reentrant", [False, True], ids=["saved tensors", "reentrant"])
def test_gradient_checkpointing_gives_the_same_gradients_bit_for_bit(trained, reentrant):
    plain = gradients_of(trained)
    checkpoint(trained.model, reentrant=reentrant)
    if reentrant:  # without it no gradient would enter the first checkpointed layer
        trained.model.enable_input_require_grads()
    recomputed = gradients_of(trained)
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        assert torch.equal(recomputed[name], gradient), name


@every_mixed
def test_gradients_reach_every_learned_part_of_the_noise(trained):
    gradients = gradients_of(trained)
    noise = {f"{kind}.{name}" for kind in ("structural", "attention") for name in ("sigma",)} | {"structural.mu"}
    if trained.experts is not None:
        noise |= {"experts.sigma"}
    for name in noise:
        assert gradients[name].isfinite().all()
        assert gradients[name].abs().sum() > 0, name


@pytest.mark.parametrize("trained", [("llama", "latent-3"), ("gpt2", "latent-sequence")], indirect=True)
def test_gradients_reach_the_latent_basis(trained):
    assert gradients_of(trained)["structural.basis"].abs().amin(-1).gt(0).any()


NARROW_FREE = ["gpt2", "gpt_neox", "opt", "phi", "starcoder2"]  # families that compute in float64 throughout


@pytest.mark.parametrize("trained", [(f, "mixed") for f in NARROW_FREE], ids=NARROW_FREE, indirect=True)
def test_gradients_are_those_of_finite_differences(trained):
    """An oracle for the noise and the attention that the backward pass computes again."""
    trained.double()
    stream = torch.Generator().manual_seed(5)
    weights = torch.randn(3, 10, 97, generator=stream, dtype=torch.float64) * MASK[..., None]
    directions = [torch.randn(p.shape, generator=stream, dtype=torch.float64) for p in trained.parameters()]

    def loss() -> torch.Tensor:
        with trained.follow(PATHS, start=[0, 2, 1]):
            return (logits_of(trained.model, IDS, MASK) * weights).sum()

    @torch.no_grad()
    def loss_at(step: float) -> float:
        for parameter, direction in zip(trained.parameters(), directions, strict=True):
            parameter.add_(step * direction)
        moved = loss().item()
        for parameter, direction in zip(trained.parameters(), directions, strict=True):
            parameter.sub_(step * direction)
        return moved

    loss().backward()
    slope = sum((p.grad * d).sum().item() for p, d in zip(trained.parameters(), directions, strict=True))
    assert (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6 == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_oss"])
def test_a_checkpointed_layer_computed_again_outside_of_its_path_is_an_error(family):
    routed = sr.route(copy.deepcopy(stock_model(family)), kinds_of(family)["mixed"])
    routed.train()
    checkpoint(routed.model)
    with routed.follow(PATHS):
        loss = routed.model(input_ids=IDS, labels=IDS, use_cache=False).loss
    with pytest.raises(RuntimeError, match="same follow"):
        loss.backward()
    with routed.follow(PATHS):
        loss = routed.model(input_ids=IDS, labels=IDS, use_cache=False).loss
    with routed.follow(PATHS[::-1]), pytest.raises(RuntimeError, match="same follow"):
        loss.backward()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_clean_checkpointed_forward_stays_clean_when_a_path_is_followed_at_its_backward(family):
    routed = sr.route(copy.deepcopy(stock_model(family)), kinds_of(family)["mixed"])
    routed.train()

    def gradient(followed_at_backward: bool) -> torch.Tensor:
        routed.zero_grad()
        loss = routed.model(input_ids=IDS, labels=IDS, use_cache=False).loss
        if followed_at_backward:
            with routed.follow(PATHS):
                loss.backward()
        else:
            loss.backward()
        return torch.cat([p.grad.flatten() for p in routed.model.parameters() if p.grad is not None])

    plain = gradient(False)
    checkpoint(routed.model)
    assert torch.equal(gradient(True), plain)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_detach_gives_back_the_checkpoint_function(family):
    model = copy.deepcopy(stock_model(family)).train()
    checkpoint(model)
    before = {n: m.__dict__.get("_gradient_checkpointing_func") for n, m in model.named_modules()}
    routed = sr.route(model, kinds_of(family)["mixed"])
    gradients_of(routed)
    routed.detach()
    assert {n: m.__dict__.get("_gradient_checkpointing_func") for n, m in model.named_modules()} == before


@every_pair
def test_the_global_generators_are_neither_read_nor_moved(family, kind):
    def walk(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
        with routed_model(family, kind) as routed:
            with routed.follow(PATHS):
                logits = logits_of(routed.model, IDS)
                logits.sum().backward()
            sampled = routed.generate(input_ids=IDS[:1], paths=2, seed=5, max_new_tokens=3, do_sample=True)
            routed.zero_grad()
        after = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
        assert torch.equal(before[0], after[0])
        assert before[1:] == after[1:]
        return logits, sampled.sequences

    (logits, sampled), (others, resampled) = walk(1), walk(2)
    assert torch.equal(logits, others)
    assert torch.equal(sampled, resampled)


@every_family
def test_a_batch_gives_the_sum_of_the_gradients_of_its_paths(family):
    def gradient(routed, rows: list[int]) -> torch.Tensor:
        routed.zero_grad()
        with routed.follow([PATHS[row] for row in rows]):
            logits_of(routed.model, IDS[rows]).square().sum().backward()
        return torch.cat([p.grad.flatten().double() for p in routed.parameters() if p.grad is not None])

    with routed_model(family, "mixed") as routed:
        together = gradient(routed, [0, 1, 2])
        alone = torch.stack([gradient(routed, [row]) for row in range(3)]).sum(0)
        routed.zero_grad()
    assert_same(together, alone, 1e-5)  # the noise parameters are float32
