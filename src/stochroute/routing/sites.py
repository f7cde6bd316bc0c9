"""Find the places in a transformers model where noise can enter."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

_FEED_FORWARD = re.compile(r"mlp|ffn|feed_forward|block_sparse_moe|ff|fc2")

# model types whose layers have several children by the rule above, or one under another name
_FEED_FORWARD_OVERRIDES: dict[str, str] = {
    "granitemoehybrid": "shared_mlp",
    "recurrent_gemma": "mlp_block",
}

_ROUTED_EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss")


@dataclass(frozen=True)
class LayerStack:
    """The decoder layers of a model, and the module whose forward runs them.

    Attributes:
        owner: holds the layer list; its forward sees input ids, masks and cache.
        owner_name: its name within the model.
        layers: the decoder layers, in order.
        layers_name: name of the list within the model.
    """

    owner: nn.Module
    owner_name: str
    layers: nn.ModuleList
    layers_name: str


def find_layers(model: PreTrainedModel) -> LayerStack:
    """The one ModuleList with as many entries as the model has layers.

    Raises:
        ValueError: the model is no decoder-only text model, or there is no such list, or more than one.
    """
    config = model.config
    kind = getattr(config, "model_type", type(model).__name__)
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"model type {kind!r} is an encoder-decoder: only decoder-only models can be routed")
    if getattr(config, "vision_config", None) is not None or getattr(config, "audio_config", None) is not None:
        raise ValueError(
            f"model type {kind!r} reads images or sound: load its text model alone "
            f"(for instance the *ForCausalLM class of its text config) and route that"
        )
    depth = getattr(config, "num_hidden_layers", None)
    if not isinstance(depth, int):
        raise ValueError(f"model type {kind!r} does not say its number of layers: name the sites with sites=")
    modules = dict(model.named_modules())
    lists = [
        (name, module) for name, module in modules.items() if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    # lists inside a layer (experts, for instance) can have the same length by chance
    outer = [(n, m) for n, m in lists if not any(n.startswith(o + ".") for o, _ in lists)]
    if len(outer) != 1:
        found = ", ".join(name for name, _ in outer) or "none"
        raise ValueError(
            f"model type {kind!r} should have one list of {depth} layers, found {found}: this architecture is unknown"
        )
    name, layers = outer[0]
    owner_name = name.rpartition(".")[0]
    return LayerStack(modules[owner_name], owner_name, layers, name)


def find_feed_forward(
    model: PreTrainedModel, stack: LayerStack, sites: Mapping[int, str] | None
) -> dict[int, nn.Module]:
    """The feed-forward block of each layer: layer index -> module.

    Args:
        model: the model.
        stack: its layers.
        sites: overrides the rule: layer index -> name of a module within the model.

    Raises:
        ValueError: a layer has no candidate, or several, or a name in `sites` is no module of the model.
    """
    if sites is not None:
        modules = dict(model.named_modules())
        unknown = [name for name in sites.values() if name not in modules]
        if unknown:
            raise ValueError(f"sites names {unknown[0]!r}, which is no module of {type(model).__name__}")
        depth = len(stack.layers)
        outside = [i for i in sites if not 0 <= i < depth]
        if outside:
            raise ValueError(f"sites names layer {outside[0]}, but the model has layers 0 … {depth - 1}")
        return {i: modules[sites[i]] for i in sorted(sites)}
    override = _FEED_FORWARD_OVERRIDES.get(model.config.model_type)
    found: dict[int, nn.Module] = {}
    for index, layer in enumerate(stack.layers):
        children = dict(layer.named_children())
        names = [n for n in children if (n == override if override else _FEED_FORWARD.fullmatch(n))]
        if len(names) != 1:
            what = f"several feed-forward blocks ({', '.join(names)})" if names else "no feed-forward block"
            raise ValueError(
                f"layer {index} of model type {model.config.model_type!r} has {what} among its children "
                f"({', '.join(children)}): name one a layer with sites={{{index}: "
                f"'{stack.layers_name}.{index}.…'}}"
            )
        found[index] = children[names[0]]
    return found


def find_attention(stack: LayerStack, model_type: str) -> dict[int, nn.Module]:
    """The attention module of each layer, the one that calls transformers' attention interface.

    Raises:
        ValueError: a layer has none, or several.
    """
    found: dict[int, nn.Module] = {}
    for index, layer in enumerate(stack.layers):
        inside = [m for m in layer.modules() if hasattr(m, "layer_idx") and "Attention" in type(m).__name__]
        if len(inside) != 1:
            raise ValueError(
                f"layer {index} of model type {model_type!r} has {len(inside)} attention modules with a layer index, "
                f"not one: attention routing does not know this architecture, set attention=None"
            )
        found[index] = inside[0]
    return found


def find_routers(stack: LayerStack, model_type: str) -> dict[int, nn.Module]:
    """The router of each mixture-of-experts layer; dense layers are left out.

    Raises:
        ValueError: the model has no router that expert routing knows.
    """
    found = {
        index: module
        for index, layer in enumerate(stack.layers)
        for module in layer.modules()
        if type(module).__name__.endswith("TopKRouter")
    }
    if model_type not in _ROUTED_EXPERTS or not found:
        raise ValueError(
            f"model type {model_type!r} has no router that expert routing knows "
            f"(known: {', '.join(_ROUTED_EXPERTS)}): set experts=None"
        )
    return found
