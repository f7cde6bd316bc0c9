"""`stochroute bench creativity`: the shipped models score as reported, and better than their paths shuffled away."""

import json

import pytest

import stochroute as sr
from stochroute.cli import run
from stochroute.embedded.creative import CREATIVE_TASKS, load_creative
from stochroute.measuring.creativity import write_samples


@pytest.mark.parametrize("task", CREATIVE_TASKS)
def test_the_shipped_model_scores_as_reported(task, capsys):
    assert run(["bench", "creativity", "--rescore", task, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["samples"] == 1024
    for share in ("creativity", "coherence", "memorised", "unique"):  # to ties in float32 between machines
        assert report[share] == pytest.approx(report["reported"][share], abs=0.02)
    assert report["share_of_ceiling"] == pytest.approx(report["creativity"] / report["ceiling"])


@pytest.mark.parametrize("task", CREATIVE_TASKS)
def test_fresh_paths_are_as_creative_and_copy_no_more_than_chance(task, capsys):
    assert run(["bench", "creativity", "--rescore", task, "--seed", "77", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    spread = load_creative(task).task.spread(1024)
    assert report["creativity"] == pytest.approx(report["reported"]["creativity"], abs=max(0.05, 4 * spread))
    assert report["memorised"] == pytest.approx(report["chance"], abs=0.06)


@pytest.mark.parametrize("task", CREATIVE_TASKS)
def test_it_is_the_path_that_carries_the_content(task):
    shipped = load_creative(task)
    assert shipped.decoding.temperature is None  # nothing else is drawn
    one_path = sr.derive_paths(1, 1) * 64
    samples = write_samples(shipped.routed, shipped.task, shipped.decoding, one_path)
    assert shipped.task.score(samples).creativity <= 1 / 64


def test_the_table_names_the_ceiling_and_the_command(capsys):
    assert run(["bench", "creativity", "--rescore", "line", "--samples", "32"]) == 0
    out = capsys.readouterr().out
    assert "ceiling of creativity" in out
    assert "benchmarks/creativity.py line" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rescore", "square"], "--rescore square: choose circle or line"),
        (["--rescore", "circle", "--samples", "0"], "--samples 0: give a positive number"),
        (["--rescore", "circle", "--seed", "-1"], "seed=-1"),
        ([], "--rescore"),
    ],
)
def test_bad_arguments_are_named(arguments, words, capsys):
    assert run(["bench", "creativity", *arguments]) == 2
    assert words in capsys.readouterr().err
