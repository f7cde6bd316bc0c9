"""augment on another engine: the rows of the model itself, in order, committed batch by batch, under its own name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import stochroute as sr
from augment_runs import ROWS, end_of, in_a_process, kill_myself, load, make, with_settings
from cli_model import save_tiny_model
from elsewhere import Elsewhere
from stochroute.applications.augment import engine as engines
from stochroute.applications.augment import new_rows, open_source, replay
from stochroute.applications.writer import Writer, Written
from stochroute.generation.decoding import GREEDY
from stochroute.loading import LoadedModel

NEW_TOKENS = 12


def hosted(made: list[Elsewhere], name: str = "elsewhere 1") -> Callable[[Writer], engines.Engine]:
    def start(writer: Writer) -> engines.Engine:
        made.append(Elsewhere(writer.routed, writer.loaded.stops, name))
        return engines.HostedEngine(writer, made[-1])

    return start


def greedy(**changes):
    return with_settings(decoding=GREEDY, new_tokens=NEW_TOKENS, near=None, **changes)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(save_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(autouse=True)
def four_batches_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engines, "WINDOW", 4)


def texts_of(file: Path) -> list[tuple[str, str, str]]:
    return [(row["source_id"], row["path"], row["text"]) for row in open_source(str(file))]


def test_the_rows_are_those_of_the_model_itself_and_replay_there(loaded: LoadedModel, tmp_path: Path):
    make(loaded, tmp_path / "here.jsonl", greedy())
    made: list[Elsewhere] = []
    report = make(loaded, tmp_path / "there.jsonl", greedy(), start=hosted(made))
    assert report is not None
    assert texts_of(tmp_path / "there.jsonl") == texts_of(tmp_path / "here.jsonl")
    assert made[0].calls == [4 * 3 * 2, 2 * 3 * 2], "18 rows in batches of 3, two paths each, four batches at once"
    again = list(replay(new_rows(open_source(str(tmp_path / "there.jsonl"))), lambda *_: loaded))
    assert len(again) == report.kept > len(ROWS)
    assert all(row.same and row.engine == "elsewhere 1" for row in again)


def test_stop_strings_cut_where_the_model_itself_would_have_stopped(loaded: LoadedModel, tmp_path: Path):
    make(loaded, tmp_path / "free.jsonl", greedy())
    # a string that ends a text, and a longer one that begins before it and is complete only behind it
    text, end = next(
        (text, end)
        for *_, text in texts_of(tmp_path / "free.jsonl")
        for end in range(1, len(text) - 1)
        if text[end - 1 : end + 2].isascii() and text[end] not in text[:end] and text[:end].strip()
    )
    settings = greedy(stop=(text[end - 1 : end + 2], text[end]))
    make(loaded, tmp_path / "here.jsonl", settings)
    make(loaded, tmp_path / "there.jsonl", settings, start=hosted([]))
    assert texts_of(tmp_path / "there.jsonl") == texts_of(tmp_path / "here.jsonl")
    assert text[:end].strip() in [text for *_, text in texts_of(tmp_path / "there.jsonl")]


def test_the_string_that_is_complete_first_ends_a_text(loaded: LoadedModel):
    routed = sr.route(loaded.model)
    try:
        writer = Writer(loaded, routed, GREEDY, 8, ("bcd", "c"))
        prompt, new = (loaded.tokenizer(text)["input_ids"] for text in ("x", "abcde"))
        assert writer.read(prompt, new) == Written("ab", ended=True)
        assert writer.read(prompt, new[:2]) == Written("ab", ended=False)
        assert writer.read(prompt, [*new[:2], min(loaded.stops), *new]) == Written("ab", ended=True)
    finally:
        routed.detach()


@pytest.mark.parametrize("committed", [9, 12])
def test_a_kill_inside_a_window_changes_no_byte(loaded: LoadedModel, tmp_path: Path, committed: int):
    make(loaded, tmp_path / "whole.jsonl", greedy(), start=hosted([]))

    def kill(done: int, total: int) -> None:
        if done == committed:
            kill_myself()

    output = tmp_path / "out.jsonl"
    assert end_of(in_a_process(lambda: make(loaded, output, greedy(), start=hosted([]), progress=kill))) < 0
    assert len((tmp_path / "out.jsonl.journal").read_text().splitlines()) == 1 + committed // 3
    make(loaded, output, greedy(), start=hosted([]), resume=True)
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_another_engine_is_no_resumption(loaded: LoadedModel, tmp_path: Path):
    def stop(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    output = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        make(loaded, output, greedy(), start=hosted([]), progress=stop)
    for other in ({}, {"start": hosted([], "elsewhere 2")}):
        with pytest.raises(ValueError, match='engine was "elsewhere 1", now "'):
            make(loaded, output, greedy(), resume=True, **other)
    make(loaded, output, greedy(), start=hosted([]), resume=True)
    assert {json.loads(row["settings"])["engine"] for row in open_source(str(output))} == {"elsewhere 1"}
    with pytest.raises(ValueError, match="comes from another run"):
        make(loaded, output, greedy(), resume=True)
