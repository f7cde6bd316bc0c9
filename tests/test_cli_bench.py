"""`stochroute bench attention`: what runs here and why, and ratios against SDPA."""

import json
from types import SimpleNamespace

import pytest

from levels import LEVELS
from stochroute.cli import run

SMALL = ["bench", "attention", "--length", "32", "--heads", "2", "--width", "16", "--pairs", "2"]


@pytest.mark.parametrize("more", [[], ["--backward"], ["--dtype", "bfloat16"], ["--batch", "3"]])
def test_json_says_what_runs_and_how_fast(more, capsys):
    assert run([*SMALL, "--json", *more]) == 0
    report = json.loads(capsys.readouterr().out)
    rows = {(row["device"], row["dtype"]): row for row in report["implementations"]}
    assert rows["cpu", "float64"]["attention"] == "blocked"
    assert rows["cpu", "float32"]["attention"] == ("fused" if LEVELS else "blocked")
    arms = {"fused", "fused, no noise"} if LEVELS else set()
    assert set(report["over_sdpa"]) == arms | {"blocked", "naive"}
    for found in report["over_sdpa"].values():
        assert 0 < found["low"] <= found["median"] <= found["high"]
        assert found["pairs"] == 2
    assert report["backward"] == ("--backward" in more)


def test_float64_has_no_fused_arm(capsys):
    assert run([*SMALL, "--json", "--dtype", "float64"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["over_sdpa"]) == {"blocked", "naive"}
    assert "float64" in report["left_out"]["fused"]


def test_what_would_not_fit_into_memory_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    assert run([*SMALL, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "naive" not in report["over_sdpa"]
    assert "GiB" in report["left_out"]["naive"]


def test_people_get_two_tables(capsys):
    assert run(SMALL) == 0
    shown = capsys.readouterr().out
    assert "What runs here" in shown
    assert "Time over SDPA without noise" in shown


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--length", "0"], "--length 0"),
        (["--pairs", "-1"], "--pairs -1"),
        (["--dtype", "int8"], "--dtype int8: choose one of float64"),
        (["--device", "tpu"], "--device tpu: choose auto, cpu or cuda"),
    ],
)
def test_a_bad_option_is_named_with_its_remedy(arguments, named, capsys):
    assert run(["bench", "attention", *arguments]) == 2
    assert named in capsys.readouterr().err
