"""Routings of tiny models, the folders they are saved in, and the check that a bad folder is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import stochroute as sr
from families import FAMILIES
from stochroute.config import Schedule
from stochroute.storage import CONFIG_FILE, PARAMETER_FILE

IDS = torch.tensor([[3, 14, 15, 92, 65, 35], [8, 9, 79, 32, 38, 46]])
PATHS = [7, 2**64 - 1]
FILES = {CONFIG_FILE, PARAMETER_FILE}

STRUCTURAL = {
    "independent": sr.Structural(form="independent", layers="all", strength=[0.1, 0.2, 0.3], hold=4),
    "latent": sr.Structural(form="latent", rank=5, layers=[0, 2], schedule=Schedule("linear", 9)),
    "everywhere": sr.Structural(layers="all"),
}
CONFIGS = {
    "default": sr.RoutingConfig(),
    "independent": sr.RoutingConfig(structural=STRUCTURAL["independent"]),
    "latent": sr.RoutingConfig(structural=STRUCTURAL["latent"]),
    "attention": sr.RoutingConfig(structural=None, attention=sr.Attention(strength=0.7), span="all"),
    "both": sr.RoutingConfig(
        structural=STRUCTURAL["everywhere"], attention=sr.Attention(layers=[1], distribution="uniform")
    ),
    "nothing": sr.RoutingConfig(structural=None),
}
every_config = pytest.mark.parametrize("name", CONFIGS)


def llama(**settings: int) -> nn.Module:
    """A tiny random Llama in float32; `settings` overrides its config."""
    if not settings:
        return FAMILIES["llama"].build(torch.float32)
    config = FAMILIES["llama"].config()
    for name, value in settings.items():
        setattr(config, name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def learn(routed: sr.RoutedModel, seed: int = 5) -> None:
    """Moves every noise parameter, as training would."""
    stream = torch.Generator().manual_seed(seed)
    for parameter in routed.noise_parameters().values():
        parameter.copy_(torch.randn(parameter.shape, generator=stream))


@torch.no_grad()
def walk(routed: sr.RoutedModel) -> Tensor:
    with routed.follow(PATHS, start=0):
        return routed.model(input_ids=IDS).logits


def traces_of(model: nn.Module) -> dict:
    """All that a routing could leave behind: the attributes and hooks of every module, and the attention's name."""
    return {
        name: (
            sorted(vars(module)),
            {key: list(value) for key, value in vars(module).items() if "hook" in key and value},
            getattr(getattr(module, "config", None), "_attn_implementation", None),
        )
        for name, module in model.named_modules()
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(folder: Path, model: nn.Module, reason: str, error: type[Exception] = ValueError) -> str:
    """The message with which the routing is refused; the model stays as it was, and routable."""
    before = traces_of(model)
    with pytest.raises(error, match=reason) as caught:
        sr.RoutedModel.from_pretrained(model, folder)
    assert traces_of(model) == before
    sr.route(model).detach()
    return str(caught.value)


def rewrite(folder: Path, change: Callable[[dict], object]) -> None:
    record = json.loads((folder / CONFIG_FILE).read_text())
    change(record)
    (folder / CONFIG_FILE).write_text(json.dumps(record))
