"""A path as a control vector of llama.cpp: the noise of a whole sequence, added after each block it stands in.

    vectors = control_vectors(routed, path)              # layer -> float32 (hidden,), what the engine itself adds
    write_control_vector("path.gguf", routed, path)      # llama-cli -m model.gguf --control-vector path.gguf

A control vector is the same at every position of every text. So a path can be one where its structural noise is drawn
once a sequence, does not fade, stands at all positions and has an absolute scale; `fix_scale` gives it the last of
these. Attention and expert noise have no such form.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stochroute.calibration.divergence import measure
from stochroute.calibration.prompts import Sample
from stochroute.config import RoutingConfig, Structural
from stochroute.generation.receipts import fingerprint, routing_hash
from stochroute.noise import NOISE_VERSION
from stochroute.paths import format_path, parse_path
from stochroute.routed import RoutedModel
from stochroute.routing.sites import find_feed_forward, find_layers

_ARCHITECTURE = "controlvector"
_PROBED = 8  # positions at which the engine's noise is read, and at which a vector is compared with it
_DIFFERENCE = 0.2  # of the noise's own effect: rounding stays far below, a rescaled noise far above
_PAIRS = 64
_DIGITS = 4  # of a strength, as in a calibration
# what llama.cpp calls an architecture, where it is not transformers' name without its underscores
_LLAMA_CPP = {
    "cohere": "command-r",
    "gemma3_text": "gemma3",
    "gpt_oss": "gpt-oss",
    "mistral": "llama",
    "mixtral": "llama",
    "phi": "phi2",
}


@dataclass(frozen=True)
class FixedScale:
    """What `fix_scale` has made of a relative routing.

    Attributes:
        routed: the model with the absolute routing.
        rms: median RMS of the clean feed-forward output of each noised layer over the positions measured.
        relative_nats, absolute_nats: KL(routed ‖ clean) in nats a position, before and after.
    """

    routed: RoutedModel
    rms: dict[int, float]
    relative_nats: float
    absolute_nats: float


def control_vectors(routed: RoutedModel, path: int | str) -> dict[int, Tensor]:
    """What the path adds after each noised layer: layer index -> float32 (hidden,), on the CPU.

    It is read off the engine: the feed-forward blocks are made to say 0, and what then leaves them is the noise.

    Raises:
        ValueError: a control vector cannot be this routing; the message says what can.
    """
    structural = check_exportable(routed.config)
    model: Any = routed.model
    sites = find_feed_forward(model, find_layers(model), None)
    read: dict[int, Tensor] = {}

    def silence(module: nn.Module, args: Any, output: Any) -> Any:
        return _with_states(output, torch.zeros_like(_states(output), dtype=torch.float32))

    def keep(layer: int, output: Any) -> Any:
        read[layer] = _states(output).detach().view(-1, model.config.hidden_size).cpu()
        return _with_states(output, _states(output).to(model.dtype))

    layers = routed.structural.layers if routed.structural is not None else []
    with ExitStack() as hooks:
        for layer in layers:
            before = sites[layer].register_forward_hook(silence, prepend=True)
            after = sites[layer].register_forward_hook(lambda m, a, output, layer=layer: keep(layer, output))
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        with routed.follow([path]), torch.no_grad(), _evaluating(model):
            model(input_ids=_probe(model), use_cache=False)
    if any(not torch.equal(rows, rows[:1].expand_as(rows)) for rows in read.values()):
        raise ValueError(f"structural noise differs between positions under {structural}: a control vector cannot")
    vectors = {layer: rows[0].clone() for layer, rows in read.items() if bool(rows[0].any())}
    if not vectors:
        raise ValueError("every strength of the routing is 0: raise one, there is nothing to write")
    if 0 in vectors:
        raise ValueError("layer 0 carries noise, and llama.cpp adds no control vector after it: leave it out of layers")
    _check_equal(routed, path, vectors)
    return vectors


def write_control_vector(file: str | os.PathLike[str], routed: RoutedModel, path: int | str) -> dict[int, Tensor]:
    """Writes the path's control vectors as GGUF, whole or not at all, and returns them.

    The keys are llama.cpp's own; "stochroute.path", ".routing", ".noise_version" and ".model" say what made the file,
    as in a receipt.

    Raises:
        ValueError: as `control_vectors`.
        OSError: the file cannot be written; an earlier one stays.
    """
    from gguf import GGUFWriter

    vectors = control_vectors(routed, path)
    target = Path(file)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as staging:
        staged = Path(staging, target.name)
        with closing(GGUFWriter(staged, _ARCHITECTURE)) as writer:  # which writes general.architecture
            writer.add_string(f"{_ARCHITECTURE}.model_hint", model_hint(routed.model.config.model_type))
            writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(vectors))
            writer.add_string("stochroute.path", format_path(path))
            writer.add_string("stochroute.routing", routing_hash(routed))
            writer.add_uint32("stochroute.noise_version", NOISE_VERSION)
            writer.add_string("stochroute.model", fingerprint(routed.model))
            for layer, vector in vectors.items():
                writer.add_tensor(f"direction.{layer}", vector.numpy())
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        with open(staged, "rb") as written:
            os.fsync(written.fileno())
        os.replace(staged, target)
    return vectors


def fix_scale(routed: RoutedModel, rows: Sequence[Sequence[int]]) -> FixedScale:
    """Turns relative noise into absolute noise of about the same size; the routing given is detached.

    The strength of each layer is multiplied by the median, over all positions of the rows, of the RMS of its clean
    feed-forward output. (The mean would follow the first token, whose output is often many times the others'.) The
    noise no longer follows the activation, so it is another routing, with another hash: the effect of both on the rows
    comes back as well.

    Args:
        routed: a routing that `check_exportable` finds no other fault with.
        rows: token ids of some texts, better 32 and more of the kind that will be written.

    Raises:
        ValueError: there is no text, the noise is not relative, a strength is not known yet, or another fault remains.
    """
    config, structural = routed.config, routed.config.structural
    if structural is None or structural.scale != "relative":
        raise ValueError("the scale of the routing is not relative: there is nothing to fix")
    check_exportable(replace(config, structural=replace(structural, scale="absolute")))
    if structural.strength == "auto":
        raise ValueError("structural.strength='auto' is not known yet: calibrate first")
    if not rows or not all(rows):
        raise ValueError("rows holds no text, or an empty one: give token ids of at least one text")
    sample = Sample.along_paths(rows, config.span, _PAIRS, seed=0)
    before = measure(routed, sample).nats("divergence")
    noise = routed.structural
    assert noise is not None
    rms = _median_rms(routed, noise.layers, rows)
    strengths = [strength * rms[layer] for strength, layer in zip(noise.strength.tolist(), noise.layers, strict=True)]
    absolute = replace(structural, scale="absolute", strength=tuple(float(f"{s:.{_DIGITS}g}") for s in strengths))
    parameters = routed.noise_parameters()
    fixed = RoutedModel(routed.detach(), replace(config, structural=absolute))
    for name, parameter in fixed.noise_parameters().items():
        parameter.copy_(parameters[name])
    return FixedScale(fixed, rms, before, measure(fixed, sample).nats("divergence"))


def check_exportable(config: RoutingConfig) -> Structural:
    """The structural part of a routing that a control vector can be.

    Raises:
        ValueError: it cannot; the message names the setting and the remedy.
    """
    structural = config.structural
    if structural is None:
        raise ValueError("structural is off: a control vector holds structural noise alone")
    for kind in ("attention", "experts"):
        if getattr(config, kind) is not None:
            raise ValueError(f"{kind} noise changes with every token: a control vector cannot; leave {kind} out")
    if structural.hold != "sequence":
        raise ValueError(f"hold={structural.hold} draws new noise on the way: a control vector needs hold='sequence'")
    if structural.schedule.decay != "constant":
        raise ValueError(f"schedule={structural.schedule.decay!r} fades: a control vector needs a constant schedule")
    if config.span != "all":
        raise ValueError("span='generated' leaves the prompt clean: a control vector acts on it too; set span='all'")
    if structural.scale == "relative":
        raise ValueError(
            "scale='relative' follows the activation at each position: a control vector needs scale='absolute'; "
            "fix it on given texts with fix_scale, or --fix-scale"
        )
    return structural


def model_hint(model_type: str) -> str:
    """llama.cpp's name for a model type of transformers. It reads no more into it than a hint."""
    return _LLAMA_CPP.get(model_type, model_type.replace("_", ""))


def _check_equal(routed: RoutedModel, path: int | str, vectors: dict[int, Tensor]) -> None:
    """ValueError where adding the vectors after the blocks is not what the path does: some architectures scale or
    normalise the feed-forward output before the residual, and the noise with it."""
    model: Any = routed.model
    layers = find_layers(model).layers

    def add(vector: Tensor, output: Any) -> Any:
        states = _states(output)
        return _with_states(output, (states.float() + vector.to(states.device)).to(states.dtype))

    with torch.no_grad(), _evaluating(model), ExitStack() as hooks:
        with routed.follow([parse_path(path)]):
            walked = model(input_ids=_probe(model), use_cache=False).logits.float()
        with routed.suspended():
            clean = model(input_ids=_probe(model), use_cache=False).logits.float()
            for layer, vector in vectors.items():
                hook = layers[layer].register_forward_hook(lambda m, a, output, v=vector: add(v, output))
                hooks.callback(hook.remove)
            added = model(input_ids=_probe(model), use_cache=False).logits.float()
    apart, effect = (walked - added).square().mean().sqrt(), (walked - clean).square().mean().sqrt()
    if apart > _DIFFERENCE * effect:
        raise ValueError(
            f"model type {model.config.model_type!r}: vectors added after the blocks do not do what the path does "
            f"(logits differ by {apart / effect:.0%} of its effect): the model rescales feed-forward outputs, which "
            f"no control vector can follow"
        )


def _median_rms(routed: RoutedModel, layers: list[int], rows: Sequence[Sequence[int]]) -> dict[int, float]:
    model: Any = routed.model
    sites = find_feed_forward(model, find_layers(model), None)
    sizes: dict[int, list[Tensor]] = {layer: [] for layer in layers}

    def note(layer: int, output: Any) -> None:
        states = _states(output).detach().float().view(-1, model.config.hidden_size)
        sizes[layer].append(states.square().mean(-1).sqrt().cpu())

    with torch.no_grad(), _evaluating(model), routed.suspended(), ExitStack() as hooks:
        for layer in layers:
            hook = sites[layer].register_forward_hook(lambda m, a, output, layer=layer: note(layer, output))
            hooks.callback(hook.remove)
        for row in rows:
            model(input_ids=torch.tensor([list(row)], device=model.device), use_cache=False)
    return {layer: torch.cat(found).median().item() for layer, found in sizes.items()}


def _probe(model: Any) -> Tensor:
    """int64 (1, s): some tokens; which, does not matter."""
    return torch.arange(_PROBED, device=model.device)[None] % model.config.get_text_config().vocab_size


def _states(output: Any) -> Tensor:
    """The hidden states among what a block gives back."""
    return output[0] if isinstance(output, tuple) else output


def _with_states(output: Any, states: Tensor) -> Any:
    return (states, *output[1:]) if isinstance(output, tuple) else states


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
