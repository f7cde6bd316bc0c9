"""`stochroute calibrate`, and what --budget and --strength auto do to `stochroute generate`."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import stochroute as sr
from cli_model import CONTEXT, save_tiny_model
from stochroute.cli import run
from stochroute.cli.request import Noise
from stochroute.config import DEFAULT_BUDGET

WORDS = ["the river", "a small dog", "two old friends", "snow fell", "it was noon", "she laughed", "no one came", "oh"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    (tmp_path / "prompts.txt").write_text("\n".join(WORDS))
    return str(tmp_path / "prompts.txt")


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert run(["calibrate", "--pairs", "16", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[dict], str]:
    """The rows, and what was said on standard error."""
    assert run(["generate", "ab", "--paths", "2", "--max-new-tokens", "4", "--json", *arguments]) == 0
    captured = capsys.readouterr()
    return [json.loads(line) for line in captured.out.splitlines()], captured.err


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def noise(**given: object) -> Noise:
    return Noise(**{name: given.get(name) for name in Noise.__dataclass_fields__})  # pyright: ignore


def test_a_person_sees_the_strength_the_interval_and_a_bar_for_each_site(
    model: str, prompts: str, capsys: pytest.CaptureFixture[str]
):
    options = ["--prompts-file", prompts, "--budget", "0.1", "--layers", "all", "--pairs", "16"]
    assert run(["calibrate", "--model", model, *options]) == 0
    out = capsys.readouterr().out
    assert "budget 0.1" in out
    assert "95 %" in out
    assert "█" in out
    for layer in range(3):
        assert f"\nstructural {layer} " in out


def test_json_holds_the_report(model: str, prompts: str, capsys: pytest.CaptureFixture[str]):
    found = report(
        capsys, "--model", model, "--prompts-file", prompts, "--budget", "0.1", "--attention-strength", "0.5"
    )
    assert found["nats"] == pytest.approx(0.1, rel=3e-3)
    assert found["pairs"] == 16
    assert {site["kind"] for site in found["contributions"]} == {"structural", "attention"}
    config = sr.RoutingConfig.from_dict(found["config"])
    assert config.attention.strength / config.structural.strength == pytest.approx(5, rel=1e-3)


def test_the_saved_routing_is_walked_as_it_was_calibrated(
    model: str, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = str(tmp_path / "routing")
    found = report(capsys, "--model", model, "--prompts-file", prompts, "--budget", "0.1", "--output", folder)
    strength = found["config"]["structural"]["strength"]
    saved, _ = rows(capsys, "--model", model, "--routing", folder, "--seed", "7")
    typed, _ = rows(capsys, "--model", model, "--strength", str(strength), "--seed", "7")
    assert saved == typed
    # calibrated once more, from the saved strengths
    again = report(capsys, "--model", model, "--routing", folder, "--prompts-file", prompts, "--budget", "0.2")
    assert again["nats"] == pytest.approx(0.2, rel=3e-3)
    assert again["config"]["structural"]["strength"] > strength


def test_a_plot_is_written(model: str, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    report(capsys, "--model", model, "--prompts-file", prompts, "--plot", str(tmp_path / "plot.svg"))
    assert ElementTree.parse(tmp_path / "plot.svg").getroot().tag.endswith("svg")


def test_the_same_command_finds_the_same(model: str, prompts: str, capsys: pytest.CaptureFixture[str]):
    arguments = ("--model", model, "--prompts-file", prompts, "--split", "sensitivity", "--quantity", "transmission")
    assert report(capsys, *arguments) == report(capsys, *arguments)
    assert report(capsys, *arguments, "--seed", "1") != report(capsys, *arguments)


def test_a_model_without_a_routing_is_calibrated_and_its_paths_replay(model: str, capsys: pytest.CaptureFixture[str]):
    told, said = rows(capsys, "--model", model, "--seed", "7")
    assert "calibrated to 0.05 nats a noised position on neutral passages" in said
    again, _ = rows(capsys, "--model", model, "--seed", "7")
    assert again == told
    replayed = ["generate", "ab", "--model", model, "--replay", told[1]["path"], "--max-new-tokens", "4", "--json"]
    assert run(replayed) == 0
    assert json.loads(capsys.readouterr().out) == {**told[1], "seed": None}
    # the strength that was said gives the same without calibration
    option, strength = said.split()[:2]
    typed, said = rows(capsys, "--model", model, "--seed", "7", option, strength.rstrip(":"))
    assert typed == told
    assert "calibrated" not in said


def test_auto_and_the_default_budget_are_what_is_done_without_any(model: str, capsys: pytest.CaptureFixture[str]):
    told, _ = rows(capsys, "--model", model, "--seed", "7")
    assert rows(capsys, "--model", model, "--seed", "7", "--strength", "auto")[0] == told
    assert rows(capsys, "--model", model, "--seed", "7", "--budget", str(DEFAULT_BUDGET))[0] == told
    assert rows(capsys, "--model", model, "--seed", "7", "--budget", "0.2")[0] != told


def test_a_file_begun_with_a_budget_is_gone_on_with(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "out.jsonl"
    arguments = ["generate", "ab", "cd", "--model", model, "--seed", "7", "--paths", "2", "--budget", "0.1"]
    arguments += ["--max-new-tokens", "4", "--dtype", "float64", "--output", str(output)]
    assert run(arguments) == 0
    whole = output.read_text()
    output.write_text("".join(whole.splitlines(keepends=True)[:3]))
    assert run([*arguments, "--resume"]) == 0
    assert output.read_text() == whole
    output.write_text("".join(whole.splitlines(keepends=True)[:3]))
    capsys.readouterr()
    assert run([*arguments, "--budget", "0.2", "--resume"]) == 2
    assert "other circumstances" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "model", "budget"),
    [
        ({}, "NAME", DEFAULT_BUDGET),
        ({"layers": "all", "hold": "1"}, "NAME", DEFAULT_BUDGET),
        ({}, None, None),  # the embedded model has a strength of its own
        ({"strength": "auto"}, None, DEFAULT_BUDGET),
        ({"budget": 0.2}, None, 0.2),
        ({"budget": 0.2, "strength": "auto"}, "NAME", 0.2),
        ({"budget": 0.2, "strength": "0", "attention_strength": 1.0}, "NAME", 0.2),
        ({"strength": "auto", "attention_strength": 1.0}, "NAME", DEFAULT_BUDGET),
        ({"strength": "0.3"}, "NAME", None),
        ({"attention_strength": 1.0}, "NAME", None),
        ({"expert_strength": 1.0}, "NAME", None),
    ],
)
def test_strengths_given_are_taken_unless_a_budget_is(given: dict, model: str | None, budget: float | None):
    asked = noise(**given)
    asked.config()
    assert asked.budget_for(model) == budget


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--budget", "0"], "--budget 0"),
        (["--budget", "-1"], "--budget -1"),
        (["--budget", "nan"], "--budget nan"),
        (["--budget", "inf"], "--budget inf"),
        (["--budget", "much"], "'--budget'"),
    ],
)
@pytest.mark.parametrize("verb", [("generate", "Once"), ("calibrate",)])
def test_a_bad_budget_is_named_before_anything_is_loaded(
    verb: tuple[str, ...],
    arguments: list[str],
    named: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    for name in ("generate", "calibrate"):
        monkeypatch.setattr(f"stochroute.cli.{name}.load_model", lambda *_: pytest.fail("the model was loaded"))
    assert named in complaint(capsys, *verb, *arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (
            ["generate", "Once", "--budget", "0.1", "--strength", "0.3"],
            "--strength 0.3 has no effect beside --budget 0.1",
        ),
        (["generate", "Once", "--budget", "0.1", "--routing", "."], "--budget has no effect beside --routing"),
        (["calibrate", "--quantity", "entropy"], "--quantity entropy"),
        (["calibrate", "--split", "half"], "--split half"),
        (["calibrate", "--pairs", "1"], "--pairs 1"),
        (["calibrate", "--seed", "-1"], "seed=-1"),
        (["calibrate", "--dtype", "int8"], "--dtype int8"),
        (["calibrate", "--routing", "nowhere"], "--routing nowhere"),
        (["calibrate", "--routing", ".", "--layers", "all"], "--layers has no effect beside --routing"),
        (["calibrate", "--model", "./no/such/folder"], "--model ./no/such/folder"),
        (["calibrate", "--prompts-file", "./missing.txt"], "--prompts-file ./missing.txt"),
        (["calibrate", "--output", "FILE"], "is a file"),
        (["calibrate", "--output", "FULL"], "holds files already"),
        (["calibrate", "--plot", "./missing/plot.svg"], "--plot ./missing/plot.svg"),
        (["calibrate", "--strength", "strong"], "--strength strong"),
    ],
)
def test_a_bad_argument_is_named_before_anything_is_loaded(
    arguments: list[str],
    named: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    for name in ("generate", "calibrate"):
        monkeypatch.setattr(f"stochroute.cli.{name}.load_model", lambda *_: pytest.fail("the model was loaded"))
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("mine")
    Path("FULL").mkdir()
    Path("FULL/routing.json").write_text("mine")
    assert named in complaint(capsys, *arguments)
    assert Path("FILE").read_text() == Path("FULL/routing.json").read_text() == "mine"


def test_what_cannot_be_calibrated_leaves_nothing_behind(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def refused(text: str, *options: str) -> str:
        (tmp_path / "prompts.txt").write_text(text)
        targets = ["--output", str(tmp_path / "out"), "--plot", str(tmp_path / "plot.svg")]
        options = (*options, "--prompts-file", str(tmp_path / "prompts.txt"))
        return complaint(capsys, "calibrate", "--model", model, *options, *targets)

    good = "\n".join(WORDS)
    assert "prompts holds 1" in refused("only one")
    assert "prompt 1 has 1 token" in refused("fine\nx")
    assert f"holds {CONTEXT}" in refused("fine\n" + "x" * 100)
    assert "every strength is 0" in refused(good, "--strength", "0")
    assert "out of reach: the largest reached is" in refused(good, "--budget", "1000", "--pairs", "16")
    assert "router" in refused(good, "--expert-strength", "1")
    assert "--model" in refused(good, "--layers", "0,7")
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.txt"]


def test_a_default_out_of_reach_is_said_by_generate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("stochroute.cli.request.DEFAULT_BUDGET", 1000.0)
    model = save_tiny_model(tmp_path / "tiny")
    assert "budget=1000 is out of reach" in complaint(capsys, "generate", "ab", "--model", model)


def test_ctrl_c_ends_quietly(model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stochroute.routed.RoutedModel.calibrate", interrupted)
    assert run(["calibrate", "--model", model]) == 130
    assert capsys.readouterr().err == "stochroute: interrupted\n"


def test_help_shows_an_example_and_imports_neither_torch_nor_scipy():
    code = (
        "import sys; from stochroute.cli import run; run(['calibrate', '--help']); "
        "sys.exit(' '.join(sys.modules.keys() & {'torch', 'transformers', 'numpy', 'scipy'}) or 0)"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, encoding="utf-8").stdout
    assert "Example" in shown
    assert "--budget" in shown
