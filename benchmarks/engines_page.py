"""Writes the figures of docs/engines.md from the result files.

python benchmarks/engines_page.py
"""

from pathlib import Path
from typing import Any

from results import fill, interval, markdown, read

PAGE = Path(__file__).parents[1] / "docs" / "engines.md"


def agreement(result: dict[str, Any]) -> str:
    """One row an engine, and every parting under the table."""
    head = ("engine", "texts as transformers writes them", "tokens compared", "largest difference of a log-probability")
    rows = [head, ("---", "---:", "---:", "---:")]
    partings: list[str] = []
    for name, row in result["engines"].items():
        same = f"{row['identical_to_transformers_generate']} of {row['texts']}"
        measured = row["largest_logprob_difference_nats"]
        rows.append(
            (name, same, f"{row['tokens_compared']:,}", f"{measured:.1e} nats" if measured else "not asked for")
        )
        partings += [
            f"- {name}, text {p['text']}, token {p['step']}: the two best logits are {p['gap']:.1e} apart, "
            f"{'a tie' if p['tie'] else '**no tie**'}"
            for p in row["partings"]
        ]
    what = f"{result['prompts']} prompts × {result['paths_each']} paths, {result['new_tokens']} tokens each"
    listed = "\n".join(["Texts that part:", "", *partings]) if partings else "No text parts anywhere."
    return f"{what}, greedy, model: {result['model']} (`{result['command']}`):\n\n{markdown(rows)}\n\n{listed}"


def throughput(result: dict[str, Any]) -> str:
    """One sentence with both ratios."""
    clock, processor = (result[name]["throughput_ratio"] for name in ("clock", "processor_time"))
    return (
        f"Tokens a second with paths over an engine without a routing, {result['requests']} requests at once, a random "
        f"Llama of {result['parameters'] / 1e6:.0f} million parameters in {result['dtype']}, "
        f"{'compiled' if result['compiled'] else 'not compiled'}, {len(clock['pairs'])} interleaved pairs: "
        f"{interval(processor, 3)} by processor time, {interval(clock, 2)} by the clock of a machine with other work "
        f"(`{result['command']}`)."
    )


if __name__ == "__main__":
    fill(PAGE, "engines.py", f"{agreement(read('engines'))}\n\n{throughput(read('vllm_throughput'))}")
