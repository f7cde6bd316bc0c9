"""A routing attached to a model: its noise parameters, its hooks, and the paths it follows."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from stochroute.config import RoutingConfig, layer_strengths
from stochroute.paths import parse_path
from stochroute.routing import checkpointing
from stochroute.routing.attention import AttentionNoise
from stochroute.routing.experts import ExpertNoise
from stochroute.routing.sites import find_attention, find_feed_forward, find_layers, find_routers
from stochroute.routing.structural import StructuralNoise
from stochroute.routing.walk import Context, Inferred, Passage, Walk, token_positions


class AttachedRouting(nn.Module):
    """A model with noise sites. Outside of `follow` it is the original, bit for bit.

    Attributes:
        config: the routing config.
        model: the transformers model, hooked in place.
        structural, attention, experts: the noise of each kind that is on, with its parameters; else None.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        config: RoutingConfig,
        sites: Mapping[int, str] | None = None,
        attention_kernel: str = "auto",
    ):
        super().__init__()
        if any(isinstance(hook, _RoutingMark) for m in model.modules() for hook in m._forward_pre_hooks.values()):
            raise ValueError(
                f"this {type(model).__name__} is routed already: detach() it first, or copy the routed model"
            )
        self.config = config
        # everything is looked up before anything is hooked: a model that cannot be routed stays as it was
        stack = find_layers(model)
        depth, kind = len(stack.layers), model.config.model_type
        feed_forward = find_feed_forward(model, stack, sites) if config.structural else {}
        attention = find_attention(stack, kind) if config.attention else {}
        routers = find_routers(stack, kind) if config.experts else {}

        self._context = Context()
        self._handles: list[RemovableHandle] = []
        self.structural: StructuralNoise | None = None
        self.attention: AttentionNoise | None = None
        self.experts: ExpertNoise | None = None
        try:
            if config.structural:
                self.structural = StructuralNoise(
                    config.structural, self._context, list(feed_forward), int(model.config.hidden_size), depth
                )
                self.structural.attach(feed_forward)
            if config.attention:
                self.attention = AttentionNoise(
                    config.attention, self._context, model, attention, depth, attention_kernel
                )
            if config.experts:
                self.experts = ExpertNoise(config.experts, self._context, routers, depth)
        except Exception:
            for noise in (self.structural, self.attention, self.experts):
                if noise is not None:
                    noise.detach()
            raise
        self.model: PreTrainedModel = model
        self._owner_arguments = list(inspect.signature(stack.owner.forward).parameters)
        self._handles = [
            stack.owner.register_forward_pre_hook(_RoutingMark(self._begin_forward), with_kwargs=True),
            stack.owner.register_forward_hook(self._end_forward, always_call=True),
        ]
        for noise in self.kinds().values():
            noise.to(_device_of(model))

    def kinds(self) -> dict[str, StructuralNoise | AttentionNoise | ExpertNoise]:
        """The noise of the kinds that are on, by name."""
        kinds = {"structural": self.structural, "attention": self.attention, "experts": self.experts}
        return {kind: noise for kind, noise in kinds.items() if noise is not None}

    def noise_parameters(self) -> dict[str, Tensor]:
        """The parameters of the noise by name, such as "structural.sigma"; float32 unless they were converted."""
        return {
            f"{kind}.{name}": parameter.detach()
            for kind, noise in self.kinds().items()
            for name, parameter in noise.named_parameters()
        }

    def adopt_strengths(self, config: RoutingConfig) -> None:
        """Takes over the strengths of a config that differs from the present one in nothing else.

        A site that was attached at strength 0 has no hook: it stays clean, whatever it gets here.
        """
        for kind, noise in self.kinds().items():
            part: Any = config.kinds()[kind]
            noise.config = part
            # in place, so that compiled code sees it
            noise.strength.copy_(torch.tensor(layer_strengths(part.proportion, noise.layers)))
        self.config = config

    @property
    def silent(self) -> bool:
        """True where no kind of noise is on, or every strength is 0."""
        return all(noise.silent for noise in self.kinds().values())

    @contextmanager
    def follow(self, paths: Sequence[int | str | None], start: int | Sequence[int] = 0) -> Iterator[None]:
        """Inside, every forward and backward of the model walks the given paths, one a batch row.

            with routed.follow([p0, p1], start=0):
                logits = model(input_ids, attention_mask=mask).logits

        Args:
            paths: a path id (integer or 16 hex digits) for each row; None for a row that stays clean.
            start: the first position that carries noise, one for all or one a row; positions count real tokens.

        Raises:
            ValueError: a path id or a start is bad, their numbers differ, or a strength is still "auto".
            RuntimeError: inside, when the batch has another number of rows than there are paths.
        """
        ids = [None if p is None else parse_path(p) for p in paths]
        if not ids:
            raise ValueError("paths=[] names no path: give one a batch row")
        starts = list(start) if isinstance(start, Sequence) else [start] * len(ids)
        if len(starts) != len(ids):
            raise ValueError(f"start names {len(starts)} positions for {len(ids)} paths: give one, or one a path")
        for value in starts:
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"start={value!r} is no position: give an integer ≥ 0")
        for kind, part in self.config.kinds().items():
            if part.strength == "auto":
                raise ValueError(
                    f"{kind}.strength='auto' is not known yet: find it with calibrate(prompts, budget=…, tokenizer=…), "
                    f"or give a number"
                )
        walk = None
        if not self.silent:
            walk = Walk.along(ids, starts, _device_of(self.model))
        with self._context.along(walk):
            yield

    def infer(self, mean: Tensor, deviation: Tensor) -> None:
        """Until `follow` ends, the z of each row is mean + deviation ⊙ ξ with ξ the path's own draw: how training tells
        the latent form what is known about a text (`training.InferredPaths`). Gradients reach both.

        Args:
            mean, deviation: float32 (b, rank), one row a path.

        Raises:
            ValueError: the routing has no z that lasts a sequence, or the shapes are others.
            RuntimeError: no path is followed.
        """
        noise, walk = self.structural, self._context.walk
        if noise is None or noise.config.form != "latent" or noise.config.hold != "sequence":
            raise ValueError("the routing has no z for a text: route with Structural(form='latent', hold='sequence')")
        if walk is None:
            raise RuntimeError("infer() needs paths to be followed: call it inside follow()")
        expected = len(walk.keys), noise.config.rank
        if mean.shape != expected or deviation.shape != expected:
            raise ValueError(
                f"mean {tuple(mean.shape)} and deviation {tuple(deviation.shape)} must both be of shape {expected}: a "
                f"row for each path, a column for each dimension of z"
            )
        walk.inferred = Inferred(mean, deviation)

    @property
    def inferred(self) -> Inferred | None:
        """What `infer` was told within the present `follow`, of the rows that walk a path."""
        walk = self._context.walk
        if walk is None or walk.inferred is None:
            return None
        walked = walk.on[:, 0]
        return Inferred(walk.inferred.mean[walked], walk.inferred.deviation[walked])

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Inside, the model is the original, also within a `follow` block."""
        with self._context.along(None):
            yield

    def detach(self) -> PreTrainedModel:
        """Takes the routing off and returns the model, bit for bit what it was. A second time it does nothing."""
        if self._handles:
            for handle in self._handles:
                handle.remove()
            self._handles.clear()
            for noise in self.kinds().values():
                noise.detach()
            checkpointing.uninstall(self.model)
        return self.model

    def _begin_forward(self, owner: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        context = self._context
        context.passage = None
        if owner.training and not torch.compiler.is_compiling():
            checkpointing.install(owner, context)
        if context.walk is None:
            return
        positions = token_positions({**dict(zip(self._owner_arguments, args, strict=False)), **kwargs})
        rows = context.walk.keys.shape[0]
        if positions.shape[0] != rows:
            raise RuntimeError(
                f"the batch has {positions.shape[0]} rows, but follow() was given {rows} paths: give one a row"
            )
        passage = Passage(context.walk, positions.to(context.walk.keys.device))
        for noise in (self.structural, self.attention):
            if noise is not None and not noise.silent:
                noise.begin_passage(passage)
        context.passage = passage

    def _end_forward(self, owner: nn.Module, args: Any, output: Any) -> None:
        self._context.passage = None


class _RoutingMark:
    """The pre-hook of a routed model, recognisable among others."""

    def __init__(self, hook: Any):
        self._hook = hook

    def __call__(self, owner: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._hook(owner, args, kwargs)


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
