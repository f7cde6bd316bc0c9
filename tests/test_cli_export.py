"""`stochroute export`: a file for llama.cpp from a path that generate has walked."""

import json
from pathlib import Path

import pytest
from gguf import GGUFReader

from cli_model import save_tiny_model
from stochroute.cli import run

ID = "00c0ffee00c0ffee"
NOISE = ["--span", "all", "--strength", "0.2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def texts(tmp_path: Path) -> str:
    (tmp_path / "texts.txt").write_text("the river\nsnow fell\nit was noon\nno one came\n")
    return str(tmp_path / "texts.txt")


def export(model: str, file: Path, *arguments: str, path: str = ID) -> int:
    return run(["export", "--model", model, "--gguf", str(file), "--path", path, *arguments])


def complaint(capsys: pytest.CaptureFixture[str], model: str, file: Path, *arguments: str, path: str = ID) -> str:
    assert export(model, file, *arguments, path=path) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert not file.is_file()
    return captured.err


def test_a_relative_routing_is_fixed_written_and_walked_again(
    model: str, texts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file, folder = tmp_path / "path.gguf", tmp_path / "fixed"
    saved = ["--save-routing", str(folder), "--json"]
    assert export(model, file, *NOISE, "--fix-scale", "--prompts-file", texts, *saved) == 0
    row = json.loads(capsys.readouterr().out)
    reader = GGUFReader(file)
    assert row["path"] == ID
    assert [tensor.name for tensor in reader.tensors] == [f"direction.{layer}" for layer in row["norms"]]
    assert 0 < row["absolute_nats"] < 10 * row["relative_nats"]

    again = ["generate", "ab", "--model", model, "--routing", str(folder), "--replay", ID, "--json"]
    assert run([*again, "--max-new-tokens", "4"]) == 0
    receipt = json.loads(capsys.readouterr().out)["receipt"]
    assert receipt["routing"] == reader.fields["stochroute.routing"].contents()
    assert receipt["model"] == reader.fields["stochroute.model"].contents()

    # the saved routing is absolute, so it needs no fixing, and gives the same file
    assert export(model, tmp_path / "again.gguf", "--routing", str(folder)) == 0
    assert (tmp_path / "again.gguf").read_bytes() == file.read_bytes()


def test_a_budget_is_met_by_what_is_written(model: str, texts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    asked = ["--span", "all", "--budget", "0.05", "--fix-scale", "--prompts-file", texts, "--json"]
    assert export(model, tmp_path / "path.gguf", *asked) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["budget"] == 0.05
    assert row["absolute_nats"] == pytest.approx(0.05, rel=0.2)


def test_a_person_reads_what_to_run(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "path.gguf"
    assert export(model, file, *NOISE, "--fix-scale") == 0
    out = capsys.readouterr().out
    assert f"--control-vector {file}" in out
    assert "nats a position of KL(routed ‖ clean)" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (NOISE, "scale='relative' follows the activation"),
        (["--strength", "0.2", "--fix-scale"], "set span='all'"),
        ([*NOISE, "--hold", "2", "--fix-scale"], "hold=2 draws new noise on the way"),
        ([*NOISE, "--layers", "all", "--fix-scale"], "layer 0 carries noise"),
        ([*NOISE, "--save-routing", "/"], "--save-routing /: is there already"),
        ([*NOISE, "--dtype", "int8"], "--dtype int8"),
        ([*NOISE, "--routing", "nowhere"], "--strength has no effect beside --routing"),
    ],
)
def test_what_cannot_be_written_is_said_in_one_line(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
):
    assert words in complaint(capsys, model, tmp_path / "path.gguf", *arguments)


def test_a_bad_path_and_a_bad_file_are_said_before_the_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert "is not 16 hex digits" in complaint(capsys, "no-model", tmp_path / "path.gguf", path="7")
    assert "a folder that exists" in complaint(capsys, "no-model", tmp_path / "nowhere" / "path.gguf")


def test_an_earlier_file_stays(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "path.gguf"
    file.write_text("earlier")
    assert export(model, file, *NOISE, "--fix-scale") == 2
    assert "is there already; name a new file" in capsys.readouterr().err
    assert file.read_text() == "earlier"


def test_texts_without_a_use_are_refused(model: str, texts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    said = complaint(capsys, model, tmp_path / "path.gguf", *NOISE, "--prompts-file", texts)
    assert "has no effect without --fix-scale or a budget" in said
