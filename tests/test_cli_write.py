"""`stochroute write` on the command line."""

import json
import sys
from pathlib import Path

import pexpect
import pytest

from cli_model import save_tiny_model
from poet import save_poet
from stochroute.applications.write import FORMS
from stochroute.cli import run
from stochroute.paths import derive_paths, format_path
from stochroute.world import check
from test_chat_terminal import ENVIRONMENT, end

# a shell may start its background jobs with SIGINT ignored, which children inherit
HEARD = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
PROGRAM = HEARD + "from stochroute.cli import main; main()"
STORIES = ["write", "--seed", "7", "--strength", "0.6", "--candidates", "6", "--keep", "3"]


@pytest.fixture(scope="module")
def poet(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_poet(tmp_path_factory.mktemp("poet"))


def test_the_embedded_model_writes_stories_that_differ(capsys: pytest.CaptureFixture[str]):
    assert run([*STORIES, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 3
    verdicts = [check(row["text"]) for row in rows]
    assert all(verdict.coherent for verdict in verdicts)
    assert len({verdict.plot for verdict in verdicts}) == 3
    assert all(len(row["steps"]) == 1 and row["finished"] for row in rows)
    assert run([*STORIES, "从前", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(check(row["text"]).coherent for row in rows) >= 2


def test_a_run_says_what_it_kept_and_writes_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    page, text = tmp_path / "a.html", tmp_path / "a.md"
    arguments = [*STORIES, "Once upon a time", "--depth", "2", "--output", str(page), "--output", str(text)]
    assert run(arguments) == 0
    out, err = capsys.readouterr()
    assert "kept, from seed 7" in out
    assert f"written: {page}" in err
    assert page.read_text().count("<details>") == 3
    before = page.read_bytes()
    assert run([*STORIES[:2], "8", *STORIES[3:], "--output", str(page)]) == 2
    assert "exists; replace it by --overwrite" in capsys.readouterr().err
    assert page.read_bytes() == before
    assert run([*arguments, "--overwrite"]) == 0
    assert page.read_bytes() == before  # the same seed, the same page


def test_spread_candidates_are_siblings_and_say_so(capsys: pytest.CaptureFixture[str]):
    asked = ["--temperature", "1", "--spread", "--depth", "2", "--json"]
    assert run([*STORIES, *asked]) == 0
    out = capsys.readouterr().out
    rows = [json.loads(line) for line in out.splitlines()]
    assert {row["steps"][0]["receipt"]["path"] for row in rows} <= {
        format_path(path) for path in derive_paths(7, 6, spread=True)
    }
    assert all(step["receipt"]["decoding"]["spread"] is True for row in rows for step in row["steps"])
    assert run([*STORIES, *asked]) == 0
    assert capsys.readouterr().out == out


@pytest.mark.parametrize("form", ["poem", "五绝", "qijue"])
def test_the_embedded_model_says_that_it_writes_no_poems(form: str, capsys: pytest.CaptureFixture[str]):
    assert run(["write", "明月", "--form", form]) == 2
    assert f"--form {form}: the embedded model writes stories" in capsys.readouterr().err


def test_a_model_of_quatrains_writes_them_and_no_others(poet: str, capsys: pytest.CaptureFixture[str]):
    common = ["write", "明月", "--model", poet, "--seed", "1", "--strength", "0.8", "--candidates", "8", "--keep", "3"]
    assert run([*common, "--form", "wujue", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows
    assert all(FORMS["五绝"].problems(row["text"], finished=True) == () for row in rows)
    assert run([*common, "--form", "七绝", "--json"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "none of 8 continuations" in err
    assert "8 × line 1 has 5 characters, not 7" in err
    assert "nothing was written" in err


def test_a_judge_is_another_model(poet: str, capsys: pytest.CaptureFixture[str]):
    common = ["write", "明月", "--form", "五绝", "--model", poet, "--strength", "0.8", "--seed", "1"]
    assert run([*common, "--judge", poet]) == 2
    assert "is the generator itself" in capsys.readouterr().err


def test_a_tokenizer_without_chinese_is_an_error_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = save_tiny_model(tmp_path / "tiny")
    # its bytes can spell Chinese, so that it is asked, and cannot
    assert run(["write", "明", "--form", "五绝", "--model", folder, "--strength", "0.5", "--max-new-tokens", "9"]) == 1
    assert "is a 五绝" in capsys.readouterr().err
    tokenizer = Path(folder) / "tokenizer.json"
    data = json.loads(tokenizer.read_text())
    data["model"]["vocab"] = {k: v for k, v in data["model"]["vocab"].items() if k.isascii()}
    tokenizer.write_text(json.dumps(data))
    assert run(["write", "A", "--form", "五绝", "--model", folder, "--strength", "0.5"]) == 2
    assert "has no Chinese" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message"), [
    (["--form", "sonnet", "--model", "."], "no config.json"),
    (["--candidates", "0"], "keep at least 1 and at most the 0 candidates"),
    (["--keep", "99"], "keep at least 1"),
    (["--weight", "-1"], "--weight=-1"),
    (["--depth", "0"], "--depth 0"),
    (["--lines", "5"], "--lines=5 has no effect"),
    (["--seed", "-1"], "--seed=-1"),
    (["--overwrite"], "no effect without --output"),
    (["--output", "a.pdf"], "ends in .md, .html or .json"),
    (["--output", "no/such/a.md"], "a folder that exists"),
    (["--spread"], "--spread has no effect on greedy decoding: add --temperature 1"),
    (["--walk"], "this is no terminal"),
    (["--walk", "--depth", "2"], "--depth has no effect beside --walk"),
    (["--judge", "./nowhere"], "no such folder"),
    (["--strength", "x"], "--strength x"),
    (["--dtype", "int8"], "choose one of"),
])  # fmt: skip
def test_bad_arguments_are_named(arguments: list[str], message: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["write", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_no_file_and_says_how_to_begin_again(tmp_path: Path, monkeypatch, capsys):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stochroute.applications.write.author.Author.candidates", interrupt)
    assert run([*STORIES, "--output", str(tmp_path / "a.md")]) == 130
    assert "interrupted: nothing was written; --seed 7 begins the same again" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_person_walks_the_tree_and_leaves_a_page(tmp_path: Path):
    page = tmp_path / "walk.json"
    walk = pexpect.spawn(
        sys.executable,
        ["-c", PROGRAM, *STORIES, "Once upon a time", "--walk", "--output", str(page)],
        env=ENVIRONMENT, encoding="utf-8", dimensions=(40, 160), timeout=90,
    )  # fmt: skip
    walk.expect("a number goes on")
    walk.expect("› ")
    for wrong, message in (("9", "'9' is no way to go"), ("b", "nothing to go back to"), ("x", "no way to go")):
        walk.sendline(wrong)
        walk.expect(message)
        walk.expect("› ")
    walk.sendline("2")
    walk.expect("novelty")
    walk.expect("› ")
    walk.sendline("1")
    walk.expect("› ")
    walk.sendline("b")
    walk.expect("› ")
    walk.sendintr()
    walk.expect("b goes back")
    walk.sendeof()
    assert end(walk) == 0
    root = json.loads(page.read_text())["root"]
    assert [bool(child["children"]) for child in root["children"]] == [False, True, False]
    assert [bool(child["children"]) for child in root["children"][1]["children"]] == [True, False, False]


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]):
    assert run(["write", "--help"]) == 0
    assert "--output stories.html" in capsys.readouterr().out
