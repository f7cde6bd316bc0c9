"""augment: what comes out, what is dropped and why, and what is refused with nothing written."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import stochroute as sr
from augment_runs import ROWS, SETTINGS, load, make, with_settings
from cli_model import save_tiny_model
from stochroute.applications.augment import Filters, SequenceClassifier, Template, new_rows, open_source, replay
from stochroute.applications.augment.duplicates import Near, Seen
from stochroute.applications.augment.filters import label_index
from stochroute.applications.augment.template import Shots, first_words
from stochroute.evaluation.judging import Judge
from stochroute.evaluation.words import words
from stochroute.loading import LoadedModel
from stochroute.paths import derive_paths, format_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def loaded(folder: str) -> LoadedModel:
    return load(folder)


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_every_row_says_its_source_its_path_and_its_settings(loaded: LoadedModel, tmp_path: Path):
    report = make(loaded, tmp_path / "out.jsonl")
    rows = read(tmp_path / "out.jsonl")
    assert report is not None
    assert (report.sources, report.written) == (len(ROWS), len(ROWS) * 2)
    assert report.kept == len(rows) == report.written - sum(report.dropped.values())
    number_of = {row["id"]: number for number, row in enumerate(ROWS)}
    for row in rows:
        number = number_of[row["source_id"]]
        assert row["path"] in [format_path(path) for path in derive_paths(7, 2, prompt=number)]
        assert row["prompt"] == f"{ROWS[number]['label']}: row {number}"
        assert (row["label"], row["id"]) == (ROWS[number]["label"], ROWS[number]["id"])
        assert json.loads(row["settings"])["run"] == report.run


def test_rows_are_made_again_from_the_rows_alone(loaded: LoadedModel, folder: str, tmp_path: Path):
    make(
        loaded,
        tmp_path / "out.parquet",
        with_settings(keep_source=True, keep_prompt=True, template=Template("{text:1}")),
    )
    table = list(open_source(str(tmp_path / "out.parquet")))
    asked: list[tuple[str | None, str]] = []

    def load_again(name: str | None, dtype: str) -> LoadedModel:
        asked.append((name, dtype))
        return load(folder)

    made = list(replay(new_rows(table), load_again))
    assert asked == [(folder, "float64")]
    assert len(made) == len(table) - len(ROWS) > 10
    assert all(row.same for row in made)
    # and a text that was changed is noticed
    number = made[0].row
    table[number] = {**table[number], "text": "something else"}
    assert [row.row for row in replay(new_rows(table), load_again) if not row.same] == [number]


@pytest.mark.parametrize("what", ["tokens", "noise"])
def test_spread_rows_walk_spread_paths_and_are_made_again(loaded: LoadedModel, folder: str, tmp_path: Path, what: str):
    decoding = replace(SETTINGS.decoding, spread=what == "tokens")
    noise = sr.Structural(form="latent", rank=4, strength=1.0, spread=what == "noise")
    make(loaded, tmp_path / "out.jsonl", with_settings(decoding=decoding), noise=noise)
    rows = read(tmp_path / "out.jsonl")
    spread = {format_path(path) for row in range(len(ROWS)) for path in derive_paths(7, 2, prompt=row, spread=True)}
    assert {row["path"] for row in rows} <= spread
    assert all(row.same for row in replay(new_rows(rows), lambda name, dtype: load(folder)))


def test_a_replay_with_another_model_or_settings_is_refused(loaded: LoadedModel, tmp_path: Path):
    make(loaded, tmp_path / "out.jsonl")
    row = read(tmp_path / "out.jsonl")[0]
    other = load(save_tiny_model(tmp_path / "other", layers=2))
    with pytest.raises(ValueError, match="was made by a model"):
        list(replay([(0, row)], lambda *_: other))
    changed = json.loads(row["settings"])
    changed["routing"]["structural"]["strength"] = 0.5
    with pytest.raises(ValueError, match="learned parameters, or is not the one at hand"):
        list(replay([(0, {**row, "settings": json.dumps(changed)})], lambda *_: loaded))
    with pytest.raises(ValueError, match="row 1: its 'settings'"):
        list(replay([(0, {**row, "settings": "{}"})], lambda *_: loaded))
    with pytest.raises(ValueError, match="no 'prompt'"):
        list(replay([(0, {**row, "prompt": None})], lambda *_: loaded))


def test_the_three_formats_hold_the_same_rows(loaded: LoadedModel, tmp_path: Path):
    settings = with_settings(keep_source=True)
    for kind in ("jsonl", "csv", "parquet"):
        make(loaded, tmp_path / f"out.{kind}", settings)
    rows = read(tmp_path / "out.jsonl")
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == rows
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{k: "" if v is None else v for k, v in row.items()} for row in rows]
    assert [row["text"] for row in rows if row["path"] is None] == [row["text"] for row in ROWS]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_the_same_rows_come_in_from_every_format(loaded: LoadedModel, tmp_path: Path, kind: str):
    make(loaded, tmp_path / "direct.jsonl")
    table = tmp_path / f"in.{kind}"
    if kind == "jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    elif kind == "csv":
        with table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(ROWS[0]))
            writer.writeheader()
            writer.writerows(ROWS)
    else:
        import pyarrow as pa

        pq.write_table(pa.Table.from_pylist(ROWS), table)
    make(loaded, tmp_path / "out.jsonl", source=open_source(str(table)))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "direct.jsonl").read_bytes()


def test_a_folder_of_datasets_comes_in_too(loaded: LoadedModel, tmp_path: Path):
    from datasets import Dataset, DatasetDict

    DatasetDict(dev=Dataset.from_list(ROWS)).save_to_disk(tmp_path / "folder")
    make(loaded, tmp_path / "direct.jsonl")
    make(loaded, tmp_path / "out.jsonl", source=open_source(str(tmp_path / "folder"), "dev"))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "direct.jsonl").read_bytes()
    with pytest.raises(ValueError, match="no split 'train', only dev"):
        open_source(str(tmp_path / "folder"))


def test_filters_drop_for_the_reason_that_they_name(loaded: LoadedModel, tmp_path: Path):
    rows = {}
    for name, filters in {"all": Filters(), "short": Filters(min_length=4), "long": Filters(max_length=3)}.items():
        report = make(loaded, tmp_path / f"{name}.jsonl", with_settings(filters=filters, near=None))
        assert report is not None
        rows[name] = {(row["path"], row["text"]) for row in read(tmp_path / f"{name}.jsonl")}
        assert report.kept + sum(report.dropped.values()) == report.written
    assert rows["short"] == {row for row in rows["all"] if len(row[1]) >= 4}
    assert rows["long"] == {row for row in rows["all"] if len(row[1]) <= 3}
    report = make(loaded, tmp_path / "ended.jsonl", with_settings(filters=Filters(ended=True), stop=("e",)))
    assert report is not None
    assert report.dropped["cut off"] > 0
    assert all("e" not in row["text"] for row in read(tmp_path / "ended.jsonl"))


def test_the_judge_keeps_exactly_what_is_likely_enough(loaded: LoadedModel, tmp_path: Path):
    judge = Judge(loaded)  # the model that writes, clean
    make(loaded, tmp_path / "all.jsonl", with_settings(near=None))
    rows = read(tmp_path / "all.jsonl")
    nats = [judge.nats([""], [row["text"]])[0] / len(row["text"].encode()) for row in rows]
    bound = float(np.median(nats))
    filters = Filters(max_nats=bound)
    make(loaded, tmp_path / "out.jsonl", with_settings(near=None, filters=filters), judge=judge)
    kept = {row["path"] for row in read(tmp_path / "out.jsonl")}
    assert kept == {row["path"] for row, n in zip(rows, nats, strict=True) if n <= bound + 1e-9}
    assert 0 < len(kept) < len(rows)


class ByLength:
    """Reads "up" in texts of an even number of characters."""

    name = "by length"
    labels = ("down", "up")

    def predict(self, texts: Sequence[str]) -> tuple[Sequence[Any], Sequence[float]]:
        return [self.labels[len(text) % 2 == 0] for text in texts], [0.5 + len(text) / 20 for text in texts]


def test_the_classifier_keeps_texts_with_their_rows_label(loaded: LoadedModel, tmp_path: Path):
    settings = with_settings(label="label", near=None, filters=Filters(min_confidence=0.65))
    report = make(loaded, tmp_path / "out.jsonl", settings, classifier=ByLength())
    rows = read(tmp_path / "out.jsonl")
    assert rows
    for row in rows:
        assert row["label"] == ("down", "up")[len(row["text"]) % 2 == 0]
        assert len(row["text"]) >= 3
    assert report is not None
    assert report.dropped["another label"] > 0


def test_exact_duplicates_go_even_those_of_the_source(loaded: LoadedModel, tmp_path: Path):
    make(loaded, tmp_path / "first.jsonl", with_settings(near=None))
    text = read(tmp_path / "first.jsonl")[0]["text"]
    source = [*ROWS, {"text": f"  {text} ", "label": "up", "id": "copy"}]
    report = make(loaded, tmp_path / "out.jsonl", with_settings(near=None), source=source)
    assert report is not None
    assert report.dropped["duplicate"] >= 1
    texts = [row["text"] for row in read(tmp_path / "out.jsonl")]
    assert text not in texts
    assert len(set(texts)) == len(texts)


@given(st.lists(st.text(alphabet="abc ", min_size=1, max_size=12), max_size=12))
def test_exact_duplicates_are_what_a_set_says(texts: list[str]):
    seen, expected = Seen(None), set()
    for text in texts:
        assert (seen.why_not(text) is None) == (text.strip() not in expected)
        expected.add(text.strip())


def test_minhash_agrees_with_the_jaccard_similarity_counted_out():
    vocabulary = [f"w{n}" for n in range(400)]
    base = vocabulary[:60]

    def jaccard(a: str, b: str) -> float:
        first, second = ({tuple(w[i : i + 3]) for i in range(len(w) - 2)} for w in (words(a), words(b)))
        return len(first & second) / len(first | second)

    seen = Seen(Near("minhash", 0.7))
    assert seen.why_not(" ".join(base)) is None
    for changed in range(0, 30, 2):
        text = " ".join(base[: 60 - changed] + vocabulary[100 + changed : 100 + 2 * changed])
        similarity = jaccard(" ".join(base), text)
        if similarity > 0.85:
            assert seen.why_not(text) in ("duplicate", "near-duplicate"), similarity
        if similarity < 0.5:
            assert Seen(Near("minhash", 0.7)).why_not(text) is None
            fresh = Seen(Near("minhash", 0.7))
            fresh.add([" ".join(base)])
            assert fresh.why_not(text) is None, similarity


def test_embeddings_drop_what_means_the_same():
    from stochroute.evaluation.embedding import WordLlamaEmbedder

    seen = Seen(Near("embeddings", 0.9), WordLlamaEmbedder())
    assert seen.why_not("The little dog ran across the green field.") is None
    assert seen.why_not("The little dog ran over the green field.") == "near-duplicate"
    assert seen.why_not("Interest rates rose sharply in autumn.") is None


def test_shots_are_other_rows_of_the_same_label(loaded: LoadedModel, tmp_path: Path):
    shots = Shots(Template("<{id} {label}>"), 2, pool=12)
    make(loaded, tmp_path / "out.jsonl", with_settings(shots=shots, label="label"))
    for row in read(tmp_path / "out.jsonl"):
        examples = row["prompt"].split(">")[:2]
        assert len(set(examples)) == 2
        assert all(example.endswith(row["label"]) and f"<{row['id']} " not in example for example in examples)
    with pytest.raises(ValueError, match="7 examples asked for"):
        make(loaded, tmp_path / "few.jsonl", with_settings(shots=Shots(Template("{id}"), 7, pool=12), label="label"))


@given(st.text(), st.integers(min_value=1, max_value=9))
def test_first_words_are_a_beginning_of_the_text_and_fill_gives_it_back(text: str, count: int):
    beginning = first_words(text, count)
    assert text.startswith(beginning)
    assert first_words(text, 10**6) == text[: len(text.rstrip())] or not text.strip()
    assert Template("{x}{{}}").fill({"x": text}) == text + "{}"
    assert Template(f"{{x:{count}}}").fill({"x": text}) == beginning


@pytest.mark.parametrize("text", ["{", "{}", "{0!r}", "{text:many}", "{text:0}", "a}b"])
def test_a_template_that_names_no_column_is_refused(text: str):
    with pytest.raises(ValueError, match="template"):
        Template(text)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"text": "a"}, "row 2: has no column 'label', only 'text'"),
        ({"text": None, "label": "up", "id": "x"}, "row 2: has no column 'text'"),
        ({"text": " ", "label": "up", "id": "x"}, "row 2: its 'text' is empty"),
        (
            {"text": "a", "label": "sideways", "id": "x"},
            "row 2: label 'sideways' is unknown to the classifier by length",
        ),
        ({"text": "a", "label": "up", "id": "x", "path": "1"}, "row 2: has a column 'path' already"),
        ({"text": "a", "label": "up", "id": b"x"}, "row 2: its 'id' holds a bytes"),
        ({"text": "long " * 30, "label": "up", "id": "x"}, "row 2: a prompt of"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(
    loaded: LoadedModel, tmp_path: Path, row: dict[str, Any], complaint: str
):
    settings = with_settings(label="label", template=Template("{label}: {text}"))
    with pytest.raises(ValueError, match=complaint):
        make(loaded, tmp_path / "out.jsonl", settings, source=[ROWS[0], row], classifier=ByLength())
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_overwritten_only_when_asked_and_only_by_a_whole_run(loaded: LoadedModel, tmp_path: Path):
    output = tmp_path / "out.jsonl"
    output.write_text("mine\n")
    with pytest.raises(ValueError, match="exists: go on by --resume, start anew by --overwrite"):
        make(loaded, output)
    with pytest.raises(ValueError, match="exclude each other"):
        make(loaded, output, resume=True, overwrite=True)

    def stop(done: int, total: int) -> None:
        assert output.read_text() == "mine\n"
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(loaded, output, overwrite=True, progress=stop)
    assert output.read_text() == "mine\n"
    with pytest.raises(ValueError, match=r"journal is an interrupted run"):
        make(loaded, output)
    assert make(loaded, output, resume=True)
    assert make(loaded, output, resume=True) is None, "complete already"
    make(loaded, tmp_path / "whole.jsonl")
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    with pytest.raises(ValueError, match="comes from another run"):
        make(loaded, output, with_settings(seed=8), resume=True)
    output.write_text('{"text": "mine"}\n')
    with pytest.raises(ValueError, match="comes from another run"):
        make(loaded, output, resume=True)
    assert output.read_text() == '{"text": "mine"}\n'


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 8}, "seed was 7, now 8"),
        ({"batch": 4}, "batch was 3, now 4"),
        ({"template": Template("{text:3}")}, "template was"),
        ({"filters": Filters(min_length=2)}, "filters was"),
        ({"near": None}, "near was"),
    ],
)
def test_other_settings_are_no_resumption(loaded: LoadedModel, tmp_path: Path, changes: dict[str, Any], told: str):
    output = tmp_path / "out.jsonl"

    def stop(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(loaded, output, progress=stop)
    before = (tmp_path / "out.jsonl.journal").read_bytes()
    with pytest.raises(ValueError, match=told):
        make(loaded, output, with_settings(**changes), resume=True)
    with pytest.raises(ValueError, match="source was"):
        make(loaded, output, source=[*ROWS[:-1], {**ROWS[-1], "text": "another"}], resume=True)
    assert (tmp_path / "out.jsonl.journal").read_bytes() == before
    assert not output.exists()


def test_a_batch_does_not_hang_on_torchs_generator(loaded: LoadedModel, tmp_path: Path):
    torch.manual_seed(1)
    make(loaded, tmp_path / "one.jsonl")
    torch.manual_seed(2)
    make(loaded, tmp_path / "two.jsonl")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_settings_that_do_nothing_are_refused(loaded: LoadedModel, tmp_path: Path):
    for settings, options, complaint in (
        (with_settings(label="label"), {}, "label='label' has no effect"),
        (SETTINGS, {"classifier": ByLength()}, "no label column"),
        (SETTINGS, {"judge": Judge(loaded)}, "go together"),
        (with_settings(filters=Filters(min_confidence=0.5)), {}, "no effect without a classifier"),
        (with_settings(near=Near("embeddings", 0.9)), {}, "go together"),
    ):
        with pytest.raises(ValueError, match=complaint):
            make(loaded, tmp_path / "out.jsonl", settings, **options)


def test_a_transformers_classifier_keeps_the_texts_that_it_reads_right(loaded: LoadedModel, tmp_path: Path):
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=258, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        pad_token_id=1, id2label={0: "down", 1: "up"}, label2id={"down": 0, "up": 1}, initializer_range=1.0,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(loaded.name, pad_token="</s>")
    classifier = SequenceClassifier("tiny", LlamaForSequenceClassification(config), tokenizer, batch=4)
    settings = with_settings(label="label", near=None)
    report = make(loaded, tmp_path / "out.jsonl", settings, classifier=classifier)
    rows = read(tmp_path / "out.jsonl")
    assert report is not None
    assert report.dropped["another label"] > 0
    assert classifier.predict([row["text"] for row in rows])[0] == [row["label"] for row in rows]
    assert label_index(classifier, "up") == label_index(classifier, 1) == 1
    with pytest.raises(ValueError, match="label 2 is unknown to the classifier tiny"):
        label_index(classifier, 2)
