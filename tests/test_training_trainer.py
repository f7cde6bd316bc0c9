"""Training through transformers' Trainer: what is learned, by what, and what the log says about it."""

import itertools
import math

import datasets
import pytest
import torch

import stochroute as sr
from stochroute.measuring.nats import row_nats
from stochroute.training import (
    BestOfK,
    BoundPaths,
    FreshPaths,
    MarginalPreserving,
    RoutedTrainer,
    TransmissionCollapsed,
    Variational,
    example_paths,
)
from stochroute.training.data import Collate
from training_runs import (
    ABSOLUTE,
    CHECKPOINTING,
    CONFIG,
    EXAMPLES,
    LENGTH,
    losses,
    tiny_examples,
    tiny_model,
    tiny_trainer,
    uneven_examples,
)

# PEFT asks transformers under a name that newer versions deprecate
peft_asks_under_an_old_name = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
LONG = {"max_steps": 100, "per_device_train_batch_size": 32, "logging_steps": 10}


@pytest.fixture(scope="module")
def bound(tmp_path_factory) -> RoutedTrainer:
    trainer = tiny_trainer(tmp_path_factory.mktemp("bound"), BoundPaths(), **LONG)
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> RoutedTrainer:
    trainer = tiny_trainer(tmp_path_factory.mktemp("fresh"), FreshPaths(), **LONG)
    trainer.train()
    return trainer


@torch.no_grad()
def nats_along(trainer: RoutedTrainer, paths: list[int]) -> float:
    """Nats a token of the whole training set along the given paths, one an example."""
    batch = Collate()(list(trainer.train_dataset))
    trainer.routed.eval()
    with trainer.routed.follow(paths):
        logits = trainer.routed.model(input_ids=batch["input_ids"]).logits
    return row_nats(logits, batch["labels"]).sum().item() / (EXAMPLES * LENGTH)


def test_bound_paths_are_read_and_drive_the_loss_far_below_what_fresh_paths_can_reach(bound, fresh):
    """Without a path, which of the 32 texts it is can only be guessed: ln 32 nats a text."""
    floor = math.log(EXAMPLES) / LENGTH
    assert losses(fresh)[100] > 0.95 * floor
    assert losses(bound)[100] < 0.05 * floor


def test_the_path_is_what_carries_the_text(bound):
    paths = example_paths(7, bound.train_dataset["example"], 1)
    assert nats_along(bound, paths) < 0.05
    assert nats_along(bound, paths[1:] + paths[:1]) > 2  # each text along its neighbour's path


def test_fresh_paths_go_unread_and_sigma_falls(fresh, bound):
    log = [entry for entry in fresh.state.log_history if "transmission" in entry]
    assert log[-1]["transmission"] < 0.01
    assert log[-1]["sigma/structural.0"] < 0.9
    bound_log = [entry for entry in bound.state.log_history if "transmission" in entry]
    assert bound_log[-1]["transmission"] > 0.2


def test_a_collapse_of_the_transmission_is_warned_of_once_by_name(tmp_path):
    trainer = tiny_trainer(tmp_path, FreshPaths(), collapse_below=0.01, **LONG)
    with pytest.warns(TransmissionCollapsed, match="bind or infer them") as caught:
        trainer.train()
    log = [entry["transmission"] for entry in trainer.state.log_history if "transmission" in entry]
    falls = sum(a >= 0.01 > b for a, b in itertools.pairwise(log)) + (log[-1] < 0.01 and log[-2] < 0.01)
    assert len(caught) == falls >= 1
    assert "has collapsed" in str(caught[0].message)


def test_a_transmission_that_never_rose_is_warned_of_at_the_end(tmp_path):
    trainer = tiny_trainer(tmp_path, collapse_below=1.0, max_steps=3)
    with pytest.warns(TransmissionCollapsed, match="never rose: at step 3") as caught:
        trainer.train()
    assert len(caught) == 1


def test_the_log_is_what_a_direct_computation_gives(tmp_path):
    examples = tiny_examples(4)
    trainer = tiny_trainer(tmp_path, examples=examples, max_steps=1, learning_rate=0.0, probe_paths=3)
    trainer.train()
    logged = trainer.state.log_history[0]
    batch = Collate()(list(examples))
    trainer.routed.eval()
    information = divergence = 0.0
    for example, key in enumerate(examples["example"]):
        ids = batch["input_ids"][example : example + 1]
        paths = example_paths(7, [key], 3, step=(1 << 32) - 1)
        with torch.no_grad(), trainer.routed.follow([*paths, None]):
            p = trainer.routed.model(input_ids=ids.repeat(4, 1)).logits[:, :-1].double().softmax(-1)
        mean = p[:3].mean(0)
        information += (p[:3] * (p[:3] / mean).log()).sum().item() / 3
        divergence += (p[:3] * (p[:3] / p[3]).log()).sum().item() / 3
    assert logged["transmission"] == pytest.approx(information / (4 * LENGTH), rel=1e-3)
    assert logged["kl_routed_clean"] == pytest.approx(divergence / (4 * LENGTH), rel=1e-3)
    assert [logged["sigma/structural.0"], logged["sigma/structural.1"]] == [1.0, 1.0]


@pytest.mark.parametrize("form", ["shared", "latent"])
def test_sigma_is_logged_over_the_strength_in_every_form(tmp_path, form):
    config = sr.RoutingConfig(
        structural=sr.Structural(form=form, layers=[1], strength=0.2),
        attention=sr.Attention(strength=0.3, layers=[0], distance_buckets=2),
    )
    trainer = tiny_trainer(tmp_path, config=config, max_steps=1, learning_rate=0.0, save_strategy="no")
    trainer.train()
    sigma = {name: value for name, value in trainer.state.log_history[0].items() if name.startswith("sigma/")}
    assert sigma == {"sigma/structural.1": pytest.approx(1.0), "sigma/attention.0": 1.0}


@pytest.mark.parametrize(
    "objective",
    [FreshPaths(), BoundPaths(), Variational(), BestOfK(draws=2), MarginalPreserving(draws=2)],
    ids=lambda o: type(o).__name__,
)
def test_noise_alone_learns_under_every_objective_and_the_base_stays_bit_for_bit(tmp_path, objective):
    trainer = tiny_trainer(tmp_path, objective, trained="noise", config=ABSOLUTE, max_steps=6, learning_rate=0.02)
    trainer.train()
    assert all(
        torch.equal(a, b) for a, b in zip(trainer.routed.model.parameters(), tiny_model().parameters(), strict=True)
    )
    assert (trainer.routed.structural.sigma - 1).abs().max() > 1e-3
    assert (trainer.routed.structural.mu).abs().max() > 1e-3
    assert losses(trainer).keys() == set(range(1, 7))


def test_marginal_preserving_raises_the_transmission_of_a_frozen_model_within_its_budget(tmp_path):
    base = tiny_model()
    with torch.no_grad():
        for parameter in base.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)  # an untrained model says everything with one probability, whatever the noise
    trainer = tiny_trainer(
        tmp_path,
        MarginalPreserving(draws=8, budget=0.05),
        routed=sr.route(base, sr.RoutingConfig(structural=sr.Structural(layers="all", strength=0.05))),
        trained="noise",
        max_steps=40,
        learning_rate=0.1,
        logging_steps=10,
    )
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "transmission" in entry]
    assert log[-1]["transmission"] > 2 * log[0]["transmission"]
    assert log[-1]["loss"] < log[0]["loss"] < 0


@peft_asks_under_an_old_name
def test_an_adapter_is_trained_beside_the_noise_and_nothing_else(tmp_path):
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(tiny_model(), peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    before = {n: p.clone() for n, p in wrapped.named_parameters()}
    settings = {"max_steps": 10, "save_strategy": "steps", "save_steps": 5}
    trainer = tiny_trainer(tmp_path, routed=sr.route(wrapped, CONFIG), trained="adapter", **settings)
    trainer.train()
    moved = {n for n, p in wrapped.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n in before if "lora_" in n}
    assert not torch.equal(trainer.routed.structural.sigma, torch.ones_like(trainer.routed.structural.sigma))
    # what it saved is an adapter and a routing, and it goes on from there
    again = sr.route(peft.get_peft_model(tiny_model(), wrapped.peft_config["default"]), CONFIG)
    resumed = tiny_trainer(tmp_path, routed=again, trained="adapter", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert losses(resumed) == pytest.approx(losses(trainer), rel=1e-6)
    loaded = peft.PeftModel.from_pretrained(tiny_model(), tmp_path / "checkpoint-10")
    ids = torch.tensor([[0, 3, 4]])
    with torch.no_grad(), sr.RoutedModel.from_pretrained(loaded, tmp_path / "checkpoint-10").follow([5]):
        logits = loaded(input_ids=ids).logits
    with torch.no_grad(), trainer.routed.eval().follow([5]):
        assert torch.allclose(trainer.routed.model(input_ids=ids).logits, logits, atol=1e-6)


def test_the_noise_has_a_learning_rate_of_its_own_and_no_decay(tmp_path):
    trainer = tiny_trainer(tmp_path, noise_learning_rate=0.0, weight_decay=0.1, max_steps=2)
    trainer.train()
    assert torch.equal(trainer.routed.structural.sigma, torch.ones_like(trainer.routed.structural.sigma))
    groups = trainer.optimizer.param_groups
    noise = {id(p) for p in trainer.routed.structural.parameters()}
    assert [{id(p) for p in group["params"]} & noise for group in groups] == [set(), set(), noise]
    assert (groups[-1]["initial_lr"], groups[-1]["weight_decay"]) == (0.0, 0.0)
    assert groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize("checkpointing", [False, True])
def test_bfloat16_and_gradient_checkpointing_come_with_the_arguments(tmp_path, checkpointing):
    plain = tiny_trainer(tmp_path, max_steps=3)
    plain.train()
    other = tiny_trainer(tmp_path, max_steps=3, bf16=not checkpointing, **{CHECKPOINTING: checkpointing})
    other.train()
    assert losses(other) == pytest.approx(losses(plain), rel=1e-6 if checkpointing else 1e-2)
    assert (losses(other) == losses(plain)) is checkpointing
    assert other.routed.structural.sigma.dtype == torch.float32


def test_accumulated_steps_are_the_step_of_the_whole_batch(tmp_path):
    """With texts of different lengths too: the mean is over the tokens of all of them."""
    for objective in (BoundPaths(), Variational(), MarginalPreserving(draws=2)):
        runs = []
        for batch, accumulated in ((8, 1), (2, 4)):
            trainer = tiny_trainer(
                tmp_path,
                objective,
                config=ABSOLUTE,
                examples=uneven_examples(),
                trained="noise",
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=accumulated,
                max_steps=3,
            )
            trainer.train()
            runs.append(losses(trainer))
        assert runs[0] == pytest.approx(runs[1], rel=1e-4)


def test_evaluation_is_in_nats_a_token_whatever_the_batches(tmp_path):
    trainer = tiny_trainer(tmp_path, eval_dataset=uneven_examples(10), per_device_eval_batch_size=4)
    found = trainer.evaluate()["eval_loss"]
    batch = Collate()(list(uneven_examples(10)))
    with torch.no_grad(), trainer.routed.follow(example_paths(7, batch["example"].tolist(), 1, (1 << 32) - 1)):
        out = trainer.routed.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    targets = (batch["labels"][:, 1:] != -100).sum()
    assert found == pytest.approx((row_nats(out.logits, batch["labels"]).sum() / targets).item(), rel=1e-5)


def test_the_global_generators_decide_nothing_about_paths(tmp_path):
    """Another seed of Trainer shuffles otherwise, and that is all: with whole batches the losses are the same."""
    runs = []
    for seed in (1, 2):
        trainer = tiny_trainer(tmp_path, seed=seed, per_device_train_batch_size=32, max_steps=3)
        trainer.train()
        runs.append(losses(trainer))
    assert runs[0] == pytest.approx(runs[1], rel=1e-4)
    other = tiny_trainer(tmp_path, path_seed=8, per_device_train_batch_size=32, max_steps=3)
    other.train()
    assert losses(other) != pytest.approx(runs[0], rel=1e-4)


def test_noise_alone_logs_the_learning_rate_of_the_noise(tmp_path):
    trainer = tiny_trainer(tmp_path, trained="noise", noise_learning_rate=0.5, learning_rate=0.1, max_steps=1)
    trainer.train()
    assert trainer.state.log_history[0]["learning_rate"] == 0.5


@peft_asks_under_an_old_name
def test_an_adapter_can_follow_noise_that_was_trained_alone_but_is_not_trained_with_all(tmp_path):
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(tiny_model(), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    routed = sr.route(wrapped, CONFIG)
    tiny_trainer(tmp_path, routed=routed, trained="noise", max_steps=1).train()
    tiny_trainer(tmp_path, routed=routed, trained="adapter", max_steps=2).train()
    assert all(p.abs().sum() > 0 for n, p in wrapped.named_parameters() if "lora_B" in n)
    with pytest.raises(ValueError, match="merge_and_unload"):
        tiny_trainer(tmp_path, routed=routed, trained="all")


def test_noise_can_be_trained_on_weights_that_are_quantised(tmp_path):
    """Trainer takes such models with an adapter only; what it looks at is the attribute."""
    model = tiny_model()
    model.is_quantized = True
    trainer = tiny_trainer(tmp_path, routed=sr.route(model, CONFIG), trained="noise", max_steps=1)
    trainer.train()
    assert losses(trainer)


def test_training_leaves_the_models_config_as_it_was(tmp_path):
    model = tiny_model()
    trainer = tiny_trainer(tmp_path, routed=sr.route(model, CONFIG), max_steps=1)
    trainer.train()
    assert model.config.use_cache is True
    assert trainer.routed.detach() is model


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"trained": "everything"}, "trained='everything'"),
        ({"trained": "adapter"}, "peft"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor=0.1"),
        ({"examples": datasets.concatenate_datasets([tiny_examples(4)] * 2)}, "key twice"),
        ({"config": sr.RoutingConfig(structural=sr.Structural(strength=0.0))}, "strength > 0"),
        ({"path_seed": -1}, "seed=-1"),
        ({"objective": MarginalPreserving()}, "train"),
        ({"examples": tiny_examples().remove_columns("example")}, "'example'"),
        ({"eval_dataset": tiny_examples().select([])}, "no example left"),
        ({"examples": tiny_examples().to_iterable_dataset()}, "IterableDataset"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(tmp_path, settings, named):
    with pytest.raises(ValueError, match=named):
        tiny_trainer(tmp_path, **settings)
