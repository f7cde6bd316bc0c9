"""A run of augment may be killed at any moment: resumed, its output is that of an uninterrupted run to the byte."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from augment_runs import end_of, in_a_process, kill_myself, load, make
from cli_model import save_tiny_model
from stochroute.applications.augment import journal, run, tables
from stochroute.loading import LoadedModel

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes, which this system has not")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(save_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def whole(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The output of an uninterrupted run in each format."""
    folder = tmp_path_factory.mktemp("whole")
    outputs = [folder / f"out.{kind}" for kind in ("jsonl", "csv", "parquet")]
    for output in outputs:
        make(loaded, output)
    assert sorted(folder.iterdir()) == sorted(outputs), "no journal and no half file is left"
    return {output.suffix: output.read_bytes() for output in outputs}


def resume(loaded: LoadedModel, output: Path) -> Callable[[], object]:
    return lambda: make(loaded, output, resume=True)


def test_twenty_kills_at_random_moments_change_no_byte(loaded: LoadedModel, tmp_path: Path, whole: dict[str, bytes]):
    output, journal_file = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    started = time.monotonic()
    assert end_of(in_a_process(lambda: make(loaded, tmp_path / "timed.jsonl"))) == 0
    longest = time.monotonic() - started
    moments = random.Random(0)
    kills = committed = 0
    while kills < 20:
        process = in_a_process(resume(loaded, output))
        time.sleep(moments.uniform(0, longest))
        os.kill(process, signal.SIGKILL)
        ended = end_of(process)
        assert ended in (0, -signal.SIGKILL)
        kills += ended != 0
        if output.exists():
            assert output.read_bytes() == whole[".jsonl"]
        if output.exists() and not journal_file.exists():  # a whole run: another begins
            output.unlink()
            committed = 0
        kept = journal_file.read_bytes().count(b"\n") if journal_file.exists() else 0
        assert kept >= committed, "a batch once committed is never lost"
        committed = kept
    assert end_of(in_a_process(resume(loaded, output))) == 0
    assert output.read_bytes() == whole[".jsonl"]
    assert not journal_file.exists()


def half_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def kill(descriptor: int) -> None:
        real(descriptor)
        if os.fstat(descriptor).st_size > 3000:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - 40)
            kill_myself()

    monkeypatch.setattr(journal.os, "fsync", kill)


def before_the_output_appears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables.os, "replace", lambda *_: kill_myself())


def after_the_output_appeared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.Journal, "remove", lambda _: kill_myself())


def while_the_first_line_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(self: journal.Journal, line: str) -> None:
        self._stream.write(line.encode()[:20])
        self._stream.flush()
        kill_myself()

    monkeypatch.setattr(journal.Journal, "_write", kill)


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize(
    "moment", [while_the_first_line_is_written, half_a_line, before_the_output_appears, after_the_output_appeared]
)
def test_a_kill_at_each_delicate_moment_changes_no_byte(
    loaded: LoadedModel,
    tmp_path: Path,
    whole: dict[str, bytes],
    moment: Callable[[pytest.MonkeyPatch], None],
    kind: str,
):
    output = tmp_path / f"out{kind}"

    def killed() -> None:
        with pytest.MonkeyPatch.context() as patch:
            moment(patch)
            make(loaded, output)

    assert end_of(in_a_process(killed)) == -signal.SIGKILL
    assert output.exists() == (moment is after_the_output_appeared)
    assert (tmp_path / f"out{kind}.journal").exists()
    make(loaded, output, resume=True)
    assert output.read_bytes() == whole[kind]
    assert [file.name for file in tmp_path.iterdir()] == [output.name], "nothing else is left"


def test_two_processes_never_work_on_one_run(loaded: LoadedModel, tmp_path: Path):
    output = tmp_path / "out.jsonl"
    make_journal = tmp_path / "out.jsonl.journal"
    held = journal.Journal(make_journal, {"rows": 1})
    try:
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(ValueError, match="another process is at work"):
                make(loaded, output, **options)
        assert json.loads(make_journal.read_text()) == {"run": {"rows": 1}}
    finally:
        held.close()
