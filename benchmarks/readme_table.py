"""Writes the README's table of measurements from the files in benchmarks/results.

python benchmarks/readme_table.py            # after the benchmarks themselves
"""

import json
import re
from pathlib import Path
from typing import Any

from harness import RESULTS

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- figures: benchmarks/readme_table.py -->", "<!-- end of figures -->"


def read(name: str) -> dict[str, Any]:
    """One result file."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def interval(ratio: dict[str, float], digits: int) -> str:
    """A ratio with its 95 % interval."""
    return f"{ratio['median']:.{digits}f} × ({ratio['low']:.{digits}f} – {ratio['high']:.{digits}f})"


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


def story_rows(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Coherent and distinct plots after the first prompt, the best setting of each family; the file has the others."""
    prompt, families = next(iter(result["prompts"].items()))
    (sampler, best), *others = families.items()
    return [
        (f"{result['stories']} stories after “{prompt}”: {family}", sampler, f"{share(entry)} against {share(best)}")
        for family, entry in others
    ]


def share(entry: dict[str, Any]) -> str:
    """The setting, with its coherent stories and its distinct coherent plots in percent of all stories."""
    report = entry["report"]
    return (
        f"{report['coherent']:.0%} coherent, {report['distinct_coherent_plots']:.0%} distinct plots ({entry['best']})"
    )


def main() -> None:
    generation, stories = read("generation"), read("story_world")
    rows = [("what", "against", "result"), ("---", "---", "---")]
    rows += generation_rows(generation) + story_rows(stories)
    machines = " and ".join(
        f"`{result['command']}` on {result['date']}, {result['processor']}, threads: {result['threads']}"
        for result in (generation, stories)
    )
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    text = README.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{README.name} has no {BEGIN} … {END}")
    filled = f"{BEGIN}\n{table}\n\nIntervals of 95 %. Measured by {machines}.\n{END}"
    README.write_text(pattern.sub(lambda _: filled, text), encoding="utf-8")


if __name__ == "__main__":
    main()
