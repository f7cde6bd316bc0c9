"""`stochroute transmission`: the strip of a given text and of a written one, and bad input."""

import json

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import stochroute as sr
from stochroute.cli import run
from stochroute.transmission import decompose
from uncertainty_models import folder

SETTINGS = ["--paths", "4", "--strength", "0.5", "--layers", "all", "--dtype", "float64"]


def test_the_figures_are_those_of_the_library(capsys):
    arguments = ["transmission", "ab", "--model", folder(), "--text", "cde", "--seed", "7", *SETTINGS, "--json"]
    assert run(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prompt"] == "ab"
    assert found["tokens"] == ["c", "d", "e"]
    model = AutoModelForCausalLM.from_pretrained(folder(), dtype="float64").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder())
    routed = sr.route(model, sr.RoutingConfig(structural=sr.Structural(strength=0.5, layers="all")))
    ids = [tokenizer(text)["input_ids"] for text in ("ab", "cde")]
    expected = decompose(routed, ids[0], ids[1], sr.derive_paths(7, 4))
    for name in ("total", "conditional", "transmission"):
        assert found[name] == pytest.approx(getattr(expected, name).tolist(), abs=1e-5)


def test_a_path_writes_the_text_where_none_is_given_and_it_is_drawn(tmp_path, capsys):
    picture = tmp_path / "strip.html"
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("ab\ncd\n")
    arguments = ["transmission", "--prompts-file", str(prompts), "--model", folder(), *SETTINGS]
    assert run([*arguments, "--max-new-tokens", "6", "--output", str(picture)]) == 0
    out = capsys.readouterr().out
    assert out.count("decided by the path") == 2
    assert picture.read_text().count("<svg") == 2


def test_the_embedded_model_needs_no_arguments(capsys):
    assert run(["transmission", "--paths", "2", "--strength", "0.5", "--max-new-tokens", "4"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Once upon a time")
    assert "4 tokens over 2 paths" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--paths", "1"], "--paths 1: one path has nothing to differ from"),
        (["--temperature", "0"], "--temperature 0: must be above 0"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0"),
        (["--output", "a.png"], "--output a.png: name an .html or an .svg file"),
        (["--output", "/missing/a.svg", "--paths", "2"], "--output /missing/a.svg"),
        (["--strength", "0"], "every strength is 0"),
        (["--routing", "nowhere", "--strength", "1"], "--strength has no effect beside --routing"),
        (["--routing", "nowhere"], "--routing nowhere"),
        (["--text", ""], "gives no token"),
        (["--text", "x" * 70], "shorten it"),
        (["--dtype", "int8"], "--dtype int8"),
        (["--layers", "9"], "layer"),
        (["ab", "--output", "two.svg"], "holds one text"),
    ],
)
def test_bad_input_is_named_and_nothing_is_drawn(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert run(["transmission", "ab", "--model", folder(), "--max-new-tokens", "3", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_model_without_a_prompt_is_named(capsys, monkeypatch):
    monkeypatch.setattr("stochroute.cli.transmission.read_prompts", lambda prompts, file: [])
    assert run(["transmission", "--model", folder()]) == 2
    assert "there is no prompt" in capsys.readouterr().err
