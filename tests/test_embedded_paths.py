"""The paths that the embedded model was trained with: each tells another story that holds together, greedily, and
every command walks them that is told nothing else."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch

import stochroute as sr
from cli_model import save_tiny_model
from families import FAMILIES
from stochroute import embedded
from stochroute.applications.chat import read_transcript
from stochroute.cli import run
from stochroute.embedded.evaluate import walk
from stochroute.embedded.inferred import ROUTING
from stochroute.generation.receipts import routing_hash
from stochroute.storage import PARAMETER_FILE
from stochroute.world import check, draw_text

TEXTS = 24


@pytest.fixture(scope="module")
def routed() -> sr.RoutedModel:
    return sr.RoutedModel.from_pretrained(embedded.load()[0], embedded.EMBEDDED)


@pytest.fixture(scope="module")
def own(routed: sr.RoutedModel) -> str:
    return routing_hash(routed)


def routings(capsys: pytest.CaptureFixture[str], *arguments: str) -> set[str]:
    """The routings in the receipts of what `stochroute generate` writes."""
    assert run(["generate", "--paths", "2", "--seed", "7", "--max-new-tokens", "4", "--json", *arguments]) == 0
    return {json.loads(line)["receipt"]["routing"] for line in capsys.readouterr().out.splitlines()}


@pytest.mark.parametrize("prompt", embedded.DEFAULT_PROMPTS)
def test_greedy_paths_tell_different_stories_that_hold_together(routed: sr.RoutedModel, prompt: str):
    verdicts = [check(text) for text in walk(routed, embedded.load()[1], prompt, TEXTS)]
    assert sum(verdict.coherent for verdict in verdicts) >= TEXTS - 1
    plots = [verdict.plot for verdict in verdicts if verdict.plot is not None]
    assert len({plot.thread for plot in plots}) > TEXTS * 3 // 4
    assert len({plot.goal for plot in plots}) > 6


def test_the_routing_is_what_the_recipe_trains_and_its_noise_was_trained(routed: sr.RoutedModel):
    assert routed.config == ROUTING
    untrained = sr.route(embedded.load()[0], ROUTING)
    assert routing_hash(untrained) != routing_hash(routed)


def test_by_its_name_and_by_its_folder_it_is_the_same(own: str):
    routed = sr.RoutedModel.from_pretrained(embedded.load()[0], embedded.routing_folder())
    assert routing_hash(routed) == own


def test_for_another_model_it_is_refused():
    with pytest.raises(ValueError, match="made for another model"):
        sr.RoutedModel.from_pretrained(FAMILIES["qwen3"].build(torch.float32), embedded.EMBEDDED)


def test_a_folder_of_the_name_is_written_with_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str):
    monkeypatch.chdir(tmp_path)
    sr.route(embedded.load()[0]).save_pretrained(embedded.EMBEDDED)
    assert (tmp_path / "embedded" / PARAMETER_FILE).is_file()
    assert routing_hash(sr.RoutedModel.from_pretrained(embedded.load()[0], "embedded")) == own
    assert routing_hash(sr.RoutedModel.from_pretrained(embedded.load()[0], "./embedded")) != own


def test_generate_walks_them_unless_the_noise_is_described(capsys: pytest.CaptureFixture[str], own: str):
    assert routings(capsys) == routings(capsys, "--routing", "embedded") == {own}
    for described in (["--strength", "0.1"], ["--hold", "1"], ["--span", "all"]):
        assert own not in routings(capsys, *described)


def test_beside_another_model_their_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["generate", "ab", "--model", save_tiny_model(tmp_path), "--routing", "embedded"]) == 2
    assert "--routing embedded: belongs to the embedded model" in capsys.readouterr().err


def test_a_conversation_walks_them_and_replays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own: str
):
    file = tmp_path / "talk.json"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"I want to see the old lighthouse.")))
    assert run(["chat", "--json", "--seed", "7", "--output", str(file)]) == 0
    transcript = read_transcript(file)
    assert transcript.routing_folder == "embedded"
    assert {reply.receipt.routing for turn in transcript.turns for reply in turn.replies} == {own}
    capsys.readouterr()
    assert run(["chat", "--replay", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["identical"]


def test_rows_of_augment_walk_them_and_are_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str], own: str):
    source, output = tmp_path / "stories.jsonl", str(tmp_path / "more.jsonl")
    source.write_text("\n".join(json.dumps({"text": draw_text(3, index)}) for index in range(2)) + "\n")
    assert (
        run(["augment", str(source), "--template", "{text:8}", "--paths", "2", "--seed", "7", "--output", output]) == 0
    )
    rows = [json.loads(line) for line in Path(output).read_text(encoding="utf-8").splitlines()]
    assert {json.loads(row["settings"])["routing_hash"] for row in rows} == {own}
    capsys.readouterr()
    assert run(["augment", "--replay", output, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"same": 4, "differing": [], "rows": 4}


def test_export_takes_them_for_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["export", "--gguf", str(tmp_path / "path.gguf"), "--path", "c009f9dcf4607a2d"]
    assert run(command) == 2
    assert "span" in capsys.readouterr().err


def test_no_other_tensors_lie_beside_the_weights_where_vllm_would_take_them_for_weights():
    assert [file.name for file in embedded.weights_folder().glob("*.safetensors")] == ["model.safetensors"]
