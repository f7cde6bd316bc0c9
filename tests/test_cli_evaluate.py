"""`stochroute evaluate` from the command line: a whole run, gone on with, and everything that it refuses."""

import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from evaluation_runs import models
from stochroute.cli import run
from stochroute.evaluation import evaluate as evaluation
from stochroute.evaluation.report import render
from stochroute.evaluation.sampling import Sampler
from stochroute.routed import RoutedModel

TEXTS = "cut off<|endoftext|>the cat sat on the mat and slept<|endoftext|>a dog ran far away from here<|endoftext|>cut"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("texts") / "texts.txt"
    file.write_text(TEXTS)
    return str(file)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is measured elsewhere (test_evaluation_costs); here a cost is one pair."""
    cost_of = evaluation.cost_of
    monkeypatch.setattr(evaluation, "cost_of", lambda *arguments: cost_of(*arguments, pairs=1))


def arguments(folders: tuple[str, str], texts: str, output: Path, *more: str) -> list[str]:
    return ["evaluate", "--model", folders[0], "--judge", folders[1], "--texts", texts, "--prompt-words", "3",
            "--samples", "3", "--max-new-tokens", "6", "--dtype", "float64", "--arms", "temperature,shared",
            "--budgets", "1e-4,2e-4,4e-4,8e-4,1.6e-3", "--output", str(output), *more]  # fmt: skip


@pytest.fixture(scope="module")
def finished(folders: tuple[str, str], texts: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        cost_of = evaluation.cost_of
        patch.setattr(evaluation, "cost_of", lambda *given: cost_of(*given, pairs=1))
        assert run(arguments(folders, texts, output, "--mauve")) == 0
    return output


def figures(folder: Path) -> dict[str, Any]:
    """All figures but the costs, which are times, and the command."""
    found = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return {key: value for key, value in found.items() if key not in ("costs", "command")}


def test_a_run_has_all_figures_and_a_verdict(finished: Path):
    found = json.loads((finished / "evaluation.json").read_text(encoding="utf-8"))
    assert found["verdict"]
    assert found["headline"] == {"quality": "likelihood", "diversity": "vendi_ngrams"}
    assert [arm["name"] for arm in found["arms"]] == ["temperature", "shared"]
    assert len(found["settings"]) == 10
    for setting in found["settings"]:
        likelihood = setting["measured"]["likelihood"]
        assert likelihood["low"] <= likelihood["value"] <= likelihood["high"] < 0
        assert 0 <= setting["mauve"] <= 1
        assert (setting["budget"] is None) == (setting["arm"] == "temperature")
    strengths = [s["routing"]["structural"]["strength"] for s in found["settings"][5:]]
    assert strengths == sorted(strengths)
    assert len(set(strengths)) == 5
    assert found["costs"]["shared"]["parameters"] > 0 == found["costs"]["temperature"]["parameters"]
    assert found["prompts"] == ["the cat sat", "a dog ran"]
    assert found["thresholds"]["source"] == "2 real texts"


def test_the_same_seed_gives_the_same_report_also_after_an_interruption(
    finished: Path, folders: tuple[str, str], texts: str, tmp_path: Path
):
    output = tmp_path / "half"
    output.mkdir()
    for name in ("run.json", "samples.jsonl", "scores.jsonl"):
        data = (finished / name).read_bytes()
        (output / name).write_bytes(data if name == "run.json" else data[: len(data) // 2])
    assert run(arguments(folders, texts, output, "--mauve", "--resume")) == 0
    assert (output / "samples.jsonl").read_bytes() == (finished / "samples.jsonl").read_bytes()
    assert figures(output) == figures(finished)
    fresh = tmp_path / "fresh"
    assert run(arguments(folders, texts, fresh, "--mauve")) == 0
    assert figures(fresh) == figures(finished)
    other = tmp_path / "other"
    assert run(arguments(folders, texts, other, "--mauve", "--seed", "1")) == 0
    assert figures(other)["settings"] != figures(finished)["settings"]


class Resources(HTMLParser):
    """What a page would load, and the text of its data element."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.data = ""
        self._in_data = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.asked += [str(found[key]) for key in ("src", "href") if found.get(key)]
        self._in_data = tag == "script" and found.get("id") == "data"

    def handle_endtag(self, tag: str) -> None:
        self._in_data = False

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.data += data


def test_the_report_holds_everything_and_asks_for_nothing(finished: Path):
    page = (finished / "report.html").read_text(encoding="utf-8")
    found = Resources()
    found.feed(page)
    assert found.asked == []
    assert json.loads(found.data) == json.loads((finished / "evaluation.json").read_text(encoding="utf-8"))
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page


def test_a_text_that_looks_like_markup_stays_a_text(finished: Path):
    result = json.loads((finished / "evaluation.json").read_text(encoding="utf-8"))
    nasty = "</script><script>alert(1)</script><!--"
    result["samples"]["arms"][0]["texts"][0][0]["text"] = nasty
    found = Resources()
    found.feed(render(result))
    assert json.loads(found.data)["samples"]["arms"][0]["texts"][0][0]["text"] == nasty


def test_strengths_found_before_an_interruption_are_not_looked_for_again(
    finished: Path, folders: tuple[str, str], texts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output = tmp_path / "run"
    output.mkdir()
    record = json.loads((finished / "run.json").read_text())
    first = dict(list(record["strengths"].items())[:3])
    (output / "run.json").write_text(json.dumps({**record, "strengths": first}))
    asked: list[float] = []
    calibrate = RoutedModel.calibrate

    def counted(routed: RoutedModel, *arguments: Any, budget: float, **more: Any) -> Any:
        asked.append(budget)
        return calibrate(routed, *arguments, budget=budget, **more)

    monkeypatch.setattr(RoutedModel, "calibrate", counted)
    assert run(arguments(folders, texts, output, "--mauve", "--resume")) == 0
    assert asked == [8e-4, 1.6e-3]
    assert figures(output) == figures(finished)


def test_ctrl_c_says_how_to_go_on_and_loses_nothing(
    finished: Path,
    folders: tuple[str, str],
    texts: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    output, write = tmp_path / "run", Sampler._write
    with pytest.MonkeyPatch.context() as patch:
        calls = iter(range(4))

        def interrupted(*given: Any) -> Any:
            if next(calls) == 3:
                raise KeyboardInterrupt
            return write(*given)

        patch.setattr(Sampler, "_write", interrupted)
        assert run(arguments(folders, texts, output, "--mauve")) == 130
    assert "the same command with --resume goes on" in capsys.readouterr().err
    assert len((output / "samples.jsonl").read_bytes().splitlines()) == 3 * 2 * 3
    assert run(arguments(folders, texts, output, "--mauve", "--resume")) == 0
    assert figures(output) == figures(finished)


def test_json_prints_the_figures(
    finished: Path, folders: tuple[str, str], texts: str, capsys: pytest.CaptureFixture[str]
):
    assert run(arguments(folders, texts, finished, "--mauve", "--resume", "--json")) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["verdict"] == figures(finished)["verdict"]


def test_the_table_and_the_verdict_are_shown(
    finished: Path, folders: tuple[str, str], texts: str, capsys: pytest.CaptureFixture[str]
):
    assert run(arguments(folders, texts, finished, "--mauve", "--resume")) == 0
    out = capsys.readouterr().out
    assert "report.html" in out
    assert "at equal quality" in out


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--seed", "8"], "seed was 0, now 8"),
        (["--samples", "4"], "samples was 3, now 4"),
        (["--arms", "temperature"], "settings differ from number 6 on"),
        (["--dtype", "float32"], "dtype was"),
    ],
)
def test_another_run_is_refused_and_nothing_is_lost(
    finished: Path,
    folders: tuple[str, str],
    texts: str,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    complaint: str,
):
    before = {file.name: file.read_bytes() for file in finished.iterdir()}
    assert run(arguments(folders, texts, finished, "--resume", *more)) == 2
    assert complaint in capsys.readouterr().err
    assert run(arguments(folders, texts, finished)) == 2
    assert "go on with it by --resume" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in finished.iterdir()} == before


BAD = {
    "one sample": (["--samples", "1"], "nothing is diverse alone"),
    "no tokens": (["--max-new-tokens", "0"], "--max-new-tokens 0: must be at least 1"),
    "too many tokens": (["--max-new-tokens", "500"], "more than the 64 that"),
    "a cosine": (["--same-above", "2"], "--same-above 2.0: must be in (0, 1]"),
    "an unknown arm": (["--arms", "temperature,warmth"], "'warmth' is unknown; choose from temperature, top-p"),
    "four budgets": (["--budgets", "1,2,3,4"], "give 5 different positive numbers"),
    "a word as a budget": (["--budgets", "1,2,3,4,much"], "--budgets 1,2,3,4,much"),
    "an unreachable budget": (["--budgets", "100,200,300,400,500"], "shared: budget=100 is out of reach"),
    "a seed": (["--seed", "-1"], "--seed=-1"),
    "a dtype": (["--dtype", "int8"], "--dtype int8: choose"),
    "a checker": (["--checker", "taste"], "--checker taste: choose story-world or answers"),
    "answers": (["--checker", "answers"], "the prompts have no answers"),
    "no such judge": (["--judge", "./nowhere"], "nowhere: no such folder"),
    "two kinds of prompts": (["--prompts-file", "x"], "--prompts-file and --texts name prompts"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing_half_done(
    folders: tuple[str, str], texts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
):
    more, complaint = BAD[case]
    assert run(arguments(folders, texts, tmp_path / "run", *more)) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert "Traceback" not in error
    assert not list((tmp_path / "run").glob("*.jsonl"))


def test_prompts_must_be_there_and_hold_two_tokens(
    folders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    common = ["--model", folders[0], "--judge", folders[1], "--output", str(tmp_path / "run"), "--samples", "2"]
    assert run(["evaluate", "a", *common]) == 2
    assert "prompt 1 ('a') has 1 token" in capsys.readouterr().err
    assert run(["evaluate", *common]) == 2
    assert "there is no prompt" in capsys.readouterr().err
    assert run(["evaluate", *common, "--texts", str(tmp_path / "none.txt")]) == 2
    assert "name a readable UTF-8 file" in capsys.readouterr().err
    (tmp_path / "short.txt").write_text("too short")
    assert run(["evaluate", *common, "--texts", str(tmp_path / "short.txt")]) == 2
    assert "holds no text of more than 12 words" in capsys.readouterr().err
    (tmp_path / "rows.jsonl").write_text('{"prompt": "ab", "answer": "1"}\n{"prompt": "cd"}\n')
    assert run(["evaluate", *common, "--prompts-file", str(tmp_path / "rows.jsonl")]) == 2
    assert 'row 2 has no "answer"' in capsys.readouterr().err


def test_diversity_is_never_measured_without_quality_nor_by_the_model_itself(
    folders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    common = ["evaluate", "abc", "--model", folders[0], "--output", str(tmp_path / "run")]
    assert run(common) == 2
    assert "--judge is missing" in capsys.readouterr().err
    assert run([*common, "--judge", folders[0]]) == 2
    assert "is the generator itself" in capsys.readouterr().err
    assert run([*common, "--judge", folders[1], "--mauve"]) == 2
    assert "--mauve compares with references" in capsys.readouterr().err


@pytest.mark.parametrize(("package", "extra"), [("vendi_score", "eval"), ("wordllama", "eval"), ("mauve", "mauve")])
def test_a_missing_package_names_its_extra(
    folders: tuple[str, str],
    texts: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    extra: str,
):
    monkeypatch.setitem(sys.modules, package, None)
    assert run(arguments(folders, texts, tmp_path / "run", "--mauve")) == 2
    assert f"pip install 'stochroute[{extra}]'" in capsys.readouterr().err


def test_where_nothing_is_coherent_all_is_kept_and_the_failure_said(
    folders: tuple[str, str], texts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "run"
    assert run(arguments(folders, texts, output, "--checker", "story-world")) == 1
    shown = capsys.readouterr()
    assert "not one text of any arm is coherent" in shown.err
    assert "or not one text of any arm is coherent" in " ".join(shown.out.split())
    assert len((output / "samples.jsonl").read_bytes().splitlines()) == 10 * 2 * 3
    assert (output / "report.html").exists()


def test_answers_give_pass_at_k_and_coverage(folders: tuple[str, str], tmp_path: Path):
    rows = [{"question": f"What is {i}?", "answer": f"#### {i}"} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "run"
    asked = ["--model", folders[0], "--prompts-file", str(tmp_path / "rows.jsonl"), "--checker", "answers"]
    size = ["--samples", "4", "--max-new-tokens", "12", "--arms", "temperature"]
    assert run(["evaluate", *asked, *size, "--output", str(output)]) in (0, 1)  # 1 where no text holds a number
    found = figures(output)
    assert found["headline"] == {"quality": "correct", "diversity": "identities"}
    measured = found["settings"][0]["measured"]
    assert measured["correct"]["value"] <= measured["pass_at_2"]["value"] <= measured["coverage"]["value"]
    assert found["verdict"].startswith("No verdict")
