"""What the tests of torch.compile share: a compiler without a past, and a backend that counts its graphs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def fresh_compiler() -> Iterator[None]:
    """No graph is left over from another test."""
    torch._dynamo.reset()
    try:
        yield
    finally:
        torch._dynamo.reset()


class Counting:
    """A backend that counts the graphs it compiles."""

    def __init__(self, backend: str):
        self.backend = torch._dynamo.lookup_backend(backend)
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return self.backend(graph, inputs)
