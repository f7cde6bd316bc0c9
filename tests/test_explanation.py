"""`routed.explain()` names what really runs."""

import pytest
import torch

import stochroute as sr
from levels import LEVELS
from matrix import PATHS, kinds_of, random_ids, routed_model
from stochroute.kernels import dispatch

IDS = random_ids(3, 8)
needs_kernels = pytest.mark.skipif(not LEVELS, reason="the package was installed without a C++ compiler")


@needs_kernels
@pytest.mark.parametrize(
    ("dtype", "attention", "structural"),
    [
        (torch.float32, "fused", "fused"),
        (torch.bfloat16, "fused", "fused"),
        (torch.float64, "blocked", "reference"),
        (torch.float16, "blocked", "reference"),
    ],
)
@torch.no_grad()
def test_what_it_names_is_what_runs(dtype, attention, structural, monkeypatch):
    ran = []
    for name in dispatch.ATTENTION:
        kernel = dispatch.ATTENTION[name]
        monkeypatch.setitem(dispatch.ATTENTION, name, lambda i, name=name, kernel=kernel: ran.append(name) or kernel(i))
    for name in ("fused_add_noise", "add_noise"):
        kernel = getattr(dispatch, name)
        short = "fused" if name == "fused_add_noise" else "reference"
        monkeypatch.setattr(dispatch, name, lambda *a, short=short, kernel=kernel: ran.append(short) or kernel(*a))
    with routed_model("llama", "mixed", dtype) as routed:
        rows = {row.kind: row for row in routed.explain().rows}
        with routed.follow(PATHS):
            routed.model(input_ids=IDS)
    assert rows["attention"].implementation == attention
    assert rows["structural"].implementation == structural
    assert rows["attention"].layers == rows["structural"].layers == (0, 1, 2)
    assert rows["attention"].device == "cpu"
    assert set(ran) == {attention, structural}


def test_printed_it_is_a_table():
    with routed_model("gpt_oss", kinds_of("gpt_oss")["mixed"], torch.float32) as routed:
        head, *lines = str(routed.explain()).splitlines()
    assert head.split() == ["kind", "layers", "device", "dtype", "implementation", "why"]
    assert [line.split()[0] for line in lines] == ["structural", "attention", "experts"]
    assert all(line[head.index("device") :].startswith("cpu") for line in lines)


def test_a_kernel_asked_for_by_name_is_named():
    with routed_model("llama", "attention-1", torch.float32, attention_kernel="reference") as routed:
        (row,) = routed.explain().rows
    assert (row.implementation, row.reason) == ("reference", "asked for by name")


def test_an_unknown_kernel_is_an_error_that_names_the_known_ones():
    with (
        pytest.raises(
            ValueError, match=r"attention_kernel='flash' is unknown: choose one of auto, fused, blocked, ref"
        ),
        routed_model("llama", "attention-1", attention_kernel="flash"),
    ):
        pass


def test_the_fused_kernel_asked_for_where_it_cannot_run_is_an_error():
    with (
        routed_model("llama", "attention-1", torch.float64, attention_kernel="fused") as routed,
        routed.follow(PATHS),
        pytest.raises(ValueError, match=r"cannot run here, since .* float64: choose 'auto'"),
    ):
        routed.model(input_ids=IDS)


@needs_kernels
def test_dropout_in_training_is_left_to_torch():
    config = sr.RoutingConfig(structural=None, attention=sr.Attention(strength=0.5), span="all")
    with routed_model("llama", config, torch.float32) as routed:
        model = routed.model
        model.config.attention_dropout = 0.5
        try:
            assert routed.explain().rows[0].implementation == "fused"
            model.train()
            (row,) = routed.explain().rows
        finally:
            model.eval()
            model.config.attention_dropout = 0.0
    assert row.implementation == "blocked"
    assert "dropout" in row.reason


def test_the_latent_form_and_routers_stay_in_torch():
    with routed_model("gpt_oss", "latent-1", torch.float32) as routed:
        assert routed.explain().rows[0].implementation == "torch"
