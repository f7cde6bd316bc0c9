"""Receipts: all that a replay depends on, and what to say when a replay differs in it."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import GenerationConfig

from stochroute.generation.settings import UNTRUNCATED
from stochroute.noise import NOISE_VERSION
from stochroute.paths import format_path
from stochroute.routing.attached import AttachedRouting

_SAMPLES_PER_TENSOR = 64

# the settings that decide which text is written, each with the value at which it does nothing
_NEUTRAL: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "max_new_tokens": None,
    "min_length": 0,
    "min_new_tokens": None,
    "stop_strings": None,
    "eos_token_id": None,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "force_words_ids": None,
    "sequence_bias": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "guidance_scale": None,
    "watermarking_config": None,
    "token_healing": False,
}
# top_k is always said: where a call leaves it out, transformers keeps 50 tokens
_NEUTRAL_SAMPLING: dict[str, Any] = {**UNTRUNCATED, "top_k": None, "top_h": None}
_NEUTRAL_BEAMS: dict[str, Any] = {"early_stopping": False, "length_penalty": 1.0}


class ReplayMismatch(UserWarning):
    """A path is replayed under other circumstances than its receipt names, so its text may differ."""


@dataclass(frozen=True)
class Receipt:
    """What a replay needs.

    Attributes:
        path: the path id, 16 hex digits.
        start: the first position that carried noise.
        routing: hash of the routing's config and learned parameters, 16 hex digits.
        noise_version: version of the noise functions.
        model: fingerprint of the model's weights, 16 hex digits.
        decoding: the generation settings in force, as arguments of `generate`; those that do nothing left out, unless
            the model's own defaults would fill in something else.
        engine: what ran the model, with its version.
        dtype: the dtype of the model's weights; under autocast, "float32, autocast bfloat16" and the like.
    """

    path: str
    start: int
    routing: str
    noise_version: int
    model: str
    decoding: dict[str, Any]
    engine: str
    dtype: str

    def to_dict(self) -> dict[str, Any]:
        """The receipt as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Receipt":
        """The receipt that `to_dict` wrote; ValueError when a field is missing or unknown."""
        names = {f.name for f in fields(cls)}
        if not isinstance(data, dict) or set(data) != names:
            raise ValueError(f"a receipt has the fields {', '.join(sorted(names))}, got {data!r}")
        return cls(**{**data, "path": format_path(data["path"])})

    def differences(self, other: "Receipt") -> list[str]:
        """One sentence for each circumstance in which the other receipt differs; the path itself is left out."""
        return [
            f"{f.name} was {getattr(self, f.name)!r}, now {getattr(other, f.name)!r}"
            for f in fields(self)
            if f.name != "path" and getattr(self, f.name) != getattr(other, f.name)
        ]


def write_receipts(
    routed: AttachedRouting, paths: list[int], starts: list[int], settings: GenerationConfig, spread: bool = False
) -> list[Receipt]:
    """One receipt a row; `settings` with the model's defaults filled in."""
    neutral = {
        **_NEUTRAL,
        **(_NEUTRAL_SAMPLING if settings.do_sample else {}),
        **(_NEUTRAL_BEAMS if (settings.num_beams or 1) > 1 else {}),
    }
    chosen, defaults = (_stated(config, neutral) for config in (settings, routed.model.generation_config))
    decoding = {n: _jsonable(v) for n, v in chosen.items() if not v == neutral[n] == defaults[n]}
    decoding |= {"spread": True} if spread else {}
    shared = {
        "routing": routing_hash(routed),
        "noise_version": NOISE_VERSION,
        "model": fingerprint(routed.model),
        "decoding": decoding,
        "engine": f"transformers {transformers.__version__}",
        "dtype": computed_in(routed.model),
    }
    return [Receipt(path=format_path(p), start=s, **shared) for p, s in zip(paths, starts, strict=True)]


def computed_in(model: nn.Module) -> str:
    """The dtype of the model's weights, and that of autocast where it is on: "float32, autocast bfloat16"."""
    weight = next(model.parameters())
    device = weight.device.type
    autocast = f", autocast {torch.get_autocast_dtype(device)}" if torch.is_autocast_enabled(device) else ""
    return f"{weight.dtype}{autocast}".replace("torch.", "")


def routing_hash(routed: AttachedRouting) -> str:
    """16 hex digits over the routing's config, noise version and parameters."""
    digest = hashlib.sha256(json.dumps([NOISE_VERSION, routed.config.to_dict()], sort_keys=True).encode())
    for name, tensor in routed.noise_parameters().items():
        digest.update(name.encode())
        digest.update(tensor.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def fingerprint(model: nn.Module) -> str:
    """16 hex digits over the names, shapes and evenly spaced samples of all weights.

    A few dozen values of every tensor tell models apart at no cost worth naming; a change to a single other weight
    goes unseen.
    """
    digest = hashlib.sha256()
    samples: list[Tensor] = []
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        if hasattr(tensor, "dequantize") and type(tensor) not in (Tensor, nn.Parameter):
            tensor = tensor.dequantize()  # quantised weights are tensor subclasses that cannot be indexed freely
        if tensor.numel() and tensor.device.type != "meta":
            flat = tensor.detach().reshape(-1)
            step = -(-flat.numel() // _SAMPLES_PER_TENSOR)
            samples.append(flat[::step].float())
    by_device: dict[torch.device, list[Tensor]] = {}
    for sample in samples:
        by_device.setdefault(sample.device, []).append(sample)
    for group in by_device.values():  # one transfer a device, not one a tensor
        digest.update(torch.cat(group).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _stated(config: GenerationConfig, neutral: dict[str, Any]) -> dict[str, Any]:
    """Its settings of these names, the neutral value where it has none."""
    found = {name: getattr(config, name, None) for name in neutral}
    return {name: neutral[name] if value is None else value for name, value in found.items()}


def _jsonable(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return repr(value)
