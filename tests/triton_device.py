"""Where the tests run Triton: on a GPU if there is one, else in its interpreter, whose kernels are NumPy on the CPU."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Inputs = TypeVar("Inputs")


@contextmanager
def triton_for_tests() -> Iterator[None]:
    """Kernels that are imported or run inside are interpreted where there is no GPU."""
    from triton import knobs

    if DEVICE == "cuda":
        yield
        return
    _interpret_the_language()
    before = knobs.runtime.interpret
    knobs.runtime.interpret = True
    try:
        yield
    finally:
        knobs.runtime.interpret = before


def _interpret_the_language() -> None:
    """Triton's own functions, `tl.sum` among them, were made for a GPU if transformers was the first to import it."""
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    made: dict[Any, InterpretedFunction] = {}
    for module in [m for name, m in sys.modules.items() if name.startswith("triton.language")]:
        for name, function in list(vars(module).items()):
            if isinstance(function, JITFunction):
                setattr(module, name, made.setdefault(function.fn, InterpretedFunction(function.fn)))


def on_device(inputs: Inputs) -> Inputs:
    """The same dataclass with its tensors, and those of dataclasses inside, on DEVICE."""
    assert is_dataclass(inputs)
    return replace(inputs, **{f.name: _moved(getattr(inputs, f.name)) for f in fields(inputs)})


def _moved(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(DEVICE)
    return on_device(value) if is_dataclass(value) else value
