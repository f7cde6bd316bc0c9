"""Bad input ends in exit code 2 and one line that names the argument; a bug keeps its traceback."""

import shutil
from pathlib import Path

import pytest

import stochroute as sr
from cli_model import CONTEXT, save_tiny_model
from stochroute.cli import run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on standard error."""
    assert run(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("stochroute: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--paths", "0"], "--paths 0"),
        (["--paths", "-3"], "--paths -3"),
        (["--paths", "x"], "'--paths'"),
        (["--seed", "-1"], "seed=-1"),
        (["--seed", str(1 << 64)], f"seed={1 << 64}"),
        (["--strength", "-0.1"], "--strength -0.1"),
        (["--strength", "nan"], "--strength nan"),
        (["--strength", "inf"], "--strength inf"),
        (["--strength", "strong"], "--strength strong"),
        (["--attention-strength", "nan"], "--attention-strength nan"),
        (["--expert-strength", "-1"], "--expert-strength -1"),
        (["--layers", "top"], "--layers top"),
        (["--layers", "3-1"], "--layers 3-1"),
        (["--hold", "0"], "--hold 0"),
        (["--form", "round"], "--form round"),
        (["--span", "some"], "--span some"),
        (["--temperature", "0"], "--temperature 0"),
        (["--temperature", "nan"], "--temperature nan"),
        (["--top-k", "0"], "--top-k 0"),
        (["--top-p", "1.5"], "--top-p 1.5"),
        (["--min-p", "-1"], "--min-p -1"),
        (["--spread"], "--spread has no effect on greedy decoding: add --temperature 1"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0"),
        (["--batch", "0"], "--batch 0"),
        (["--dtype", "int8"], "--dtype int8"),
        (["--replay", "zz"], "--replay zz"),
        (["--replay", "0123456789abcdef0"], "--replay 0123456789abcdef0"),
        (["--replay", "0" * 16, "--replay", "0" * 16], "twice"),
        (["--replay", "0" * 16, "--paths", "2"], "--paths 2 has no effect"),
        (["--replay", "0" * 16, "--seed", "2"], "--seed 2 has no effect"),
        (["--model", "./no/such/folder"], "--model ./no/such/folder"),
        (["--routing", "nowhere"], "--routing nowhere"),
        (["--routing", "nowhere", "--strength", "1"], "--strength has no effect"),
        (["--output", "/no/such/folder/out.jsonl"], "--output /no/such/folder/out.jsonl"),
        (["--output", "."], "--output ."),
        (["--resume"], "--resume has no effect"),
        (["--prompts-file", "p.txt"], "--prompts-file p.txt has no effect"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_a_bad_argument_is_named_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], named: str
):
    monkeypatch.setattr("stochroute.cli.generate.load_model", lambda *_: pytest.fail("the model was loaded"))
    assert named in complaint(capsys, "generate", "Once", *arguments)


def test_a_verb_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]):
    assert "generat" in complaint(capsys, "generat")


def test_an_empty_prompt_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert "prompt 2: the prompt is empty" in complaint(capsys, "generate", "Once", "")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n\n{"prompt": ""}\n')
    assert "line 3: the prompt is empty" in complaint(
        capsys, "generate", "--prompts-file", str(tmp_path / "prompts.jsonl")
    )


def test_a_prompt_that_is_no_utf8_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "prompts.txt").write_bytes(b"fine\nfin\xe9\n")
    assert "line 2: not UTF-8" in complaint(capsys, "generate", "--prompts-file", str(tmp_path / "prompts.txt"))
    assert "prompt 1: the prompt is not valid UTF-8" in complaint(capsys, "generate", "fin\udce9")


def test_a_file_of_prompts_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    missing = str(tmp_path / "missing.txt")
    assert missing in complaint(capsys, "generate", "--prompts-file", missing)
    assert str(tmp_path) in complaint(capsys, "generate", "--prompts-file", str(tmp_path))
    (tmp_path / "empty.txt").write_text("\n")
    assert "no prompt in it" in complaint(capsys, "generate", "--prompts-file", str(tmp_path / "empty.txt"))
    (tmp_path / "mixed.jsonl").write_text('{"prompt": "a"}\nplain\n')
    assert "line 2: no JSON" in complaint(capsys, "generate", "--prompts-file", str(tmp_path / "mixed.jsonl"))
    (tmp_path / "typo.jsonl").write_text('{"promt": "a"}\n')
    assert 'line 1: no "prompt"' in complaint(capsys, "generate", "--prompts-file", str(tmp_path / "typo.jsonl"))


def test_what_does_not_fit_the_model_is_refused(model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    output = tmp_path / "out.jsonl"
    common = ["--model", model, "--output", str(output)]
    assert f"holds {CONTEXT}" in complaint(capsys, "generate", "a" * CONTEXT, *common)
    assert "at most 62" in complaint(capsys, "generate", "ab", *common, "--max-new-tokens", "63")
    assert "--model" in complaint(capsys, "generate", "ab", *common, "--layers", "0,7")
    assert "router" in complaint(capsys, "generate", "ab", *common, "--expert-strength", "1")
    assert "--device abacus" in complaint(capsys, "generate", "ab", *common, "--device", "abacus")
    assert "there is no prompt" in complaint(capsys, "generate", *common)
    assert not output.exists()


def test_a_folder_without_a_whole_model_is_refused(model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert "no config.json" in complaint(capsys, "generate", "ab", "--model", str(tmp_path))
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert f"--model {broken}" in complaint(capsys, "generate", "ab", "--model", str(broken))
    (broken / "config.json").write_text('{"model_type": "no_such_type"}')
    assert "no_such_type" in complaint(capsys, "generate", "ab", "--model", str(broken))


def test_a_model_that_is_neither_here_nor_reachable_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", offline)
    assert "the Hub cannot be reached" in complaint(capsys, "generate", "ab", "--model", "no-such/model-anywhere")


def test_a_routing_that_does_not_fit_is_refused(model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    from transformers import AutoModelForCausalLM

    other = save_tiny_model(tmp_path / "other", layers=4)
    routing = tmp_path / "routing"
    sr.route(AutoModelForCausalLM.from_pretrained(other)).save_pretrained(routing)
    arguments = ["generate", "ab", "--model", model, "--routing"]
    assert "another model" in complaint(capsys, *arguments, str(routing))
    (routing / "routing.safetensors").write_bytes(b"half")
    assert "routing.safetensors" in complaint(capsys, *arguments, str(routing))
    (routing / "routing.safetensors").unlink()
    assert "routing.safetensors" in complaint(capsys, *arguments, str(routing))


@pytest.mark.parametrize("bug", [KeyError("layer"), RuntimeError("shapes"), TypeError("none")])
def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, bug: Exception):
    def buggy(*_: object) -> None:
        raise bug

    monkeypatch.setattr("stochroute.cli.generate.load_model", buggy)
    with pytest.raises(type(bug)):
        run(["generate", "Once"])


def test_ctrl_c_inside_an_import_ends_quietly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def importing(*_: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise RuntimeError("could not import") from error

    monkeypatch.setattr("stochroute.cli.generate.load_model", importing)
    assert run(["generate", "Once"]) == 130
    assert capsys.readouterr().err == "stochroute: interrupted\n"


def test_a_value_error_from_another_package_is_a_bug_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stochroute.cli.generate.load_model", lambda *_: Path("\0").resolve(strict=True))
    with pytest.raises(ValueError, match="null"):
        run(["generate", "Once"])
