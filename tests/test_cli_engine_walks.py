"""`generate --engine`: the rows of transformers, from an engine that knows no more than vLLM would be told."""

import json
from collections.abc import Sequence

import pytest
import torch

import stochroute as sr
from cli_model import save_tiny_model
from stochroute.cli import engine_walks, run
from stochroute.cli.engines import Engine, Hosted
from stochroute.loading import load_model


class Elsewhere:
    """Loads the model and its routing anew, as an engine does, and writes each text alone."""

    engine = "elsewhere 1"

    def __init__(self, engine: Engine, start: Hosted):
        loaded = load_model(start.model, "cpu", start.dtype)
        self._routed = sr.RoutedModel.from_pretrained(loaded.model, start.additional["stochroute"]["folder"])

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        paths: Sequence[int],
        starts: Sequence[int],
        new_tokens: int,
        stops: Sequence[int],
    ) -> list[list[int]]:
        texts: list[list[int]] = []
        for prompt, path, start in zip(prompts, paths, starts, strict=True):
            out = self._routed.generate(torch.tensor([list(prompt)]), paths=[path], max_new_tokens=new_tokens)
            assert out.receipts[0].start == start
            texts.append(out.generated[0].tolist())
        return texts


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("span", ["generated", "all"])
@pytest.mark.parametrize("form", ["independent", "spread"])
@pytest.mark.parametrize("walked", [("--paths", "3", "--seed", "7"), ("--replay", "00c0ffee00c0ffee")])
def test_another_engine_gives_the_rows_of_transformers(walked, form, span, model, capsys, monkeypatch):
    monkeypatch.setattr(engine_walks, "start_engine", Elsewhere)
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
