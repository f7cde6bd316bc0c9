"""Writes the README's table of measurements from the files in benchmarks/results.

python benchmarks/readme_table.py            # after the benchmarks themselves
"""

from pathlib import Path
from typing import Any

from results import fill, interval, markdown, read

README = Path(__file__).parents[1] / "README.md"
SAMPLERS = "temperature, top-p, min-p"  # of the story world: what paths are compared with


def generation_rows(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Speed and memory of many texts from one prompt."""
    model = f"{result['model_parameters'] // 10**6}M model"
    task = f"{result['paths']} texts of {result['new_tokens']} tokens, prompt of {result['prompt_tokens']}, {model}"
    rivals = {
        "greedy": f"transformers' generate, the prompt {result['paths']} times",
        "sampled": f"transformers' generate, `num_return_sequences={result['paths']}`",
    }
    rows = []
    for name in (n for n in rivals if n in result):
        arm, rival = result[name], rivals[name]
        peak = {key: f"{value / 2**30:.1f} GiB" for key, value in arm["peak_bytes"].items()}
        speed = f"faster by {interval(arm['stock_over_routed'], 1)}; peak {peak['routed']} against {peak['stock']}"
        rows.append((f"{task}, {name}", rival, speed))
    for step in result["decode_step_routed_over_plain"]:
        rows.append((f"a decode step with routing, batch {step['batch']}", "the plain step", interval(step, 3)))
    return rows


def attention_rows(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Attention with noise on every score against attention without."""
    parts, shape = result["parts"], f"{result['heads']} heads of {result['width']}"
    forward, backward = parts["forward"]["fused"]["float32"]["4096"], parts["backward"]["float32"]["2048"]
    naive = parts["naive"]["forward"]["float32"]["4096"]
    rival = "PyTorch's SDPA without noise"
    return [
        (f"attention with noise on every score, 4,096 tokens, {shape}, float32", rival, interval(forward, 2)),
        ("the same, 2,048 tokens, with the backward pass", rival, interval(backward, 2)),
        ("a (b, h, s, s) matrix of noise instead, 4,096 tokens", rival, interval(naive, 1)),
    ]


def story_rows(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Coherent and distinct plots after the first prompt, the best setting of each family; the file has the others."""
    prompt, families = next(iter(result["prompts"].items()))
    best = share(families[SAMPLERS])
    return [
        (f"{result['stories']} stories after “{prompt}”: {family}", SAMPLERS, f"{share(entry)} against {best}")
        for family, entry in families.items()
        if family != SAMPLERS
    ]


def share(entry: dict[str, Any]) -> str:
    """The setting, with its coherent stories and its distinct coherent threads in percent of all stories."""
    report = entry["report"]
    return (
        f"{report['coherent']:.0%} coherent, in {report['distinct_coherent_threads']:.0%} something else happens "
        f"({entry['best']})"
    )


def main() -> None:
    generation, attention, stories = read("generation"), read("attention"), read("story_world")
    rows = [("what", "against", "result"), ("---", "---", "---")]
    rows += generation_rows(generation) + attention_rows(attention) + story_rows(stories)
    machines = ", ".join(
        f"`{result['command']}` on {result['date']}, {result['processor']}, threads: {result['threads']}"
        for result in (generation, attention, stories)
    )
    table = markdown(rows)
    fill(README, "benchmarks/readme_table.py", f"{table}\n\nIntervals of 95 %. Measured by {machines}.")


if __name__ == "__main__":
    main()
