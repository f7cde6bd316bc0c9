"""GRPO on the embedded story model: paths as the exploration, against temperature.

    python benchmarks/rl.py --steps 12 --seeds 2       # goes on where it was interrupted

The reward is 1 for a coherent story whose hero is a fox, which one story in fourteen is, by the exact checker of
`stochroute.world`. All arms get the same number of stories, steps and learning rate; only what makes the stories differ
is another. Afterwards each model tells new stories, in the way it was trained and as the clean model at temperature 1.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from typing import Any

import harness
import torch
from datasets import Dataset
from trl import GRPOConfig

import stochroute as sr
from stochroute.embedded import DEFAULT_PROMPTS, load
from stochroute.integrations.trl import RoutedGRPOTrainer
from stochroute.world import Plot, check

HERO = "fox"
PROMPT = DEFAULT_PROMPTS[0]
GROUP, NEW_TOKENS, LEARNING_RATE = 32, 128, 5e-4


@dataclass(frozen=True)
class Arm:
    """What makes stories differ: temperature (None: greedy decoding), and the strength of noise drawn once a story in
    the upper third of the layers (0: none)."""

    temperature: float | None
    strength: float

    @property
    def name(self) -> str:
        tokens = "greedy" if self.temperature is None else f"temperature {self.temperature:g}"
        return f"paths {self.strength:g}, {tokens}" if self.strength else tokens

    def routed(self, model: Any) -> sr.RoutedModel:
        return sr.route(
            model, sr.RoutingConfig(structural=sr.Structural(strength=self.strength) if self.strength else None)
        )

    def decoding(self) -> dict[str, Any]:
        if self.temperature is None:
            return {"do_sample": False}
        return {"do_sample": True, "temperature": self.temperature, "top_k": 0}


CLEAN = Arm(1.0, 0.0)
ARMS = (
    CLEAN,
    Arm(0.7, 0.0),
    Arm(1.3, 0.0),
    Arm(1.0, 0.3),
    Arm(0.7, 0.3),
    Arm(None, 0.3),
    Arm(1.0, 0.1),
    Arm(None, 0.1),
)


def rewards(plots: list[Plot | None]) -> list[float]:
    return [float(plot is not None and plot.hero_kind == HERO) for plot in plots]


def read(texts: list[str]) -> list[Plot | None]:
    """The plot of every coherent story, None for the others."""
    verdicts = [check(text) for text in texts]
    return [verdict.plot if verdict.coherent else None for verdict in verdicts]


def tell(model: Any, tokenizer: Any, arm: Arm, stories: int) -> dict[str, float]:
    """Shares of so many new stories: rewarded, coherent, and (over the coherent ones) of different plots."""
    model.eval()
    routed = arm.routed(model)
    inputs = tokenizer(PROMPT, return_tensors="pt")
    out = routed.generate(**inputs, paths=stories, seed=1 << 40, max_new_tokens=NEW_TOKENS, **arm.decoding())
    plots = read(tokenizer.batch_decode(out.sequences, skip_special_tokens=True))
    routed.detach()
    coherent = [plot for plot in plots if plot is not None]
    return {
        "reward": sum(rewards(plots)) / stories,
        "coherent": len(coherent) / stories,
        "distinct": len(set(coherent)) / max(1, len(coherent)),
    }


def train(arm: Arm, seed: int, steps: int, stories: int) -> dict[str, Any]:
    """One run: the reward of every step, and what the model tells afterwards."""
    model, tokenizer = load()

    def reward(completions: list[str], **unused: Any) -> list[float]:
        return rewards(read([PROMPT + text for text in completions]))

    with tempfile.TemporaryDirectory() as folder:
        trainer = RoutedGRPOTrainer(
            arm.routed(model),
            reward,
            GRPOConfig(
                folder,
                max_steps=steps,
                per_device_train_batch_size=GROUP,
                num_generations=GROUP,
                max_completion_length=NEW_TOKENS,
                temperature=arm.temperature or 1.0,
                generation_kwargs={"do_sample": arm.temperature is not None},
                learning_rate=LEARNING_RATE,
                lr_scheduler_type="constant",
                seed=seed,
                logging_steps=1,
                gradient_checkpointing=False,
                bf16=False,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
            ),
            Dataset.from_dict({"prompt": [PROMPT] * (steps + 1)}),
            processing_class=tokenizer,
        )
        trainer.train()
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    trainer.routed.detach()
    return {
        "arm": arm.name,
        "seed": seed,
        "rewards": [entry["reward"] for entry in logged],
        "largest_logp_difference": max(entry["sampling/sampling_logp_difference/max"] for entry in logged),
        "own": tell(model, tokenizer, arm, stories),
        "clean": tell(model, tokenizer, CLEAN, stories),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--stories", type=int, default=96, help="told by each model afterwards")
    options = parser.parse_args()
    torch.set_num_threads(1)

    settings = {"group": GROUP, "steps": options.steps, "learning_rate": LEARNING_RATE, "stories": options.stories}
    runs, before = earlier(settings)
    model, tokenizer = load()
    for seed in range(options.seeds):
        for arm in ARMS:
            if any((run["arm"], run["seed"]) == (arm.name, seed) for run in runs):
                continue
            if arm.name not in before:
                before[arm.name] = tell(model, tokenizer, arm, options.stories)
            runs.append(train(arm, seed, options.steps, options.stories))
            print(arm.name, seed, runs[-1]["own"], runs[-1]["clean"], flush=True)
            harness.save("rl", {**settings, "before": before, "runs": runs})


def earlier(settings: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The runs, and what the untrained model told, of an interrupted benchmark with the same settings."""
    file = harness.RESULTS / "rl.json"
    result = json.loads(file.read_text()) if file.exists() else {}
    if any(result.get(name) != value for name, value in settings.items()):
        return [], {}
    return result["runs"], result["before"]


if __name__ == "__main__":
    main()
