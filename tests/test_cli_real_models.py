"""Real pretrained models through the command line, where their folder exists."""

import os
from pathlib import Path

import pytest

from stochroute.cli import run
from stochroute.cli.rows import Row

SHARED = Path(os.environ.get("STOCHROUTE_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.mark.parametrize("name", ["stories260K", "stories3M", "gpt2-bytes-1M"])
def test_a_real_model_writes_readable_replayable_texts(name: str, capsys: pytest.CaptureFixture[str]):
    folder = SHARED / "models" / name
    if not folder.is_dir():
        pytest.skip(f"no model in {folder}: set STOCHROUTE_SHARED to the folder that holds models/{name}")
    arguments = ["Once upon a time", "The little dog", "--model", str(folder), "--paths", "3", "--seed", "7"]
    assert run(["generate", *arguments, "--strength", "0.5", "--max-new-tokens", "32", "--json"]) == 0
    rows = [Row.from_json(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 6
    for row in rows:
        # white space at the seam survives, and nothing is left of special tokens
        assert row.text[0] in " ,.!"
        assert "<" not in row.text
        assert len(row.text.split()) > 3
    assert len({row.text for row in rows}) > 2
    replay = ["--replay", rows[4].path, "--strength", "0.5", "--max-new-tokens", "32", "--dtype", "float64"]
    assert run(["generate", "The little dog", "--model", str(folder), *replay, "--check-replay"]) == 0
    assert "identical text" in capsys.readouterr().out
