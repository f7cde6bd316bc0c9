"""Routed models in the real lm-evaluation-harness: small tasks over a local file, nothing downloaded."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cli_model import save_tiny_model

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'stochroute[lm-eval]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # the harness and what it brings along warn about their own matters

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from stochroute.integrations.lm_eval import RoutedLM  # noqa: E402

DOCS = [
    {"text": "Ann saw a", "choices": ["fox", "bear", "cat"], "answer": 0},
    {"text": "the sea is", "choices": ["deep", "cake"], "answer": 0},
    {"text": "Tom ran", "choices": ["home", "a", "up so"], "answer": 2},
    {"text": "two and", "choices": ["two", "box"], "answer": 1},
]
CHOICE = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""
WRITE = """
task: tiny_write
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 6{more}}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    file = folder / "docs.jsonl"
    file.write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    (folder / "choice.yaml").write_text(CHOICE.format(file=file))
    (folder / "write.yaml").write_text(WRITE.format(file=file, more=""))
    sampled = WRITE.format(file=file, more=", do_sample: true, temperature: 1.0").replace("tiny_write", "tiny_sampled")
    (folder / "sampled.yaml").write_text(sampled)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def evaluate(tasks: Path, task: str, model: str, arguments: dict[str, Any]) -> list[Any]:
    """What the harness's own evaluation got back from the model, one answer a document."""
    found = lm_eval.simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=[task],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        device="cpu",
        batch_size=3,
        log_samples=True,
        bootstrap_iters=0,
    )
    assert found is not None
    return [sample["resps"] for sample in sorted(found["samples"][task], key=lambda s: s["doc_id"])]


def likelihoods(lm: HFLM) -> list[tuple[float, bool]]:
    requests = [
        Instance("loglikelihood", doc, (doc["text"], f" {choice}"), index)
        for index, doc in enumerate(DOCS)
        for choice in doc["choices"]
    ]
    return lm.loglikelihood(requests, disable_tqdm=True)


def lm(model: str, **arguments: Any) -> RoutedLM:
    return RoutedLM(model, **{"device": "cpu", "batch_size": 4, "dtype": "float64", "strength": 2.0, **arguments})


@pytest.mark.parametrize("task", ["tiny_choice", "tiny_write"])
def test_strength_0_is_the_harness_s_own_model_to_the_bit(tasks: Path, model: str, task: str):
    own = evaluate(tasks, task, "hf", {"pretrained": model})
    for more in ({"strength": 0.0}, {"strength": 0.0, "paths": 3, "vote": "majority"}):
        assert evaluate(tasks, task, "stochroute", {"pretrained": model, **more}) == own


@pytest.mark.parametrize("task", ["tiny_choice", "tiny_write", "tiny_sampled"])
def test_one_path_replays_from_the_seed_and_another_seed_differs(tasks: Path, model: str, task: str):
    arguments = {"pretrained": model, "strength": 2.0, "dtype": "float64"}
    first = evaluate(tasks, task, "stochroute", {**arguments, "seed": 7})
    torch.manual_seed(99)
    assert evaluate(tasks, task, "stochroute", {**arguments, "seed": 7}) == first
    assert evaluate(tasks, task, "stochroute", {**arguments, "seed": 8}) != first


def test_likelihoods_do_not_depend_on_the_batch(model: str):
    together = likelihoods(lm(model, paths=3))
    for size in (1, 5):
        for (a, greedy), (b, other) in zip(together, likelihoods(lm(model, paths=3, batch_size=size)), strict=True):
            assert a == pytest.approx(b, abs=1e-9)
            assert greedy == other


def test_a_likelihood_of_one_path_is_that_of_the_model_inside_follow(model: str):
    ours = lm(model, span="all")
    found = likelihoods(ours)
    tokens = ours.tok_encode(DOCS[0]["text"]), ours.tok_encode(DOCS[0]["text"] + " fox")
    with torch.no_grad(), ours.routed.follow(ours.paths_of(tokens[0])):
        log_p = ours.model(torch.tensor([tokens[1]])).logits.log_softmax(-1)[0]
    expected = sum(float(log_p[i - 1, tokens[1][i]]) for i in range(len(tokens[0]), len(tokens[1])))
    assert found[0][0] == pytest.approx(expected, abs=1e-9)


def test_the_mean_over_paths_is_the_likelihood_of_the_mixture(model: str):
    mixed = lm(model, paths=3)
    single = []
    for sample in range(3):
        one = lm(model)
        one.paths_of = lambda context, sample=sample: [mixed.paths_of(context)[sample]]  # type: ignore[method-assign]
        single.append([value for value, _ in likelihoods(one)])
    values = likelihoods(mixed)
    for (value, _), along in zip(values, zip(*single, strict=True), strict=True):
        assert value == pytest.approx(math.log(sum(map(math.exp, along)) / 3), abs=1e-9)
    assert len({round(value, 9) for value in single[0]} & {round(value, 9) for value in single[1]}) == 0


def test_a_continuation_is_greedy_where_each_token_is_the_mixture_s_likeliest(model: str):
    mixed = lm(model, paths=4)
    context = mixed.tok_encode("Ann saw")
    written: list[int] = []
    with torch.no_grad():
        for _ in range(3):  # the mixture's own greedy text, from whole sequences alone
            ids = torch.tensor([[*context, *written]]).expand(4, -1)
            with mixed.routed.follow(mixed.paths_of(context), start=len(context) - 1):
                log_p = mixed.model(ids).logits.log_softmax(-1)
            weight = sum(
                (log_p[:, len(context) - 1 + i, token] for i, token in enumerate(written)),
                start=torch.zeros(4).double(),
            )
            written.append(int((weight[:, None] + log_p[:, -1]).logsumexp(0).argmax()))
    other = [*written[:-1], (written[-1] + 1) % 256]
    found = mixed._loglikelihood_tokens([(None, context, written), (None, context, other)], disable_tqdm=True)
    assert [greedy for _, greedy in found] == [True, False]


def test_a_majority_ranks_choices_by_the_votes_of_the_paths(model: str):
    voted = likelihoods(lm(model, paths=5, vote="majority"))
    assert len({value for value, _ in voted}) > len(DOCS)
    first = 0
    for doc in DOCS:
        values = [math.exp(value) * 6 for value, _ in voted[first : first + len(doc["choices"])]]
        first += len(doc["choices"])
        # votes and shares of probability: whole numbers that sum to 5, and fractions that sum to 1
        assert sum(values) == pytest.approx(6)
        assert sum(map(math.floor, values)) == 5


def test_a_majority_of_texts_is_the_most_frequent_one(tasks: Path, model: str):
    arguments = {"pretrained": model, "strength": 0.3, "seed": 7, "dtype": "float64"}
    voted = evaluate(tasks, "tiny_write", "stochroute", {**arguments, "paths": 3, "vote": "majority"})
    ours = lm(model, strength=0.3, seed=7, paths=3, vote="majority")
    requests = [
        Instance("generate_until", doc, (doc["text"], {"until": ["\n"], "max_gen_toks": 6}), i)
        for i, doc in enumerate(DOCS)
    ]
    texts = []
    for sample in range(3):
        ours._sample = sample
        texts.append(HFLM.generate_until(ours, requests, disable_tqdm=True))
    for (answer,), of_one in zip((resps[0] for resps in voted), zip(*texts, strict=True), strict=True):
        assert of_one.count(answer) == max(map(of_one.count, of_one))


def test_a_saved_routing_is_walked(model: str, tmp_path: Path):
    ours = lm(model, layers="all", span="all")
    ours.routed.save_pretrained(tmp_path / "routing")
    again = RoutedLM(model, routing=str(tmp_path / "routing"), device="cpu", batch_size=4, dtype="float64")
    assert likelihoods(again) == likelihoods(ours)
    assert again.get_model_info()["routing"] == ours.get_model_info()["routing"]


def test_the_embedded_model_reads_a_story_better_than_nonsense():
    ours = RoutedLM("embedded", strength=0.1, paths=2, device="cpu", batch_size=4)
    rows = [("Once upon a time, a fox named Mira lived in a", " dark forest."), ("Once upon a time, a fox", " xq zzv.")]
    (story, _), (nonsense, _) = ours.loglikelihood(
        [Instance("loglikelihood", {}, row, i) for i, row in enumerate(rows)], disable_tqdm=True
    )
    assert story > nonsense


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"paths": 0}, "paths=0"),
        ({"paths": 2, "vote": "loudest"}, "vote='loudest' is unknown"),
        ({"routing": "somewhere"}, "have no effect beside routing"),
        ({"seed": -1}, "seed=-1"),
        ({"backend": "seq2seq"}, "no paths"),
    ],
)
def test_bad_arguments_are_named(model: str, arguments: dict[str, Any], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        lm(model, **arguments)


def test_what_a_vote_cannot_answer_is_an_error(model: str):
    text = Instance("generate_until", {}, ("ab", {"until": ["\n"]}), 0)
    with pytest.raises(ValueError, match="cannot average texts"):
        lm(model, paths=2).generate_until([text], disable_tqdm=True)
    alone = Instance("loglikelihood", {}, ("ab", "c"), 0)
    with pytest.raises(ValueError, match="needs several choices"):
        lm(model, paths=2, vote="majority").loglikelihood([alone], disable_tqdm=True)
    rolling = Instance("loglikelihood_rolling", {}, ("ab",), 0)
    with pytest.raises(ValueError, match="no likelihood of a whole text"):
        lm(model, paths=2, vote="majority").loglikelihood_rolling([rolling], disable_tqdm=True)
    (value,) = lm(model, paths=2).loglikelihood_rolling([rolling], disable_tqdm=True)
    assert -math.inf < value < 0


def test_the_command_line_of_the_harness_knows_the_model(tasks: Path, model: str, tmp_path: Path):
    command = [sys.executable, "-c", "from stochroute.cli import main; main()", "lm-eval", "run"]
    options = ["--model", "stochroute", "--model_args", f"pretrained={model},strength=2.0,paths=2,seed=7"]
    where = ["--tasks", "tiny_choice", "--include_path", str(tasks), "--device", "cpu", "--output_path", str(tmp_path)]
    done = subprocess.run([*command, *options, *where], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    (result,) = tmp_path.rglob("results_*.json")
    report = json.loads(result.read_text())
    assert 0 <= report["results"]["tiny_choice"]["acc,none"] <= 1
    assert report["config"]["path_seed"] == 7
