"""`generate --engine`: the rows of transformers, from an engine that knows no more than vLLM would be told."""

import json

import pytest

import stochroute as sr
from cli_model import save_tiny_model
from elsewhere import Elsewhere
from stochroute.cli import engine_walks, run
from stochroute.cli.engines import Engine, Hosted
from stochroute.loading import load_model


def start(engine: Engine, told: Hosted) -> Elsewhere:
    """Loads the model and its routing anew, as an engine does."""
    loaded = load_model(told.model, "cpu", told.dtype)
    routed = sr.RoutedModel.from_pretrained(loaded.model, told.additional["stochroute"]["folder"])
    return Elsewhere(routed, loaded.stops)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("span", ["generated", "all"])
@pytest.mark.parametrize("form", ["independent", "spread"])
@pytest.mark.parametrize("walked", [("--paths", "3", "--seed", "7"), ("--replay", "00c0ffee00c0ffee")])
def test_another_engine_gives_the_rows_of_transformers(walked, form, span, model, capsys, monkeypatch):
    monkeypatch.setattr(engine_walks, "start_engine", start)
    asked = ["generate", "ab", "Once upon", "--model", model, "--form", form, "--strength", "1", "--span", span]
    asked += [*walked, "--max-new-tokens", "8", "--dtype", "float32", "--json"]
    rows = {}
    for engine in ("transformers", "vllm"):
        assert run([*asked, "--engine", engine]) == 0, capsys.readouterr().err
        rows[engine] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for ours, theirs in zip(rows["vllm"], rows["transformers"], strict=True):
        assert ours["receipt"].pop("engine") == "elsewhere 1"
        assert theirs["receipt"].pop("engine").startswith("transformers")
        assert ours == theirs
