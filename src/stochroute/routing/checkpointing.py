"""Gradient checkpointing: a layer that is computed again walks the stretch of path it walked the first time."""

from collections.abc import Callable
from typing import Any

from torch import nn

from stochroute.routing.walk import Context

_ATTRIBUTE = "_gradient_checkpointing_func"  # where transformers keeps the function


class ReplayingCheckpoint:
    """Wraps a checkpoint function so that the recomputation sees the passage of the first computation."""

    def __init__(self, checkpoint: Callable[..., Any], context: Context):
        self.checkpoint = checkpoint
        self.context = context

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        walk, passage = self.context.walk, self.context.passage

        def recomputable(*inner: Any) -> Any:
            if walk is not None and self.context.walk is not walk:
                raise RuntimeError(
                    "a checkpointed layer is computed again outside of the path it was first computed on: call "
                    "backward() inside the same follow() block"
                )
            with self.context.along(walk, passage):
                return function(*inner)

        return self.checkpoint(recomputable, *args)


def install(model: nn.Module, context: Context) -> None:
    """Wraps the checkpoint functions of all modules that have one and are not wrapped yet."""
    for module in model.modules():
        checkpoint = module.__dict__.get(_ATTRIBUTE)
        if checkpoint is not None and not isinstance(checkpoint, ReplayingCheckpoint):
            setattr(module, _ATTRIBUTE, ReplayingCheckpoint(checkpoint, context))


def uninstall(model: nn.Module) -> None:
    """Gives every module its own checkpoint function back."""
    for module in model.modules():
        wrapped = module.__dict__.get(_ATTRIBUTE)
        if isinstance(wrapped, ReplayingCheckpoint):
            setattr(module, _ATTRIBUTE, wrapped.checkpoint)
