"""`stochroute train --config FILE`: a run from a file, and one line for whatever is wrong with it."""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

import stochroute as sr
from cli_model import save_tiny_model
from stochroute.cli import run
from stochroute.cli.train import train
from stochroute.training import BestOfK, BoundPaths, Data, Variational
from stochroute.training.recipe import Adapter, Recipe, read_recipe, recipe_from

# PEFT asks transformers under a name that newer versions deprecate
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def content(model, tmp_path) -> dict:
    """A config that works."""
    rows = [{"id": f"s{i}", "prompt": "Say", "text": f" {i} is it"} for i in range(8)]
    (tmp_path / "stories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "output": str(tmp_path / "out"),
        "model": model,
        "data": {"train": str(tmp_path / "stories.jsonl"), "prompt": "prompt"},
        "routing": {"structural": {"form": "latent", "layers": "all", "strength": 1.0, "rank": 4}},
        "objective": "bound",
        "train": "all",
        "seed": 7,
        "collapse_below": 0.0,
        "trainer": {"max_steps": 4, "per_device_train_batch_size": 4, "logging_steps": 2, "use_cpu": True},
    }


def config(tmp_path: Path, content: dict) -> str:
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(content))
    return str(tmp_path / "train.yaml")


def complaint(capsys, tmp_path: Path, content: dict, *options: str) -> str:
    """The line on standard error that names what is wrong; progress bars may stand before it."""
    assert run(["train", "--config", config(tmp_path, content), *options]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("stochroute: ")
    return last


def test_a_config_trains_saves_the_routing_and_writes_the_log_for_tensorboard(content, tmp_path, capsys):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run(["train", "--config", config(tmp_path, content)]) == 0
    shown = capsys.readouterr()
    assert "4 steps, seed 7; transmission" in shown.out
    assert "4/4" in shown.err  # the progress bar
    output = Path(content["output"])
    trained = sr.RoutedModel.from_pretrained(AutoModelForCausalLM.from_pretrained(output), output)
    assert trained.config.structural.form == "latent"
    assert trained.structural.mu.abs().sum() > 0
    events = EventAccumulator(str(next(output.rglob("events.out.*"))))
    events.Reload()
    written = set(events.Tags()["scalars"])
    assert {"train/loss", "train/transmission", "train/kl_routed_clean", "train/sigma/structural.0"} <= written


@pytest.mark.parametrize(
    "trained",
    [{"train": "all"}, {"train": "adapter", "adapter": {"rank": 2, "targets": ["q_proj"]}}],
    ids=["all", "adapter"],
)
def test_what_it_wrote_can_be_generated_from(content, tmp_path, capsys, trained):
    content |= trained
    assert run(["train", "--config", config(tmp_path, content)]) == 0
    capsys.readouterr()
    output = content["output"]
    arguments = ["generate", "Say", "--model", output, "--routing", output, "--max-new-tokens", "4", "--json"]
    assert run([*arguments, "--paths", "2", "--seed", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_an_output_with_checkpoints_needs_resume_and_then_goes_on(content, tmp_path, capsys):
    assert run(["train", "--config", config(tmp_path, content)]) == 0
    assert "holds checkpoint-4 already; give --resume" in complaint(capsys, tmp_path, content)
    content["trainer"]["max_steps"] = 6
    assert run(["train", "--config", config(tmp_path, content), "--resume"]) == 0
    assert "6 steps" in capsys.readouterr().out


def test_an_adapter_can_be_trained_and_loaded_again(content, tmp_path, model):
    peft = pytest.importorskip("peft")
    content |= {"train": "adapter", "adapter": {"rank": 2, "targets": ["q_proj"]}, "objective": "fresh"}
    assert run(["train", "--config", config(tmp_path, content)]) == 0
    base = AutoModelForCausalLM.from_pretrained(model)
    adapted = peft.PeftModel.from_pretrained(base, content["output"])
    assert sr.RoutedModel.from_pretrained(adapted, content["output"]).config.structural.rank == 4


def test_the_keys_of_the_file_are_those_of_the_recipe(tmp_path):
    (tmp_path / "train.yaml").write_text(
        """
        output: out
        data: {train: a.jsonl, evaluation: b.jsonl, id: name, max_length: 64}
        routing: {structural: {form: independent, scale: absolute}, span: all}
        objective: {name: variational, beta: 0.5, anneal_steps: 100, free_nats: 2}
        train: adapter
        adapter: {rank: 4, targets: [q_proj, v_proj]}
        noise_learning_rate: 1e-3
        trainer: {learning_rate: 5e-5}
        """
    )
    assert read_recipe(tmp_path / "train.yaml") == Recipe(
        output="out",
        data=Data(train="a.jsonl", evaluation="b.jsonl", id="name", max_length=64),
        routing=sr.RoutingConfig(structural=sr.Structural(form="independent", scale="absolute"), span="all"),
        objective=Variational(beta=0.5, anneal_steps=100, free_nats=2),
        train="adapter",
        adapter=Adapter(rank=4, targets=("q_proj", "v_proj")),
        noise_learning_rate=1e-3,
        trainer={"learning_rate": 5e-5},
    )
    least = recipe_from({"output": "out", "data": {"train": "a.txt"}})
    assert least == Recipe(output="out", data=Data(train="a.txt"))
    assert least.objective == BoundPaths()
    best = {"output": "o", "data": {"train": "a.txt"}, "objective": {"name": "best_of_k", "draws": 3, "bound": True}}
    assert recipe_from(best) == replace(least, output="o", objective=BestOfK(draws=3, bound=True))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"outputs": "x"}, "outputs is unknown (did you mean 'output'?)"),
        ({"data": {"trian": "x"}}, "data.trian is unknown (did you mean 'train'?)"),
        ({"data": {"id": "x"}}, "data.train is missing"),
        ({"data": "stories.jsonl"}, "data holds 'stories.jsonl'"),
        ({"data": {"train": "a.txt", "max_length": "long"}}, "data.max_length: 'long' is no int"),
        ({"routing": {"structurel": {}}}, "'structurel' (did you mean 'structural'?)"),
        ({"routing": {"structural": {"strength": -1}}}, "strength=-1"),
        ({"routing": "no/such/folder"}, "no/such/folder"),
        ({"objective": "bounds"}, "objective bounds is unknown (did you mean 'bound'?)"),
        ({"objective": {"name": "best_of_k", "draw": 3}}, "objective.draw is unknown (did you mean 'draws'?)"),
        ({"objective": {"name": "best_of_k", "draws": 1}}, "draws=1"),
        ({"objective": "variational"}, "scale='absolute'"),
        ({"objective": "marginal"}, "set train to 'noise'"),
        ({"train": "nose"}, "train: 'nose' is no 'noise' or 'adapter' or 'all'"),
        ({"train": "adapter"}, "an adapter needs"),
        ({"adapter": {"rank": 2}}, "an adapter needs"),
        ({"train": "adapter", "adapter": {"targets": ["nowhere"]}}, "adapter: "),
        ({"seed": -1}, "seed=-1"),
        ({"model": 3}, "model: 3 is no str or None"),
        ({"seed": True}, "seed: True is no int"),
        ({"dtype": "int8"}, "dtype int8"),
        ({"model": "./no/such/model"}, "./no/such/model"),
        ({"trainer": {"max_step": 3}}, "trainer.max_step is unknown (did you mean 'max_steps'?)"),
        ({"trainer": {"output_dir": "x"}}, "trainer.output_dir has no effect here: set output"),
        ({"trainer": {"eval_strategy": "sometimes"}}, "trainer: "),
        ({"data": {"train": "no.jsonl"}}, "no.jsonl: no such file"),
    ],
)
def test_what_is_wrong_with_a_config_is_said_in_one_line(content, tmp_path, capsys, change, named):
    assert named in complaint(capsys, tmp_path, content | change)


def test_a_config_that_cannot_be_read_is_named(tmp_path, capsys):
    assert run(["train", "--config", str(tmp_path / "no.yaml")]) == 2
    assert "no.yaml: no such file" in capsys.readouterr().err
    for text, named in (("a: [", "is no YAML"), ("- a", "the config holds ['a']"), ("", "the config holds None")):
        (tmp_path / "bad.yaml").write_text(text)
        assert run(["train", "--config", str(tmp_path / "bad.yaml")]) == 2
        assert named in capsys.readouterr().err


def test_a_routing_trained_for_another_model_is_refused(content, tmp_path, capsys):
    other = AutoModelForCausalLM.from_pretrained(save_tiny_model(tmp_path / "other", layers=2))
    sr.route(other).save_pretrained(tmp_path / "routing")
    assert "made for another model" in complaint(capsys, tmp_path, content | {"routing": str(tmp_path / "routing")})


def test_training_goes_on_from_a_saved_routing(content, tmp_path):
    assert run(["train", "--config", config(tmp_path, content)]) == 0
    content |= {"routing": content["output"], "model": content["output"], "output": str(tmp_path / "second")}
    content["trainer"]["learning_rate"] = 0.0
    assert run(["train", "--config", config(tmp_path, content)]) == 0
    first, second = (
        sr.RoutedModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), folder).structural.mu
        for folder in (tmp_path / "out", tmp_path / "second")
    )
    assert torch.equal(first, second)


def test_ctrl_c_says_how_to_go_on(content, tmp_path, capsys, monkeypatch):
    from stochroute.training import RoutedTrainer

    def interrupted(self, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(RoutedTrainer, "train", interrupted)
    assert run(["train", "--config", config(tmp_path, content)]) == 130
    assert "there is no checkpoint yet" in capsys.readouterr().err


def test_a_full_disk_is_one_line(content, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stochroute.training.trainer.seal", full)
    assert "MiB are free there: make room" in complaint(capsys, tmp_path, content)


def test_the_help_shows_a_config(capsys):
    assert run(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "objective: bound" in shown
    assert "--resume" in shown


def test_the_config_of_the_help_is_one_that_works():
    text = train.__doc__.partition("\b")[2].partition("Then:")[0]
    recipe = recipe_from(yaml.safe_load(text))
    assert recipe.objective == BoundPaths()
