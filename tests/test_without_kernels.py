"""Installed without a C++ compiler the package works in torch, says so once, and replays the same paths."""

import warnings

import pytest
import torch

import stochroute as sr
from families import FAMILIES
from levels import LEVELS
from matrix import PATHS, assert_same, kinds_of, logits_of, padded, random_ids
from stochroute import compiled

IDS, MASK = padded(random_ids(3, 12), [12, 5, 9], 12)


@pytest.fixture
def missing(monkeypatch, tmp_path):
    """No library lies where it is looked for."""
    monkeypatch.setattr(compiled, "_FILE", tmp_path / "libstochroute_kernels.so")
    compiled.library.cache_clear()
    yield
    compiled.library.cache_clear()


@pytest.mark.skipif(not LEVELS, reason="the package was installed without a C++ compiler")
@torch.no_grad()
def test_without_the_library_the_same_paths_are_walked_in_torch(request):
    def logits(model) -> torch.Tensor:
        routed = sr.route(model, kinds_of("gpt_oss")["mixed"])
        try:
            with routed.follow(PATHS):
                return logits_of(model, IDS, MASK)[MASK.bool()]
        finally:
            routed.detach()

    model = FAMILIES["gpt_oss"].build(torch.float32)
    with_kernels = logits(model)
    request.getfixturevalue("missing")
    with pytest.warns(compiled.KernelsMissing, match=r"install a C\+\+ compiler"):
        without = logits(model)
    assert_same(without, with_kernels)


@pytest.mark.usefixtures("missing")
def test_it_says_so_once_and_explain_says_why():
    routed = sr.route(FAMILIES["llama"].build(torch.float32), kinds_of("llama")["mixed"])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        rows = routed.explain().rows
        with routed.follow(PATHS), torch.no_grad():
            logits_of(routed.model, IDS, MASK)
    assert [w.category for w in said] == [compiled.KernelsMissing]
    assert {row.implementation for row in rows} == {"blocked", "reference"}
    assert all("no C++ compiler" in row.reason for row in rows)


def test_an_instruction_set_that_the_processor_lacks_is_an_error(monkeypatch):
    monkeypatch.setenv(compiled.LEVEL_VARIABLE, "avx1024")
    compiled.level.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"STOCHROUTE_CPU_LEVEL='avx1024' cannot be used here: choose one of base"):
            compiled.level()
    finally:
        monkeypatch.undo()
        compiled.level.cache_clear()
