"""Calibrated on some prompts and paths, measured on others: is the budget kept?

    python benchmarks/calibration.py --shared FOLDER      # FOLDER holds models/ and data/; half an hour on one core
    python benchmarks/calibration.py --only embedded      # this model again; what the file says of others stays

Every model is calibrated for each routing and budget on 384 prompts and as many paths as the calibration chooses, and
KL(routed ‖ clean) is then measured on as many pairs of other prompts and other paths. Random 97M models get random
tokens, 128 pairs for the calibration and 256 for the measurement. The arm
"neutral passages" is what `--strength auto` does on the command line: calibrated on the passages that travel with the
package, measured on the model's own kind of text.
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from harness import save
from results import RESULTS, read
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import stochroute as sr
from stochroute import embedded
from stochroute.calibration import Sample, measure, neutral_rows
from stochroute.world import draw_text

SHARED_MODELS = {"stories260K": 48, "gpt2-bytes-1M": 96, "stories3M": 32}  # name -> tokens of a prompt
BUDGET, OTHER_BUDGETS = 0.05, (0.01, 0.2)
PROMPTS, EMBEDDED_TOKENS = 384, 64
PROMPTS_97M, PAIRS_97M, TOKENS_97M, LEAST_HELD_OUT = 64, 128, 12, 256
CALIBRATION_SEED, MEASURING_SEED = 0, 1

ROUTINGS = {
    "structural, shared": sr.RoutingConfig(),
    "structural, independent, hold 1": sr.RoutingConfig(structural=sr.Structural(form="independent", hold=1)),
    "structural, latent, all layers": sr.RoutingConfig(structural=sr.Structural(form="latent", layers="all")),
    "attention": sr.RoutingConfig(structural=None, attention=sr.Attention()),
    "structural and attention": sr.RoutingConfig(attention=sr.Attention()),
    "structural, shared, all positions": sr.RoutingConfig(span="all"),
}
EVERY_BUDGET = ("structural, shared", "structural and attention")
ATTENTION_97M = sr.Attention(layers="upper_third")
ROUTINGS_97M = {
    "structural, shared": sr.RoutingConfig(),
    "structural, latent": sr.RoutingConfig(structural=sr.Structural(form="latent")),
    "attention, upper third": sr.RoutingConfig(structural=None, attention=ATTENTION_97M),
}
_COMMON = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 16384}
SHAPES_97M: dict[str, dict[str, Any]] = {
    "llama": {**_COMMON, "intermediate_size": 2048, "tie_word_embeddings": True},
    "gpt2": {**_COMMON, "n_positions": 1024},
    "qwen3": {
        **_COMMON,
        "intermediate_size": 2048,
        "num_key_value_heads": 12,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
}

Rows = list[list[int]]


def stories(shared: Path) -> list[str]:
    """Whole TinyStories, those of the validation set first."""
    texts = []
    for name in ("tinystories_valid_256k.txt", "tinystories_train_tail.txt"):
        texts += (shared / "data" / name).read_text(encoding="utf-8").split("<|endoftext|>")[1:-1]
    return [text.strip() for text in texts if len(text.strip()) > 200]


def world_stories(first: int, count: int) -> list[str]:
    """Texts of the story world, a fifth of them Chinese, as the embedded model was trained on."""
    return [draw_text(11, index, "zh" if index % 5 == 0 else "en") for index in range(first, first + count)]


def random_97m(shape: str) -> Any:
    """A random model of about 97 million parameters, from a fixed seed."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(shape, **SHAPES_97M[shape])).eval()


def random_rows(count: int, seed: int) -> Rows:
    """Rows of random tokens."""
    stream = torch.Generator().manual_seed(seed)
    return torch.randint(0, _COMMON["vocab_size"], (count, TOKENS_97M), generator=stream).tolist()


def arms(shared: Path) -> Iterator[tuple[str, Any, Any, Rows, Rows, bool]]:
    """(name, model, tokenizer, prompts to calibrate on, prompts to measure on, whether it is one of 97M)."""
    for name, length in SHARED_MODELS.items():
        model = AutoModelForCausalLM.from_pretrained(shared / "models" / name, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(shared / "models" / name)
        rows = [tokenizer(text)["input_ids"][:length] for text in stories(shared)[: 2 * PROMPTS]]
        yield name, model, tokenizer, rows[::2], rows[1::2], False
    for shape in SHAPES_97M:
        rows, others = random_rows(PROMPTS_97M, 1), random_rows(2 * PROMPTS_97M, 2)
        yield f"random 97M, {shape}", random_97m(shape), None, rows, others, True
    model, tokenizer = embedded.load()
    split = [[row[:EMBEDDED_TOKENS] for row in tokenizer(world_stories(i, PROMPTS))["input_ids"]] for i in (0, PROMPTS)]
    yield "embedded", model, tokenizer, *split, False


def run(routed: sr.RoutedModel, rows: Rows, others: Rows, budget: float, pairs: int | None) -> dict[str, Any]:
    """One calibration and what is measured afterwards, on as many pairs as it took and at least 256."""
    clock = time.process_time()
    report = routed.calibrate(rows, budget=budget, pairs=pairs, seed=CALIBRATION_SEED)
    seconds = time.process_time() - clock
    held_out = Sample.along_paths(others, routed.config.span, max(report.pairs, LEAST_HELD_OUT), MEASURING_SEED)
    measured = measure(routed, held_out)
    low, high = measured.interval("divergence")
    return {
        "budget": budget,
        "strengths": report.strengths(),
        "calibrated": report.nats,
        "calibrated_interval": [report.low, report.high],
        "measured": measured.nats("divergence"),
        "measured_interval": [low, high],
        "measured_over_budget": measured.nats("divergence") / budget,
        "transmission": measured.nats("transmission"),
        "calibrated_on_pairs": report.pairs,
        "pairs": int(measured.divergence.numel()),
        "positions": int(measured.positions.sum()) * measured.divergence.shape[1],
        "evaluations": report.evaluations,
        "forward_passes": report.forward_passes,
        "processor_seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared", help="models and data")
    parser.add_argument("--only", action="append", help="a model; repeat for more")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = read("calibration")["models"] if options.only and (RESULTS / "calibration.json").exists() else {}
    result: dict[str, Any] = {"models": kept}
    for name, model, tokenizer, rows, others, large in arms(options.shared):
        if options.only and name not in options.only:
            continue
        found: list[dict[str, Any]] = []
        result["models"][name] = {"parameters": model.num_parameters(), "tokens_a_prompt": max(map(len, rows))}
        result["models"][name]["runs"] = found
        settings = [(label, config, BUDGET, rows) for label, config in (ROUTINGS_97M if large else ROUTINGS).items()]
        if tokenizer is not None:
            settings += [
                (label, ROUTINGS[label], budget, rows)
                for label, budget in itertools.product(EVERY_BUDGET, OTHER_BUDGETS)
            ]
            settings.append(("neutral passages", sr.RoutingConfig(), BUDGET, neutral_rows(tokenizer, None)))
        for label, config, budget, calibrated_on in settings:
            routed = sr.route(model, config)
            pairs = PAIRS_97M if large else None
            found.append({"routing": label, **run(routed, calibrated_on, others, budget, pairs)})
            routed.detach()
            print(name, "|", label, "|", budget, "|", found[-1]["measured_over_budget"], flush=True)
            save("calibration", result)  # after each, so that a kill loses little


if __name__ == "__main__":
    main()
