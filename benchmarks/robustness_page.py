"""Fills docs/robustness.md from the result of benchmarks/robustness.py.

python benchmarks/robustness_page.py
"""

from pathlib import Path
from typing import Any

from results import fill, markdown, read

DOCUMENT = Path(__file__).parents[1] / "docs" / "robustness.md"
ARMS = {"clean": "one clean run", "routed": "one path", "vote": "vote over paths", "smoothed": "SmoothLLM's form"}
GAINS = {
    "vote - clean": "vote − clean",
    "smoothed - clean": "SmoothLLM's − clean",
    "vote - smoothed": "vote − SmoothLLM's",
}


def interval(found: dict[str, float], sign: str = "") -> str:
    """A mean with its interval."""
    return f"{found['mean']:{sign}.2f} ({found['low']:{sign}.2f} – {found['high']:{sign}.2f})"


def table(report: dict[str, Any]) -> str:
    """One row an attack, the prompts as they are first and all attacks together last."""
    rows = [["attack", *ARMS.values(), *GAINS.values()], ["---"] * 8]
    for entry in (*report["conditions"], report["attacked"]):
        name = "none" if entry["kind"] is None else entry["kind"]
        if name == "all":
            name = "**all attacks**"
        elif entry["rate"]:
            name = f"{name} {entry['rate']:g}"
        accuracies = [interval(entry["accuracy"][arm]) for arm in ARMS]
        rows.append([name, *accuracies, *(interval(entry["gain"][gain], "+") for gain in GAINS)])
    return markdown(rows)


def section(attack: str, training: str, found: dict[str, Any]) -> str:
    """A heading, what was chosen, and the table."""
    report = found["all_seeds"]
    chosen = ", ".join(f"{one['routing']} / {one['smoothing']}" for one in found["chosen"])
    seeds = len(found["chosen"])
    about = f"{report['prompts']} prompts, seeds: {seeds}; chosen strength / rate of the copies: {chosen}."
    asked = "; ".join(f"{name.replace('_', ' ')} {share:.2f}" for name, share in found["clean_by_question"].items())
    about += f" A clean run where nothing is attacked, by question: {asked}."
    kind = "a random perturbation" if attack == "random" else f"the {attack}"
    return f"### {training.capitalize()} training, {kind}\n\n{about}\n\n{table(report)}"


def main() -> None:
    result = read("robustness")
    sections = [
        section(attack, training, runs)
        for attack, found in result["attacks"].items()
        for training, runs in found["trainings"].items()
    ]
    difference = result["attacks"]["random"]["fresh noise - plain"]
    sections.append(
        "Fresh noise in training against plain training, over all random attacks, paired by prompt: "
        + "; ".join(f"{name} {interval(difference[arm], '+')}" for arm, name in ARMS.items())
        + "."
    )
    closing = (
        f"K = {result['paths']}, {result['dtype']}. Measured by `{result['command']}` on {result['date']}, "
        f"{result['processor']}, threads: {result['threads']}."
    )
    fill(DOCUMENT, "benchmarks/robustness_page.py", "\n\n".join([*sections, closing]))


if __name__ == "__main__":
    main()
