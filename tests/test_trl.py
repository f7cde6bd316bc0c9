"""GRPO by TRL itself, on tiny models with a reward that can be checked: the share of low tokens in a completion."""

import json
from dataclasses import replace
from typing import Any

import pandas
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

import stochroute as sr
from cli_model import save_tiny_model
from families import FAMILIES
from stochroute.generation import generate as generation
from stochroute.integrations.rollouts import PathRollout
from stochroute.integrations.trl import RoutedGRPOTrainer, SamplingMismatch
from trl_runs import ATTENTION, BOTH_ALL, PROMPTS, STRUCTURAL, Recorded, path_of, real_tokens, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are using 'rollout_func', which is an experimental feature"),
    pytest.mark.filterwarnings(r"ignore:`(is_)?gradient_checkpointing\w*` is deprecated:FutureWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


# ---- the loss walks the paths ----


@pytest.mark.parametrize("routing", [STRUCTURAL, ATTENTION, BOTH_ALL], ids=["structural", "attention", "both, all"])
def test_the_loss_at_first_sees_the_log_probabilities_that_wrote_each_completion(folder, tmp_path, routing):
    run, _ = trainer(folder, tmp_path, routing=routing, num_iterations=2, max_steps=1)
    run.train()
    first = run.losses[0]
    mask = first["completion_mask"].bool()
    ratio = (first["logps"] - first["old_per_token_logps"])[mask].exp()
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=1e-6)  # TRL's are float32
    torch.testing.assert_close(first["logps"][mask], first["sampling_per_token_logps"][mask], rtol=0, atol=1e-5)
    # off its path a completion has other log-probabilities, so the ratio would have shown it
    fresh = sr.route(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64), routing)
    ids = torch.cat([first["prompt_ids"], first["completion_ids"]], 1)
    clean = fresh.model(ids, attention_mask=torch.cat([first["prompt_mask"], first["completion_mask"]], 1)).logits
    width = first["completion_ids"].shape[1]
    clean = clean[:, -width - 1 : -1].log_softmax(-1).gather(2, first["completion_ids"][..., None])[..., 0]
    assert ((clean - first["logps"])[mask].abs().mean() > 0.01).item()


def test_two_steps_raise_the_reward_on_paths_never_trained_on(folder, tmp_path):
    held_out = Dataset.from_dict({"prompt": PROMPTS * 4})
    run, _ = trainer(folder, tmp_path, per_device_train_batch_size=16, eval_dataset=held_out, learning_rate=1e-1)
    before = run.evaluate()["eval_reward"]
    run.train()
    assert run.evaluate()["eval_reward"] > before + 0.1
    assert all(torch.isfinite(p).all() for p in run.model.parameters())


def test_no_gradient_reaches_the_noise(folder, tmp_path):
    run, _ = trainer(folder, tmp_path)
    before = {name: value.clone() for name, value in run.routed.noise_parameters().items()}
    run.train()
    assert all(p.grad is None for noise in run.routed.kinds().values() for p in noise.parameters())
    assert all(torch.equal(value, before[name]) for name, value in run.routed.noise_parameters().items())


def test_checkpointed_layers_are_computed_again_on_the_same_paths(folder, tmp_path):
    norms = []
    for checkpointing in (False, True):
        run, _ = trainer(folder, tmp_path, routing=BOTH_ALL, gradient_checkpointing=checkpointing)
        run.train()
        norms.append([entry["grad_norm"] for entry in run.state.log_history if "grad_norm" in entry])
    assert norms[0] == pytest.approx(norms[1], rel=1e-9)
    assert all(norm > 0 for norm in norms[0])


def test_the_log_says_how_far_the_loss_is_from_the_sampler(folder, tmp_path):
    run, _ = trainer(folder, tmp_path)
    run.train()
    for entry in run.state.log_history[:2]:
        assert 0 <= entry["sampling/sampling_logp_difference/mean"] < 1e-6


def test_mixed_precision_walks_the_paths_too(folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    run, _ = trainer(folder, tmp_path, model, routing=BOTH_ALL, bf16=True, max_steps=1)
    run.train()
    assert 0 < run.state.log_history[0]["sampling/sampling_logp_difference/mean"] < 0.02


def test_a_model_that_reads_padding_as_positions_is_warned_of(folder, tmp_path):
    config = FAMILIES["gpt2"].config()
    config.vocab_size, config.eos_token_id = 258, 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        model.transformer.wpe.weight.data.normal_(0, 1.0)
    run, _ = trainer(folder, tmp_path, model, max_steps=1, per_device_train_batch_size=16)
    with pytest.warns(SamplingMismatch, match="nats a token"):
        run.train()


# ---- a recorded completion can be written again ----


@pytest.mark.parametrize("sampled", [True, False], ids=["sampled", "greedy"])
def test_every_recorded_completion_is_written_again_from_its_receipt(folder, tmp_path, sampled):
    asked = {} if sampled else {"generation_kwargs": {"do_sample": False}}
    run, rewards = trainer(folder, tmp_path, max_steps=1, gradient_accumulation_steps=4, **asked)
    run.train()
    again = sr.route(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64), STRUCTURAL)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(rewards.rows[0]) == 16
    for row in rewards.rows[0]:
        receipt = sr.Receipt.from_dict(row["receipt"])
        assert receipt.path == row["path"]
        prompt = tokenizer(row["prompt"], return_tensors="pt")
        out = again.generate(**prompt, paths=[receipt], **receipt.decoding)  # a mismatch would warn, which is an error
        assert out.generated[0].tolist() == row["ids"]
    texts = {(row["prompt"], tuple(row["ids"])) for row in rewards.rows[0]}
    assert len(texts) > len(PROMPTS)


def test_rows_written_in_several_chunks_keep_their_log_probabilities(folder, tmp_path, monkeypatch):
    seen = []
    for rows_at_once in (16, 3):
        monkeypatch.setattr(generation, "rows_that_fit", lambda *unused, n=rows_at_once: n)
        run, _ = trainer(folder, tmp_path, max_steps=1, per_device_train_batch_size=16)
        run.train()
        seen.append(run.losses[0])
    assert torch.equal(seen[0]["completion_ids"], seen[1]["completion_ids"])
    torch.testing.assert_close(seen[0]["sampling_per_token_logps"], seen[1]["sampling_per_token_logps"])


def test_the_table_of_completions_names_path_and_receipt(folder, tmp_path):
    run, rewards = trainer(folder, tmp_path, max_steps=1, log_completions=True)
    run.train()
    table = pandas.read_parquet(tmp_path / "completions" / "completions_00001.parquet")
    assert table["path"].tolist() == rewards.paths(0)
    assert [json.loads(text) for text in table["receipt"]] == [row["receipt"] for row in rewards.rows[0]]


# ---- rows and their paths stay together ----


@pytest.mark.parametrize(
    "batching",
    [
        {"steps_per_generation": 4, "gradient_accumulation_steps": 2},
        {"steps_per_generation": 2, "num_iterations": 2},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8, "steps_per_generation": 4},
        {"mask_truncated_completions": True, "steps_per_generation": 4},
    ],
    ids=["4 slices over 2 steps", "used twice", "two rollouts a step", "cut texts masked"],
)
def test_shuffled_and_split_rows_keep_the_path_that_wrote_them(folder, tmp_path, batching):
    run, rewards = trainer(folder, tmp_path, **batching)
    run.train()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    wrote = {row["path"]: row for rows in rewards.rows.values() for row in rows}
    assert len(wrote) == sum(len(rows) for rows in rewards.rows.values())  # no path is walked twice
    seen = []
    for inputs in run.losses:
        for row in range(len(inputs["prompt_ids"])):
            recorded = wrote[path_of(inputs, row)]
            prompt, completion = real_tokens(inputs, row)
            assert prompt == tokenizer(recorded["prompt"])["input_ids"]
            assert (
                completion in (recorded["ids"], [])
                if "mask_truncated_completions" in batching
                else (completion == recorded["ids"])
            )
            assert recorded["start"] == len(prompt) - 1
            seen.append(path_of(inputs, row))
    orders = [row["path"] for rows in rewards.rows.values() for row in rows][: len(seen)]
    assert seen[: len(orders)] != orders, "TRL has not shuffled, so this test shows nothing"


@pytest.mark.parametrize("what", ["stochroute_path", "completion_ids", "prompt_ids"])
def test_a_row_with_the_path_of_another_is_an_error(folder, tmp_path, what):
    run, _ = trainer(folder, tmp_path, per_device_train_batch_size=16)
    honest = run.compute_loss

    def tampered(model, inputs, *args, **settings):
        return honest(model, {**inputs, what: inputs[what].roll(1, 0)}, *args, **settings)

    run.compute_loss = tampered
    with pytest.raises(RuntimeError, match=r"holds other tokens than the path has written"):
        run.train()


def test_old_log_probabilities_off_their_rows_are_an_error(folder, tmp_path):
    run, _ = trainer(folder, tmp_path, num_iterations=2)
    honest = run.begin_scoring

    def shifted(written):
        first, *others = written.completion_ids
        honest(replace(written, completion_ids=[*others, first]))

    run.begin_scoring = shifted
    with pytest.raises(RuntimeError, match="holds other tokens"):
        run.train()


def test_a_loss_of_rows_without_paths_is_an_error(folder, tmp_path):
    run, _ = trainer(folder, tmp_path)
    run.train()
    with pytest.raises(RuntimeError, match="these completions have no paths"):
        run.compute_loss(run.model, {n: v for n, v in run.losses[-1].items() if n != "stochroute_path"})


# ---- which paths ----


def test_a_resumed_run_walks_the_paths_that_an_uninterrupted_one_walks(folder, tmp_path):
    settings = {"max_steps": 4, "gradient_accumulation_steps": 2, "steps_per_generation": 1, "save_strategy": "steps"}
    settings |= {"save_steps": 2, "save_only_model": False}
    whole, at_once = trainer(folder, tmp_path / "whole", **settings)
    whole.train()
    resumed, gone_on = trainer(folder, tmp_path / "whole", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert sorted(gone_on.rows) == [2, 3]
    for step in (2, 3):
        assert gone_on.rows[step] == at_once.rows[step]  # prompts, paths, receipts and tokens
    every = [path for step in range(4) for path in at_once.paths(step)]
    assert len(every) == len(set(every)) == 4 * 2 * 4


def test_evaluation_walks_the_same_paths_each_time_and_none_of_training(folder, tmp_path):
    run, rewards = trainer(folder, tmp_path, eval_dataset=Dataset.from_dict({"prompt": PROMPTS}))
    run.train()
    trained = {path for rows in rewards.rows.values() for path in [row["path"] for row in rows]}
    rewards.rows.clear()
    run.evaluate()
    first = rewards.paths(2)
    rewards.rows.clear()
    run.evaluate()
    assert rewards.paths(2) == first
    assert len(set(first)) == len(first) == 4 * len(PROMPTS)
    assert not trained & set(first)


def test_paths_follow_the_seed_the_step_the_row_and_the_prompt(folder, tmp_path):
    run, _ = trainer(folder, tmp_path)
    rollout = PathRollout(run.routed, 3)
    run.model.train()
    assert run.rollout_func.seed == 3  # the trainer's own
    prompts = [[1, 2], [1, 2], [3]]
    first = rollout.paths_of(prompts, run)
    assert rollout.paths_of(prompts, run) == first
    assert rollout.paths_of(prompts[:2], run) == first[:2]
    others = [*PathRollout(run.routed, 4).paths_of(prompts, run), *rollout.paths_of([[4]], run)]
    run._step = 1  # of the same optimizer step, where gradients accumulate
    run.args.gradient_accumulation_steps = 2
    others += rollout.paths_of(prompts, run)
    run.state.global_step = 1
    others += rollout.paths_of(prompts, run)
    run.model.eval()
    others += rollout.paths_of(prompts, run)
    assert len({*first, *others}) == len(first) + len(others)


def test_processes_walk_different_paths(folder, tmp_path):
    run, _ = trainer(folder, tmp_path)
    run.model.train()
    rollout = run.rollout_func
    prompts = [[1, 2], [1, 2], [3]]
    first = rollout.paths_of(prompts, run)
    run.accelerator.state._shared_state["process_index"] = 1
    try:
        second = rollout.paths_of(prompts, run)
    finally:
        run.accelerator.state._shared_state["process_index"] = 0
    assert len({*first, *second}) == 6


# ---- adapters and the reference ----


def adapted(folder: str) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))


def test_an_adapter_is_trained_along_paths(folder, tmp_path):
    run, _ = trainer(folder, tmp_path, adapted(folder), gradient_checkpointing=True)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.train()
    moved = {name for name, p in run.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all("lora" in name for name in moved)
    assert run.state.log_history[0]["sampling/sampling_logp_difference/mean"] < 1e-5


@pytest.mark.parametrize("kind", ["weights", "adapter"])
def test_the_reference_walks_the_policys_paths(folder, tmp_path, kind):
    model = adapted(folder) if kind == "adapter" else AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    run, _ = trainer(folder, tmp_path, model, routing=BOTH_ALL, beta=0.1)
    run.train()
    kl = [entry["kl"] for entry in run.state.log_history if "kl" in entry]
    assert kl[0] == pytest.approx(0, abs=1e-9)  # nothing is trained yet; off the paths it would be the noise's effect
    assert kl[1] > 1e-4


# ---- what is refused ----


def test_the_stock_trainer_is_refused(folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    args = GRPOConfig(str(tmp_path), max_steps=1, per_device_train_batch_size=8, use_cpu=True, bf16=False)
    stock = GRPOTrainer(
        model,
        Recorded(),
        args,
        Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=AutoTokenizer.from_pretrained(folder),
        rollout_func=PathRollout(sr.route(model), 0),
    )
    with pytest.raises(TypeError, match="works within RoutedGRPOTrainer"):
        stock.train()


def test_a_column_that_the_paths_need_is_refused(folder, tmp_path):
    run, _ = trainer(folder, tmp_path)
    run.train_dataset = run.train_dataset.add_column("path", ["a/file"] * len(run.train_dataset))
    with pytest.raises(ValueError, match="the dataset has a column 'path'"):
        run.train()


def test_dropout_is_refused(folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder, attention_dropout=0.1)
    with pytest.raises(ValueError, match=r"attention_dropout=0\.1: with dropout the loss would not be that"):
        trainer(folder, tmp_path, model)


def test_another_engine_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="use_transformers_continuous_batching=True would write completions off"):
        trainer(folder, tmp_path, use_transformers_continuous_batching=True)


def test_a_checkpoint_of_another_routing_is_refused(folder, tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 1}
    trainer(folder, tmp_path, max_steps=1, **saved)[0].train()
    other, _ = trainer(folder, tmp_path, routing=ATTENTION, **saved)
    with pytest.raises(ValueError, match="holds another routing"):
        other.train(resume_from_checkpoint=True)


def test_a_reference_that_cannot_take_over_sites_is_refused(folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    sites = {layer: f"model.layers.{layer}.self_attn.o_proj" for layer in range(3)}
    routed = sr.route(model, STRUCTURAL, sites=sites)
    args = GRPOConfig(str(tmp_path), bf16=False, use_cpu=True, report_to="none", beta=0.1)
    with pytest.raises(ValueError, match="cannot take over sites="):
        RoutedGRPOTrainer(
            routed,
            Recorded(),
            args,
            Dataset.from_dict({"prompt": PROMPTS}),
            processing_class=AutoTokenizer.from_pretrained(folder),
        )
