"""What a release says of itself is true: one version, one file tree, every extra, and notebooks that stay small."""

import importlib.util
import itertools
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import stochroute as sr
from stochroute.cli import run

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_option_needs_no_verb(capsys: pytest.CaptureFixture[str]):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"stochroute {sr.__version__}\n"


def test_version_and_date_are_the_same_everywhere():
    assert PROJECT["dynamic"] == ["version"]
    citation = yaml.safe_load(read("CITATION.cff"))
    newest = re.search(r"^## \[(\d.*?)\] - (\S+)$", read("CHANGELOG.md"), flags=re.MULTILINE)
    assert newest is not None
    assert (citation["version"], str(citation["date-released"])) == newest.groups()
    assert citation["version"] == sr.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", sr.__version__)


def test_the_citation_says_what_the_package_says():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]


def test_the_file_tree_names_every_package_once():
    spec = importlib.util.spec_from_file_location("file_tree", ROOT / ".ci" / "file_tree.py")
    assert spec is not None
    assert spec.loader is not None
    file_tree = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(file_tree)
    page = read("CONTRIBUTING.md")
    assert file_tree.filled(page) == page, "run python .ci/file_tree.py"
    packages = [f.parent for f in (ROOT / "src" / "stochroute").rglob("*/__init__.py")]
    for package in packages:
        name = package.relative_to(ROOT / "src" / "stochroute").as_posix()
        assert len(re.findall(rf"^  {re.escape(name)}/ ", page, flags=re.MULTILINE)) == 1


@pytest.mark.parametrize("readme", ["README.md", "README.zh.md"])
def test_every_extra_is_described(readme: str):
    described = re.findall(r"^\| `([a-z-]+)` \|", read(readme), flags=re.MULTILINE)
    assert sorted(described) == sorted(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("file", ["README.md", "README.zh.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(file: str):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", read(file))
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_committed_as_it_ran(file: Path):
    """Executed from top to bottom without error, with outputs small enough to be reviewed."""
    notebook = json.loads(file.read_text(encoding="utf-8"))
    cells: list[dict[str, Any]] = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)], "run python notebooks/run.py"
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert all(output.get("name") != "stderr" for output in outputs)
    assert file.stat().st_size < 100_000


def test_there_are_four_notebooks_and_each_leads_to_the_next():
    assert len(NOTEBOOKS) == 4
    for file, following in itertools.pairwise(NOTEBOOKS):
        assert f"]({following.name})" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_names_files_that_are_there(file: Path):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", file.read_text(encoding="utf-8"))
    assert [target for target in targets if not (file.parent / target).exists()] == []
