"""The embedded model: it loads without a download, tells coherent stories, and can be trained again."""

import json
from importlib.resources import files

import pytest
import torch
from transformers import LlamaForCausalLM

import stochroute as sr
from stochroute import embedded
from stochroute.embedded import evaluate, train
from stochroute.embedded.evaluate import PROMPTS, sample
from stochroute.embedded.inferred import ROUTING
from stochroute.embedded.texts import MIXTURE, WorldTexts, text_at, train_tokenizer
from stochroute.measuring.nats import IGNORED
from stochroute.world import check, number_of_plots

WEIGHTS = files("stochroute.embedded") / "weights"


@pytest.fixture(scope="module")
def loaded():
    return embedded.load()


def test_it_loads_in_float32_with_two_to_four_million_parameters(loaded):
    model, _ = loaded
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert 2_000_000 <= model.num_parameters() <= 4_000_000


def test_its_files_fit_the_wheel():
    sizes = {file.name: file.stat().st_size for file in embedded.weights_folder().rglob("*") if file.is_file()}
    assert sum(sizes.values()) < 10_000_000
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= set(sizes)


def test_the_provenance_describes_these_weights(loaded):
    model, tokenizer = loaded
    provenance = json.loads((WEIGHTS / "PROVENANCE.json").read_text(encoding="utf-8"))
    assert provenance["parameters"] == model.num_parameters()
    assert provenance["vocabulary"] == len(tokenizer)
    assert provenance["plots_in_the_world"] == number_of_plots()
    assert provenance["samples_at_temperature_1"]["en story"]["coherent"] >= 0.85
    assert all(prompt["coherent"] >= 0.99 for prompt in provenance["greedy_along_paths"].values())


def test_any_text_survives_the_tokenizer(loaded):
    _, tokenizer = loaded
    for text in (
        "Once upon a time",
        "从前，有一只狐狸",
        "Zürich 🦊\n\tnaïve 42%  ",
        *(text_at(9, i) for i in range(20)),
    ):
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_prompt_is_a_prefix_of_its_stories_in_tokens_too(loaded):
    _, tokenizer = loaded
    stories = [tokenizer(text_at(1, index))["input_ids"] for index in range(400)]
    for prompt in embedded.DEFAULT_PROMPTS:
        ids = tokenizer(prompt)["input_ids"]
        assert len({tuple(story) for story in stories if story[: len(ids)] == ids}) > 5


def test_padding_stands_on_the_left(loaded):
    model, tokenizer = loaded
    batch = tokenizer(["Once upon a time", "从前"], padding=True, return_tensors="pt")
    assert batch["input_ids"][1, 0] == tokenizer.pad_token_id != tokenizer.eos_token_id
    together = model.generate(**batch, do_sample=False, max_new_tokens=200)
    alone = model.generate(**tokenizer("从前", return_tensors="pt"), do_sample=False, max_new_tokens=200)
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in (together[1], alone[0])]
    assert texts[0] == texts[1]


def test_default_prompts_lead_to_many_coherent_plots(loaded):
    model, tokenizer = loaded
    torch.manual_seed(0)
    for prompt in embedded.DEFAULT_PROMPTS:
        verdicts = [check(text) for text in sample(model, tokenizer, prompt, 24)]
        plots = [verdict.plot for verdict in verdicts if verdict.coherent and verdict.plot]
        assert len(plots) >= 14, prompt
        assert len(set(plots)) == len(plots), prompt
        assert len({plot.goal for plot in plots}) > 6, prompt


def test_greedy_text_is_coherent_and_ends_itself(loaded):
    model, tokenizer = loaded
    ids = tokenizer(embedded.DEFAULT_PROMPTS[0], return_tensors="pt")
    out = model.generate(**ids, do_sample=False, max_new_tokens=200)[0]
    assert out[-1] == tokenizer.eos_token_id
    assert check(tokenizer.decode(out, skip_special_tokens=True)).coherent


def test_the_mixture_tells_every_language_and_form():
    assert {check(text_at(0, index)).coherent for index in range(len(MIXTURE))} == {True}
    assert len(set(MIXTURE)) == 4


def test_the_tokenizer_can_be_trained_again(loaded):
    assert train_tokenizer(seed=0).get_vocab() == loaded[1].get_vocab()


def test_training_saves_what_load_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "LONGEST", 8)
    arguments = ["--out", str(tmp_path), "--steps", "2", "--batch", "2"]
    report = train.main([*arguments, "--samples", "2"])
    assert report["training_texts"] == report["plain"]["training_texts"] == 4
    assert set(report["greedy_along_paths"]) == set(PROMPTS)
    assert json.loads((tmp_path / "PROVENANCE.json").read_text(encoding="utf-8")) == report
    names = {file.name for file in tmp_path.iterdir()} - {"checkpoints", "plain"}
    assert names == {file.name for file in WEIGHTS.iterdir()}
    model = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert sr.RoutedModel.from_pretrained(model, tmp_path / embedded.ROUTING_FOLDER).config == ROUTING
    monkeypatch.setattr(train, "train_plainly", None)  # what is done is not done again
    monkeypatch.setattr(train, "train_with_paths", None)
    assert train.main([*arguments, "--samples", "2"]) == report


def test_texts_begin_with_a_prompt_of_any_length_that_is_not_learned(loaded):
    texts = WorldTexts(loaded[1], 0, range(5, 405), prompted=True)
    prompts = [text["labels"].count(IGNORED) for text in texts]
    assert 1 == min(prompts) < max(prompts)
    assert 0.3 < sum(prompt <= 8 for prompt in prompts) / 400 < 0.6  # ln 9 / ln 150 = 0.44
    assert all(prompt < len(text["input_ids"]) for prompt, text in zip(prompts, texts, strict=True))
    assert [text["example"] for text in texts] == list(range(5, 405))
    assert (
        WorldTexts(loaded[1], 0, range(5))[4]["labels"][1:] == WorldTexts(loaded[1], 0, range(4, 5))[0]["input_ids"][1:]
    )


def test_missing_weights_are_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "files", lambda name: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"embedded\.train"):
        embedded.load()
