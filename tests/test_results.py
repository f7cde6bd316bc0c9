"""The committed results are JSON that any reader takes, a browser's too."""

import json
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def test_no_result_holds_a_number_that_json_has_no_word_for():
    with pytest.raises(ValueError, match="NaN is no JSON"):
        json.loads("[NaN]", parse_constant=refuse)
    files = list(RESULTS.rglob("*.json"))
    assert files
    for file in files:
        json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)
