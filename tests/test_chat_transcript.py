"""Transcripts on disk: they come back whole, or are refused, and are never left half-written."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stochroute as sr
from stochroute.applications.chat import Reply, Script, Template, Transcript, Turn, read_transcript, write_transcript
from stochroute.generation.decoding import Decoding
from stochroute.generation.receipts import Receipt

RECEIPT = Receipt("00c0ffee00c0ffee", 3, "ab", 1, "cd", {"max_new_tokens": 8}, "transformers 5", "float32")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    together = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    replies = tuple(Reply(draw(TEXTS), RECEIPT) for _ in range(sum(together)))
    return Turn(draw(TEXTS), replies, together, draw(st.integers(0, len(replies) - 1)), draw(st.integers(0, 5)))


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    return Transcript(
        model=draw(st.none() | TEXTS),
        routing_folder=draw(st.none() | TEXTS),
        seed=draw(st.integers(0, 2**64 - 1)),
        new_tokens=draw(st.integers(1, 100)),
        frame=draw(st.sampled_from([Script("A", "B", "scene"), Template("system"), Template()])),
        decoding=draw(
            st.sampled_from([Decoding(), Decoding(temperature=0.7, top_p=0.9), Decoding(temperature=1.0, spread=True)])
        ),
        routings={"ab": sr.RoutingConfig()},
        turns=tuple(draw(st.lists(turns(), max_size=3))),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("transcripts")


@given(transcript=transcripts())
def test_a_transcript_comes_back_as_it_was(folder: Path, transcript: Transcript):
    write_transcript(folder / "talk.json", transcript)
    assert read_transcript(folder / "talk.json") == transcript
    assert [turn.batches for turn in transcript.turns] == [
        turn.batches for turn in read_transcript(folder / "talk.json").turns
    ]


@given(transcript=transcripts(), data=st.data())
def test_a_file_cut_short_anywhere_is_refused_and_named(folder: Path, transcript: Transcript, data: st.DataObject):
    file = folder / "talk.json"
    write_transcript(file, transcript)
    whole = file.read_bytes().rstrip()
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ValueError, match=r"talk\.json"):
        read_transcript(file)


@given(junk=st.recursive(st.none() | st.booleans() | st.integers() | TEXTS,
                         lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)))  # fmt: skip
def test_other_json_is_refused(folder: Path, junk: object):
    (folder / "junk.json").write_text(json.dumps(junk))
    with pytest.raises(ValueError, match="is no transcript of stochroute chat"):
        read_transcript(folder / "junk.json")


@pytest.mark.parametrize("change", [
    lambda d: d.update(format="stochroute chat 99"),
    lambda d: d.update(routings={}),
    lambda d: d.update(seed="seven"),
    lambda d: d.update(surplus=1),
    lambda d: d["turns"][0].update(chosen=7),
    lambda d: d["turns"][0].update(together=[2]),
    lambda d: d["turns"][0].update(message=None),
    lambda d: d["turns"][0]["replies"][0]["receipt"].pop("model"),
    lambda d: d["frame"].update(kind="opera"),
])  # fmt: skip
def test_a_transcript_with_a_wrong_part_is_refused(folder: Path, change):
    turn = Turn("Hello.", (Reply("Good day.", RECEIPT),), (1,))
    whole = Transcript(None, None, 7, 8, Template(), Decoding(), {"ab": sr.RoutingConfig()}, (turn,)).to_dict()
    change(whole)
    (folder / "wrong.json").write_text(json.dumps(whole))
    with pytest.raises(ValueError, match="is no transcript of stochroute chat"):
        read_transcript(folder / "wrong.json")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "talk.json"
    transcript = Transcript(None, None, 7, 8, Template(), Decoding(), {"ab": sr.RoutingConfig()})
    write_transcript(file, transcript)
    before = file.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="full"):
        write_transcript(file, Transcript(None, None, 8, 8, Template(), Decoding(), {}))
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_not_utf_8_is_refused(tmp_path: Path):
    (tmp_path / "talk.json").write_bytes('{"format": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        read_transcript(tmp_path / "talk.json")
