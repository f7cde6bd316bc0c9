"""The routed model as Trainer takes it, and which of its parameters are trained."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stochroute.routed import RoutedModel
from stochroute.storage import read_routing
from stochroute.training.posterior import Posterior

Trained = Literal["noise", "adapter", "all"]

_PREFIX = "routed.model."  # of the model's weights within WalkedModel


class WalkedModel(nn.Module):
    """The routed model in the form that Trainer expects: it shows the attributes of the transformers model, and its
    forward gives logits along the path that is followed outside."""

    # Trainer refuses quantised weights that have no adapter; here they stay as they are, and the noise is trained
    _hf_peft_config_loaded = True

    def __init__(self, routed: RoutedModel, posterior: Posterior | None = None):
        super().__init__()
        self.routed = routed
        self.posterior = posterior

    def forward(self, hidden: Tensor | None = None, **inputs: Tensor) -> Tensor:
        """The logits (rows, s, v); in train mode along what the posterior infers, where there is one.

        The tokens of `hidden`, bool (rows, s), have an embedding of 0 for the model, not for the posterior.
        """
        embed = self.routed.model.get_input_embeddings()
        if self.posterior is not None and self.training:
            self.routed.infer(*self.posterior(embed(inputs["input_ids"]), inputs["attention_mask"]))
        with nullcontext() if hidden is None else _hiding(embed, hidden):
            return self.routed.model(**inputs, use_cache=False).logits

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(cast(RoutedModel, super().__getattr__("routed")).model, name)


def _hiding(embed: nn.Module, hidden: Tensor) -> RemovableHandle:
    """Makes nothing of the embeddings of `hidden` within this context."""
    seen = ~hidden[..., None]

    def hide(module: nn.Module, args: Any, embeddings: Tensor) -> Tensor:
        return embeddings * seen

    return embed.register_forward_hook(hide)


def choose_trained(routed: RoutedModel, trained: Trained) -> None:
    """Lets gradients reach the noise, and beside it nothing ("noise"), the adapter, or all weights of the model.

    Raises:
        ValueError: `trained` is none of these, there is no adapter, or the routing has no noise to train.
    """
    if trained not in ("noise", "adapter", "all"):
        raise ValueError(f"trained={trained!r} is unknown: choose 'noise', 'adapter' or 'all'")
    model: Any = routed.model
    is_adapted = hasattr(model, "peft_config")
    if trained == "all" and is_adapted:
        raise ValueError("trained='all' would save the adapter alone: give 'adapter', or merge_and_unload() it first")
    if trained == "adapter" and not is_adapted:
        raise ValueError("trained='adapter', but the model has none: wrap it with peft.get_peft_model, then route it")
    if routed.silent:
        raise ValueError("nothing to train: the routing has no noise with a strength > 0")
    model.requires_grad_(trained == "all")
    if trained == "adapter":
        model.set_adapter(model.active_adapter)  # by which PEFT lets gradients reach it, and it alone
    for noise in (routed.structural, routed.attention, routed.experts):
        if noise is not None:
            noise.requires_grad_(not noise.silent)


def read_noise(routed: RoutedModel, folder: Path) -> dict[str, Tensor]:
    """The noise parameters that a folder holds, by name.

    Raises:
        ValueError: they belong to another routing, or another model.
        OSError: there are no such files.
    """
    config, parameters = read_routing(folder, routed.model)
    if config != routed.config:
        raise ValueError(f"{folder} holds another routing, {config}; this run has {routed.config}: give the same")
    return parameters


def weights_of_model(state: dict[str, Any]) -> dict[str, Any]:
    """Of the state of a WalkedModel, what is the transformers model's."""
    return {name[len(_PREFIX) :]: tensor for name, tensor in state.items() if name.startswith(_PREFIX)}


def whole(parameter: Tensor) -> Tensor:
    """The parameter with the parts that other processes hold, under FSDP."""
    full = getattr(parameter.detach(), "full_tensor", None)
    return parameter.detach() if full is None else full()


def here(parameter: Tensor) -> Tensor:
    """The part of a parameter that this process holds, under FSDP."""
    local = getattr(parameter.detach(), "to_local", None)
    return parameter.detach() if local is None else local()
