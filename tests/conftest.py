"""Every test runs offline, on one thread, and with the same examples of Hypothesis each time."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import stochroute as sr
from generation_runs import config
from levels import LEVELS
from matrix import routed_model
from routing_folders import CONFIGS, learn, llama
from stochroute import compiled
from stochroute.noise import DISTRIBUTIONS
from triton_device import triton_for_tests

torch.set_num_threads(1)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="module")
def raw_words() -> Iterator[None]:
    """Makes "word" a distribution that hands out the 32-bit words themselves."""
    DISTRIBUTIONS["word"] = lambda word: word
    yield
    del DISTRIBUTIONS["word"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with the routing "both", its parameters moved."""
    routed = sr.route(llama(), CONFIGS["both"])
    learn(routed)
    routed.save_pretrained(tmp_path / "routing")
    return tmp_path / "routing"


@pytest.fixture(params=["generated", "all"])
def span(request) -> str:
    return request.param


@pytest.fixture
def routed():
    with routed_model("llama", config()) as routed:
        yield routed


@pytest.fixture
def triton_here() -> Iterator[None]:
    """Triton's kernels run: on a GPU, or in its interpreter where there is none."""
    with triton_for_tests():
        yield


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch) -> str:
    """Every instruction set of the compiled kernels that this processor has."""
    monkeypatch.setattr(compiled, "level", lambda: compiled.LEVELS.index(request.param))
    return request.param
