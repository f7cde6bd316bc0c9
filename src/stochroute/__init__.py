"""Replayable paths through any Hugging Face causal language model.

    import stochroute as sr

    routed = sr.route(model)
    out = routed.generate(**inputs, paths=8, seed=7, max_new_tokens=64)
    routed.generate(**inputs, paths=[out.paths[3]], max_new_tokens=64)  # the same text again

Names are loaded at first use, so that ``import stochroute`` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stochroute import noise
    from stochroute.config import Attention, Experts, RoutingConfig, Structural
    from stochroute.generation.outputs import RoutedOutput
    from stochroute.generation.receipts import Receipt, ReplayMismatch
    from stochroute.paths import derive_paths, format_path, parse_path
    from stochroute.routed import RoutedModel, route

__version__ = "0.1.0"

_HOME_OF = {
    "Attention": "stochroute.config",
    "Experts": "stochroute.config",
    "RoutingConfig": "stochroute.config",
    "Structural": "stochroute.config",
    "RoutedOutput": "stochroute.generation.outputs",
    "Receipt": "stochroute.generation.receipts",
    "ReplayMismatch": "stochroute.generation.receipts",
    "derive_paths": "stochroute.paths",
    "format_path": "stochroute.paths",
    "parse_path": "stochroute.paths",
    "RoutedModel": "stochroute.routed",
    "route": "stochroute.routed",
}

__all__ = [
    "Attention",
    "Experts",
    "Receipt",
    "ReplayMismatch",
    "RoutedModel",
    "RoutedOutput",
    "RoutingConfig",
    "Structural",
    "__version__",
    "derive_paths",
    "format_path",
    "noise",
    "parse_path",
    "route",
]


def __getattr__(name: str) -> Any:
    if name == "noise":
        return import_module("stochroute.noise")
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'stochroute' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
