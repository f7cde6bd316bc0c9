"""Every family's own attention calls, in prefill and decoding: the fused kernel against the reference in float64."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache, StaticCache

import stochroute as sr
from families import positions_of
from levels import LEVELS
from matrix import PATHS, every_family, padded, random_ids, routed_model
from stochroute.kernels import ATTENTION, AttentionInputs

pytestmark = pytest.mark.skipif(not LEVELS, reason="the package was installed without a C++ compiler")

IDS, MASK = padded(random_ids(3, 17), [17, 6, 11], 17)
LIMITS = {torch.float32: 2e-6, torch.bfloat16: 6e-3}


class Compared:
    """Stands in for `attend`: runs the fused kernel, and the reference in float64 on the same inputs."""

    def __init__(self) -> None:
        self.worst = 0.0
        self.calls = 0
        self.short_calls = 0

    def __call__(self, inputs: AttentionInputs, implementation: str) -> torch.Tensor:
        out = ATTENTION["fused"](inputs)
        noise = inputs.noise
        assert noise is not None
        wide = replace(
            inputs,
            **{name: getattr(inputs, name).double() for name in ("query", "key", "value")},
            noise=replace(noise, amplitude=noise.amplitude.double()),
        )
        exact = ATTENTION["reference"](wide)
        self.worst = max(self.worst, ((out - exact).abs().max() / exact.abs().max()).item())
        self.calls += 1
        self.short_calls += inputs.query.shape[2] == 1
        return out


@every_family
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("cache_kind", ["dynamic", "static"])
@torch.no_grad()
def test_the_fused_kernel_is_the_reference_in_every_family(family, dtype, cache_kind, monkeypatch):
    compared = Compared()
    monkeypatch.setattr("stochroute.routing.attention.attend", compared)
    config = sr.RoutingConfig(structural=None, attention=sr.Attention(strength=1.0), span="all")
    with routed_model(family, config, dtype) as routed, routed.follow(PATHS, start=[0, 3, 1]):
        model = routed.model
        caches: dict[str, Callable] = {
            "dynamic": lambda: DynamicCache(config=model.config),
            "static": lambda: StaticCache(config=model.config, max_cache_len=20),
        }
        cache = caches[cache_kind]()
        for first, last in ((0, 12), (12, 15), (15, 16), (16, 17)):  # prefill, a chunk, two single tokens
            model(
                input_ids=IDS[:, first:last],
                attention_mask=MASK[:, :last],
                position_ids=positions_of(MASK)[:, first:last],
                past_key_values=cache,
            )
    layers = model.config.num_hidden_layers
    assert (compared.calls, compared.short_calls) == (4 * layers, 2 * layers)
    assert compared.worst <= LIMITS[dtype]
